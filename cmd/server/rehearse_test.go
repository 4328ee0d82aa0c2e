package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// rehearsal is a row of the table "Rehearse it" in the README of a cloud.
type rehearsal struct {
	path, method, body string
	state              notebookv1.Location_State // LIVE, or unset where there is a reason
	reason, code       string
}

var (
	rehearsalRow = regexp.MustCompile("^\\| `([^`]*)` \\| `([^`]*)`(?: `([^`]*)`)?.*\\|$")
	curlCommand  = regexp.MustCompile(`^(\S+)(?: -X ([A-Z]+))?(?: -d '(.*)')?$`)
)

// rehearsals reads the table of a cloud's README.
func rehearsals(t *testing.T, cloud string) []rehearsal {
	t.Helper()
	data, err := os.ReadFile("../../internal/upstream/" + cloud + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(data), "## Rehearse it\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var out []rehearsal
	for _, line := range strings.Split(section, "\n") {
		if !strings.HasPrefix(line, "| `") || strings.HasPrefix(line, "| `curl ") {
			continue
		}
		row := rehearsalRow.FindStringSubmatch(line)
		if row == nil {
			t.Fatalf("a row that cannot be read: %s", line)
		}
		command := curlCommand.FindStringSubmatch(row[1])
		if command == nil {
			t.Fatalf("a command that cannot be read: %s", row[1])
		}
		r := rehearsal{path: "/" + command[1], method: command[2], body: command[3], code: row[3]}
		switch r.method {
		case "":
			r.method = http.MethodPost
		case http.MethodPatch, http.MethodDelete, http.MethodPost:
		default:
			t.Fatalf("method %s", r.method)
		}
		if row[2] == "LIVE" {
			r.state = notebookv1.Location_STATE_LIVE
		} else {
			r.reason = row[2]
		}
		out = append(out, r)
	}
	if len(out) == 0 {
		t.Fatal("there is no table")
	}
	return out
}

// TestRehearse runs every row of the tables "Rehearse it": it sends the command
// to the simulated cloud and looks at what a caller sees.
func TestRehearse(t *testing.T) {
	t.Parallel()
	for cloud, location := range map[string]string{"coreshub": "clouds/core/locations/xb3", "scnet": "clouds/scnet/locations/20057"} {
		t.Run(cloud, func(t *testing.T) {
			t.Parallel()
			var p *process
			var fleet *cloudsim.Fleet
			end := func() {}
			t.Cleanup(func() { end() })
			fresh := func() {
				if p != nil { // its polls would take time from those of the next one
					if err := p.stop(); err != nil {
						t.Fatal(err)
					}
				}
				end()
				started, err := cloudsim.Start(cloudsim.Config{})
				if err != nil {
					t.Fatal(err)
				}
				fleet, end = started, sync.OnceFunc(started.Close)
				config := strings.ReplaceAll(fleet.ServerConfig(), "poll: {fast: 1s, normal: 2s, idle: 5s}",
					"poll: {fast: 100ms, normal: 100ms, idle: 100ms}\n    timeout: 5s\n    breaker: {min_requests: 1000000}")
				p = start(t, strings.Replace(config, "calls_per_hour: 20000", "calls_per_hour: 1000000", 1))
			}
			fresh()
			for i, r := range rehearsals(t, cloud) {
				if !whole && i%4 != 0 {
					continue
				}
				t.Run(strings.Trim(r.path+" "+r.body, " "), func(t *testing.T) {
					r.run(t, p, fleet, location)
				})
				// A new process: some answers make a poller wait for minutes.
				if r.reason == "LOCATION_DISABLED" || r.reason == "CLOUD_RATE_LIMITED" {
					fresh()
					continue
				}
				p.until(t, "all is well again", func() bool {
					l, ok := p.server.inventory.Snapshot().Location(location)
					return ok && l.State == notebookv1.Location_STATE_LIVE
				})
			}
		})
	}
}

func (r rehearsal) run(t *testing.T, p *process, fleet *cloudsim.Fleet, location string) {
	t.Helper()
	cloud := strings.SplitN(location, "/", 3)[1]
	before := settingsOf(t, fleet, cloud)
	control(t, fleet, r.method, r.path, r.body)
	since := time.Now()
	var seen string
	p.until(t, fmt.Sprintf("%+v", r), func() bool {
		resp, err := p.clouds.GetCloud(t.Context(), &notebookv1.GetCloudRequest{Name: "clouds/" + cloud})
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(resp.GetCloud().GetLocations(), func(l *notebookv1.Location) bool { return l.GetName() == location })
		l := resp.GetCloud().GetLocations()[i]
		seen = fmt.Sprint(l.GetState(), l.GetReason(), l.GetCloudCode())
		if r.reason != "" {
			return strings.TrimPrefix(l.GetReason().String(), "ERROR_REASON_") == r.reason && l.GetCloudCode() == r.code
		}
		// It was LIVE before as well: a poll has to have begun since. (A poll that
		// began before may meet the fault, and be the last one for minutes.)
		return l.GetState() == r.state && l.GetLastAttemptTime().AsTime().After(since)
	})
	t.Log(seen)
	if r.state == notebookv1.Location_STATE_LIVE {
		resp, err := p.List(t.Context(), &notebookv1.ListRequest{Parent: location, PageSize: 1000})
		if err != nil {
			t.Fatal(err)
		}
		id := location[strings.LastIndex(location, "/")+1:]
		truth := fleet.CoresHub.Truth(id)
		if cloud == "scnet" {
			truth = fleet.SCNet.Truth(id)
		}
		if len(resp.GetNotebooks()) != len(truth) {
			t.Errorf("%d notebooks, the cloud has %d", len(resp.GetNotebooks()), len(truth))
		}
	}
	control(t, fleet, http.MethodDelete, "/"+cloud+"/faults", "")
	control(t, fleet, http.MethodPatch, "/"+cloud+"/settings", before)
}

// TestStateHistory: an outage that is over can still be read over REST, with its
// reasons and times, and watches are not told of it.
func TestStateHistory(t *testing.T) {
	fleet, err := cloudsim.Start(cloudsim.Config{Seed: 1, Notebooks: 3})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	p := start(t, strings.ReplaceAll(quick(fleet), "idle: 100ms}", "idle: 100ms}\n    breaker: {min_requests: 1000000}"))
	const location = "clouds/core/locations/xb3"
	type past struct {
		State, Reason string
		StartTime     time.Time
	}
	ask := func() (state string, history []past) {
		t.Helper()
		code, body := p.get(t, "/v1/clouds/core")
		var answer struct {
			Cloud struct {
				Locations []struct {
					Name, State  string
					StateHistory []past
				}
			}
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil || code != http.StatusOK {
			t.Fatalf("%d %s: %v", code, body, err)
		}
		for _, l := range answer.Cloud.Locations {
			if l.Name == location {
				return l.State, l.StateHistory
			}
		}
		t.Fatalf("no %s in %s", location, body)
		return "", nil
	}
	became := func(want string) time.Time {
		t.Helper()
		p.until(t, want, func() bool { state, _ := ask(); return state == want })
		return time.Now()
	}
	up := became("STATE_LIVE")
	control(t, fleet, http.MethodPost, "/core/faults", `{"mode": "status", "status": 500}`)
	down := became("STATE_UNREACHABLE")
	control(t, fleet, http.MethodDelete, "/core/faults", "")
	back := became("STATE_LIVE")
	_, history := ask()
	var got []string
	for _, p := range history {
		got = append(got, strings.TrimSpace(p.State+" "+p.Reason))
	}
	if diff := cmp.Diff([]string{
		"STATE_LIVE", "STATE_STALE ERROR_REASON_CLOUD_UNAVAILABLE", "STATE_UNREACHABLE ERROR_REASON_CLOUD_UNAVAILABLE", "STATE_LIVE",
	}, got); diff != "" {
		t.Errorf("the history (-want +got):\n%s", diff)
	}
	at := map[string]time.Time{}
	for i, p := range history {
		if i > 0 && p.StartTime.Before(history[i-1].StartTime) {
			t.Errorf("%v is out of order", p)
		}
		at[p.State] = p.StartTime // the last time
	}
	if live, unreachable := at["STATE_LIVE"], at["STATE_UNREACHABLE"]; unreachable.Before(up) || live.Before(down) || live.After(back) {
		t.Errorf("it was live at %v, down since %v, back at %v: the history says %v", up, down, back, history)
	}
	resp, err := p.clouds.ListClouds(t.Context(), &notebookv1.ListCloudsRequest{})
	if err != nil || len(resp.GetClouds()[0].GetLocations()[0].GetStateHistory()) == 0 {
		t.Errorf("ListClouds: %v, %v", resp, err)
	}
	stream, err := p.Watch(t.Context(), &notebookv1.WatchRequest{Parent: location})
	if err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if l := frame.GetLocation(); l != nil {
			if l.GetName() != location || len(l.GetStateHistory()) != 0 {
				t.Errorf("a watch is told %v", l)
			}
			return
		}
	}
}

// settingsOf returns the settings of a cloud as they would be set again.
func settingsOf(t *testing.T, fleet *cloudsim.Fleet, cloud string) string {
	t.Helper()
	var status struct{ Settings json.RawMessage }
	if err := json.Unmarshal([]byte(control(t, fleet, http.MethodGet, "/"+cloud, "")), &status); err != nil {
		t.Fatal(err)
	}
	return string(status.Settings)
}

// control makes a request to the control endpoint of the simulated clouds.
func control(t *testing.T, fleet *cloudsim.Fleet, method, path, body string) string {
	t.Helper()
	p := &process{url: fleet.ControlURL()}
	code, answer := p.do(t, method, path, body)
	if code != http.StatusOK {
		t.Fatalf("%s %s %s: %d %s", method, path, body, code, answer)
	}
	return answer
}
