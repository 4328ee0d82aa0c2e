package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/notebookd/notebookd/cmd/notebookctl/internal/words"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// TestWatch: the table comes first, then a line for each change, also those that
// happen while the server is away; and what happens to the connection is told.
func TestWatch(t *testing.T) {
	t.Parallel()
	fleet := simulate(t, cloudsim.Config{Notebooks: 3})
	s := serve(t, fleet, fmt.Sprintf("store: {data_dir: %q}", t.TempDir()))
	c := s.caller(t)
	words := c.start(t, "watch", "core")
	lines := c.with("LANG", "zh_CN.UTF-8").start(t, "watch", "core", "-o", "json")
	chinese := c.with("LANG", "zh_CN.UTF-8").start(t, "list", "core", "-w", "-f", "display_name = renamed-1 OR display_name = \"@t=*\"")
	one := c.start(t, "get", firstName, "-w")
	within(t, 10*time.Second, "the table", func() bool { return strings.Contains(words.stdout.String(), "nb-eiguqichl5hc") })
	within(t, 10*time.Second, "the snapshot", func() bool { return strings.Contains(lines.stdout.String(), "SNAPSHOT_END") })
	within(t, 10*time.Second, "the notebook", func() bool { return strings.Contains(one.stdout.String(), "sku-simulated") })

	// A change of the image is told to all that watch, and as an image change.
	c.want(t, 0, "change-image", firstName, "--image", torch, "--image-type", "official", "--reason", "test")
	changed := "MODIFIED     core/xb3/nb-eiguqichl5hc  容器实例-1  stopped  image.uri: " + tensorflow + " → " + torch
	within(t, 10*time.Second, "the change in words", func() bool { return strings.Contains(words.stdout.String(), changed) })
	within(t, 10*time.Second, "the change of one", func() bool { return strings.Contains(one.stdout.String(), changed) })
	within(t, 10*time.Second, "the image change", func() bool { return strings.Contains(words.stderr.String(), "of core/xb3/nb-eiguqichl5hc: succeeded") })
	within(t, 10*time.Second, "the change in JSON", func() bool { return strings.Contains(lines.stdout.String(), `"changedFields":["image.uri"]`) })

	// The server goes away and comes back; the watch goes on.
	s.stop(t)
	within(t, 10*time.Second, "the interruption", func() bool { return strings.Contains(words.stderr.String(), "the connection is interrupted: ") })
	within(t, 10*time.Second, "the interruption in Chinese", func() bool { return strings.Contains(lines.stderr.String(), "连接中断：") })
	fleet.CoresHub.Break(cloudsim.Fault{Mode: cloudsim.ModeStatus, Location: "xb2"})
	s.configure(t, fleet, fmt.Sprintf("store: {data_dir: %q}", t.TempDir())) // another log: everything is told anew
	s.start(t)
	within(t, 20*time.Second, "the connection", func() bool {
		return strings.Contains(words.stderr.String(), "connected again") && strings.Contains(lines.stderr.String(), "已重新连接")
	})
	within(t, 20*time.Second, "the reset", func() bool {
		return strings.Contains(words.stderr.String(), "the server tells everything anew (")
	})
	within(t, 20*time.Second, "the location", func() bool {
		return strings.Contains(words.stderr.String(), "location clouds/core/locations/xb2 is unreachable: ") &&
			strings.Contains(lines.stdout.String(), `"location":{"name":"clouds/core/locations/xb2"`)
	})
	fleet.CoresHub.Heal()
	within(t, 40*time.Second, "the location is back", func() bool {
		return strings.Contains(words.stderr.String(), "location clouds/core/locations/xb2 is live")
	})
	c.want(t, 0, "change-image", firstName, "--image", tensorflow, "--image-type", "official")
	within(t, 10*time.Second, "the change after the restart", func() bool {
		return strings.Contains(words.stdout.String(), "image.uri: "+torch+" → "+tensorflow)
	})
	for what, b := range map[string]*background{"watch": words, "json": lines, "list -w": chinese, "get -w": one} {
		if code := b.end(t); code != 0 {
			t.Errorf("%s ended with %d\n%s", what, code, &b.stderr)
		}
	}
	if text := words.stdout.String(); strings.Count(text, "→") != 2 {
		t.Errorf("more than the two changes were told:\n%s", text)
	}
	// Every line is one frame as the API has it.
	for _, line := range strings.Split(strings.TrimSpace(lines.stdout.String()), "\n") {
		var frame notebookv1.WatchResponse
		if err := protojson.Unmarshal([]byte(line), &frame); err != nil || !json.Valid([]byte(line)) {
			t.Errorf("%v: %s", err, line)
		}
	}
}

// TestWatchResumes: a watch goes on where it was when the server comes back with what it
// had stored, also when it was killed. What happened meanwhile is told once, and nothing
// else.
func TestWatchResumes(t *testing.T) {
	t.Parallel()
	fleet := simulate(t, cloudsim.Config{Notebooks: 8})
	store := fmt.Sprintf("store: {data_dir: %q}", t.TempDir())
	s := serve(t, fleet, store)
	c := s.caller(t)
	states := func() map[string]string { // nil while a location is not read
		r := c.run(t, "list", "core", "-o", "json")
		if r.code == exitPartial {
			return nil
		}
		out := map[string]string{}
		var list notebookv1.ListResponse
		if err := protojson.Unmarshal([]byte(r.stdout), &list); err != nil || r.code != 0 {
			t.Fatalf("exit code %d, %v: %s", r.code, err, r.stderr)
		}
		for _, n := range list.GetNotebooks() {
			out[strings.TrimPrefix(n.GetName(), "clouds/")] = words.English.State(n.GetState())
		}
		return out
	}
	inWords, inJSON := c.start(t, "watch", "core"), c.start(t, "watch", "core", "-o", "json")
	within(t, 10*time.Second, "the snapshots", func() bool {
		return strings.Contains(inWords.stdout.String(), "nb-eiguqichl5hc") && strings.Contains(inJSON.stdout.String(), "SNAPSHOT_END")
	})
	for times, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		before, wordsBefore, linesBefore := states(), len(inWords.stdout.String()), len(inJSON.stdout.String())
		if before == nil {
			t.Fatal("a location is not read, though nothing happens")
		}
		if err := s.process.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		_ = s.process.Wait() // by that signal
		s.process = nil
		within(t, 10*time.Second, "the interruption", func() bool {
			return strings.Count(inWords.stderr.String(), "the connection is interrupted: ") > times
		})
		for range 6 {
			fleet.CoresHub.Step()
		}
		s.configure(t, fleet, store) // on the same port
		s.start(t)
		s.ready(t)
		within(t, 20*time.Second, "the connection", func() bool {
			return strings.Count(inWords.stderr.String(), "connected again") > times
		})
		// All that happened is known: what is told late would be missing the next time.
		var after map[string]string
		within(t, 20*time.Second, "what the cloud has", func() bool {
			after = states()
			there := 0
			for _, zone := range cloudsim.CoresHubZones[:2] {
				for _, n := range fleet.CoresHub.Truth(zone) {
					if _, ok := after["core/locations/"+zone+"/notebooks/"+n.ID]; !ok {
						return false
					}
					there++
				}
			}
			return there == len(after)
		})
		want := map[string]string{} // by short name: what is told of a notebook
		for name, now := range after {
			switch was, known := before[name]; {
			case !known:
				want[name] = "ADDED"
			case was != now:
				want[name] = "state: " + was + " → " + now
			}
		}
		for name := range before {
			if _, ok := after[name]; !ok {
				want[name] = "DELETED"
			}
		}
		if len(want) < 2 {
			t.Fatalf("only %v happened", want)
		}
		told := func() map[string]string {
			out := map[string]string{}
			for line := range strings.Lines(inWords.stdout.String()[wordsBefore:]) {
				for name := range want {
					if !strings.Contains(line, strings.ReplaceAll(strings.ReplaceAll(name, "locations/", ""), "notebooks/", "")+"  ") {
						continue
					}
					out[name] += line
				}
			}
			return out
		}
		within(t, 20*time.Second, fmt.Sprintf("all of %v is told", want), func() bool { return len(told()) == len(want) })
		for name, line := range told() {
			if !strings.Contains(line, want[name]) || strings.Count(line, "\n") != 1 {
				t.Errorf("%v: %s is told as %q, want %q once", signal, name, line, want[name])
			}
		}
		within(t, 20*time.Second, "all is told in JSON", func() bool {
			return strings.Count(inJSON.stdout.String()[linesBefore:], `"notebook":`) >= len(want)
		})
		refuse(t, inJSON.stdout.String()[linesBefore:], `"reset"`, "SNAPSHOT_END", `"initial":true`)
		refuse(t, inWords.stderr.String(), "the server tells everything anew")
	}
	for _, b := range []*background{inWords, inJSON} {
		if code := b.end(t); code != 0 {
			t.Errorf("it ended with %d\n%s", code, &b.stderr)
		}
	}
}

// TestWatchKinds: what comes, goes and leaves the filter, in both languages, and the
// end by --for.
func TestWatchKinds(t *testing.T) {
	t.Parallel()
	fleet := simulate(t, cloudsim.Config{Notebooks: 5})
	s := serve(t, fleet, "")
	c := s.caller(t)
	everything := c.start(t, "watch", "core")
	chinese := c.with("LANG", "zh_CN.UTF-8").start(t, "watch", "core", "--filter", "state = RUNNING")
	clouds := c.start(t, "clouds", "-w")
	within(t, 10*time.Second, "the tables", func() bool {
		return strings.Contains(everything.stdout.String(), "\n") && strings.Contains(chinese.stdout.String(), "\n") && strings.Contains(clouds.stdout.String(), "\n")
	})
	within(t, 30*time.Second, "all kinds of changes", func() bool {
		fleet.CoresHub.Step()
		all, running := everything.stdout.String(), chinese.stdout.String()
		return strings.Contains(all, "  ADDED  ") && strings.Contains(all, "  MODIFIED  ") && strings.Contains(all, "  DELETED  ") && strings.Contains(all, "state: ") &&
			strings.Contains(running, "  新增  ") && strings.Contains(running, "  不再匹配  ") && strings.Contains(clouds.stdout.String(), "notebooks: ")
	})
	for _, b := range []*background{everything, chinese, clouds} {
		if code := b.end(t); code != 0 {
			t.Errorf("it ended with %d\n%s", code, &b.stderr)
		}
	}
	began := time.Now()
	refuse(t, c.want(t, 0, "watch", "core", "--for", "1s").stderr, "interrupted")
	c.want(t, 0, "clouds", "-w", "--for", "1s")
	c.want(t, 0, "history", "-w", "--for", "1s")
	if d := time.Since(began); d < 3*time.Second || d > 10*time.Second {
		t.Errorf("three watches of a second took %v", d)
	}
}

// TestPartial: a cloud that cannot be reached makes the answer partial, and no more.
func TestPartial(t *testing.T) {
	t.Parallel()
	fleet := simulate(t, cloudsim.Config{Notebooks: 2})
	s := serve(t, fleet, "")
	c := s.caller(t)
	fleet.CoresHub.Break(cloudsim.Fault{Mode: cloudsim.ModeRefuse})
	within(t, 30*time.Second, "the cloud is unreachable", func() bool {
		return strings.Count(c.run(t, "list").stderr, "cannot be reached") == 2
	})
	r := c.want(t, exitPartial, "list")
	expect(t, r.stderr, "warning: clouds/core/locations/xb2 cannot be reached; what is shown of it was read ", " ago", "clouds/core/locations/xb3")
	expect(t, r.stdout, idOf(firstName))
	expect(t, c.with("LANG", "zh_CN").want(t, exitPartial, "list", "-o", "name").stderr, "警告：clouds/core/locations/xb2 不可达，所显示的是 ")
	expect(t, c.want(t, exitPartial, "list", "-o", "json").stdout, `"unreachable": [`, "clouds/core/locations/xb2")
	expect(t, c.want(t, exitPartial, "get", firstName).stderr, "clouds/core/locations/xb3")
	c.want(t, exitPartial, "watch", "--for", "1s")
	expect(t, c.want(t, exitError, "get", "nb-nothing").stderr, "clouds/core/locations/xb3 cannot be reached: it may be there")
	// What has nothing to do with it is whole, and so is the answer on how the clouds do.
	if r := c.want(t, 0, "list", "scnet"); r.stderr != "" {
		t.Errorf("%s", r.stderr)
	}
	expect(t, c.want(t, 0, "clouds").stdout, "core/xb2", "unreachable")
	expect(t, c.want(t, 0, "clouds", "core/xb2").stdout, "State", "unreachable", "Reason", "What to do", "Circuit breaker")
	r = c.want(t, exitError, "list", "core", "--max-staleness", "0s")
	expect(t, r.stderr, "error: ", "Try again in ", "(C")
}

// TestMany: ten thousand notebooks are listed whole, in every form.
func TestMany(t *testing.T) {
	t.Parallel()
	fleet := simulate(t, cloudsim.Config{Notebooks: 2, CoresHubNotebooks: 5000})
	s := serve(t, fleet, "")
	c := s.caller(t)
	want := 2*5000 + 2*2
	within(t, 20*time.Second, "all are known", func() bool {
		var list notebookv1.ListResponse
		return protojson.Unmarshal([]byte(c.want(t, 0, "list", "--limit", "1", "-o", "json").stdout), &list) == nil && int(list.GetTotalSize()) == want
	})
	began := time.Now()
	if n := strings.Count(c.want(t, 0, "list", "--no-headers").stdout, "\n"); n != want {
		t.Errorf("%d rows, want %d", n, want)
	}
	t.Logf("a table of %d rows took %v", want, time.Since(began))
	names := map[string]bool{}
	for _, name := range strings.Fields(c.want(t, 0, "list", "-o", "name").stdout) {
		names[name] = true
	}
	if len(names) != want {
		t.Errorf("%d names, want %d", len(names), want)
	}
	began = time.Now()
	var list struct{ Notebooks []struct{ Name string } }
	if err := json.Unmarshal([]byte(c.want(t, 0, "list", "-o", "json").stdout), &list); err != nil || len(list.Notebooks) != want {
		t.Errorf("%v: %d notebooks", err, len(list.Notebooks))
	}
	t.Logf("JSON of %d notebooks took %v", want, time.Since(began))
	if n := len(strings.Fields(c.want(t, 0, "list", "-o", "name", "--limit", "2500").stdout)); n != 2500 {
		t.Errorf("%d with --limit 2500", n)
	}
}
