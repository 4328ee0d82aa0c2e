package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

// startSimulated runs a server on simulated clouds that a test controls.
func startSimulated(t *testing.T, sims cloudsim.Config) (*process, *cloudsim.Fleet) {
	t.Helper()
	fleet, err := cloudsim.Start(sims)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	return start(t, fleet.ServerConfig()), fleet
}

// frames reads a watch over gRPC until one satisfies ok.
func frames(t *testing.T, stream grpc.ServerStreamingClient[notebookv1.WatchResponse], ok func(*notebookv1.WatchResponse) bool) {
	t.Helper()
	for {
		frame, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if ok(frame) {
			return
		}
	}
}

// untilLine reads a watch over REST until a line satisfies ok.
func untilLine(t *testing.T, lines *bufio.Scanner, ok func(*notebookv1.WatchResponse) bool) {
	t.Helper()
	for {
		frame := nextLine(t, lines)
		if frame == nil {
			t.Fatalf("the watch has ended: %v", lines.Err())
		}
		if ok(frame) {
			return
		}
	}
}

func isEvent(f *notebookv1.WatchResponse, of notebookv1.NotebookEvent_Type, name, image string) bool {
	e := f.GetNotebook()
	return e.GetType() == of && e.GetNotebook().GetName() == name && (image == "" || e.GetNotebook().GetImage().GetUri() == image)
}

// TestMainJob is what the README promises of `make run`: both clouds in one
// list, changes in both watches, and an image change that both of them show.
func TestMainJob(t *testing.T) {
	t.Parallel()
	p, fleet := startSimulated(t, cloudsim.Config{Seed: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	resp, err := p.List(ctx, &notebookv1.ListRequest{PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, n := range resp.GetNotebooks() {
		count[strings.Join(strings.Split(n.GetName(), "/")[:4], "/")]++
	}
	want := fmt.Sprint(map[string]int{
		"clouds/core/locations/xb2": 8, "clouds/core/locations/xb3": 8, "clouds/scnet/locations/11250": 8, "clouds/scnet/locations/20057": 8,
	})
	if got := fmt.Sprint(count); got != want || len(resp.GetUnreachable()) != 0 {
		t.Errorf("notebooks = %s, want %s; unreachable %v", got, want, resp.GetUnreachable())
	}
	cloud, err := p.clouds.GetCloud(ctx, &notebookv1.GetCloudRequest{Name: "clouds/scnet"})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range cloud.GetCloud().GetLocations() {
		state := notebookv1.Location_STATE_LIVE
		if l.GetName() == "clouds/scnet/locations/20091" {
			state = notebookv1.Location_STATE_DISABLED // it has no AI service
		}
		if l.GetState() != state {
			t.Errorf("%s is %v, want %v", l.GetName(), l.GetState(), state)
		}
	}

	stream, err := p.Watch(ctx, &notebookv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	isEnd := func(f *notebookv1.WatchResponse) bool {
		return f.GetBookmark().GetKind() == notebookv1.Bookmark_KIND_SNAPSHOT_END
	}
	frames(t, stream, isEnd)
	lines := p.lines(t, "/v1/notebooks:watch")
	untilLine(t, lines, isEnd)

	const image = "registry.example.com/team/finetune:15"
	name := "clouds/core/locations/xb3/notebooks/" + cloudsim.CoresHubNotebook
	changed, err := p.ChangeImage(ctx, &notebookv1.ChangeImageRequest{
		Name: name, Image: image, ImageType: "custom",
		RegistryCredential: &notebookv1.RegistryCredential{Username: "robot", Password: "canary-registry-password"},
	})
	if err != nil || changed.GetChange().GetPhase() != notebookv1.ImageChange_PHASE_SUCCEEDED || changed.GetNotebook().GetImage().GetUri() != image {
		t.Fatalf("change = %v, %v", changed, err)
	}
	if n := fleet.CoresHub.Changes(cloudsim.CoresHubNotebook); n != 1 {
		t.Errorf("the cloud was asked %d times", n)
	}
	isChange := func(f *notebookv1.WatchResponse) bool {
		return isEvent(f, notebookv1.NotebookEvent_TYPE_MODIFIED, name, image)
	}
	frames(t, stream, isChange)
	untilLine(t, lines, isChange)

	// What others do in a cloud is seen too.
	added := "clouds/scnet/locations/20057/notebooks/" + fleet.SCNet.Add("20057", 1)[0]
	isAdded := func(f *notebookv1.WatchResponse) bool {
		return isEvent(f, notebookv1.NotebookEvent_TYPE_ADDED, added, "")
	}
	frames(t, stream, isAdded)
	untilLine(t, lines, isAdded)

	_, metrics := p.get(t, "/metrics")
	_, list := p.get(t, "/v1/notebooks?pageSize=1000")
	for where, text := range map[string]string{"log": p.log.String(), "metrics": metrics, "REST": list, "gRPC": resp.String(), "answer": changed.String()} {
		for _, secret := range []string{
			cloudsim.SCNetPassword, cloudsim.CoresHubSecret, cloudsim.SCNetSecretKey, "canary-registry-password", "simulated-environment-value", "simulated-jupyter-token",
		} {
			if strings.Contains(text, secret) {
				t.Errorf("%s is in the %s", secret, where)
			}
		}
	}
}

// TestWithoutAConfiguration: the simulated clouds are started, and the first
// lines say so and what to try.
func TestWithoutAConfiguration(t *testing.T) {
	cfg, err := loadConfig("")
	if err != nil || !cfg.simulated() {
		t.Fatalf("simulated = %v, %v", cfg.simulated(), err)
	}
	control, stop, err := simulate(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	p := startConfig(t, cfg)
	var out bytes.Buffer
	p.server.announce(&out, control, false)
	for _, want := range []string{
		"SIMULATED", "Nothing here is real.\nConsole: http://localhost:" + p.url[strings.LastIndex(p.url, ":")+1:] + "/\nTry:\n", "curl '" + p.url + "/v1/notebooks", "curl -N " + p.url + "/v1/notebooks:watch",
		"grpcurl -plaintext " + p.conn.Target() + " notebook.v1.NotebookService/Watch", control,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the first lines have no %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "notebookctl") {
		t.Errorf("there is no notebookctl beside a test, but\n%s", out.String())
	}
	out.Reset()
	p.server.announce(&out, control, true)
	for _, want := range []string{
		"两个模拟云：gRPC 地址 " + p.conn.Target() + "，HTTP 地址 " + strings.TrimPrefix(p.url, "http://") + "。其中没有任何真实资源。\n控制台：http://localhost:", "curl -N " + p.url + "/v1/notebooks:watch\n",
		"使其恢复：      curl -X DELETE " + control + "/core/faults\n",
	} {
		if !strings.Contains(out.String(), want) || strings.Contains(out.String(), "%!") {
			t.Errorf("the first lines in Chinese have no %q:\n%s", want, out.String())
		}
	}
	// A second one beside it takes other ports.
	second, stopSecond, err := simulate(&config{})
	if err != nil || second == control {
		t.Fatalf("second = %s, %v", second, err)
	}
	stopSecond()
}

// TestFirstLines: a newcomer is told where the console is, unless there is none.
func TestFirstLines(t *testing.T) {
	fleet, err := cloudsim.Start(cloudsim.Config{Seed: 1, Notebooks: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer fleet.Close()
	for _, on := range []bool{true, false} {
		p := start(t, fmt.Sprintf("http: {console: {enabled: %v}}\n%s", on, fleet.ServerConfig()))
		var out bytes.Buffer
		p.server.announce(&out, "", false)
		want := fmt.Sprintf("notebookd serves 2 clouds: gRPC on %s, HTTP on %s.\n", p.conn.Target(), strings.TrimPrefix(p.url, "http://"))
		if on {
			want += "Console: http://localhost:" + p.url[strings.LastIndex(p.url, ":")+1:] + "/\n"
		}
		if out.String() != want {
			t.Errorf("%q, want %q", &out, want)
		}
		out.Reset()
		p.server.announce(&out, "", true)
		want = fmt.Sprintf("notebookd 已接入 2 个云：gRPC 地址 %s，HTTP 地址 %s。\n", p.conn.Target(), strings.TrimPrefix(p.url, "http://"))
		if on {
			want += "控制台：http://localhost:" + p.url[strings.LastIndex(p.url, ":")+1:] + "/\n"
		}
		if out.String() != want {
			t.Errorf("in Chinese %q, want %q", &out, want)
		}
	}
	for _, tt := range []struct {
		ip   string
		tls  bool
		want string
	}{
		{"127.0.0.1", false, "http://localhost:8080"},
		{"::1", true, "https://localhost:8080"},
		{"0.0.0.0", false, "http://localhost:8080"},
		{"::", false, "http://localhost:8080"},
		{"192.0.2.7", true, "https://192.0.2.7:8080"},
		{"2001:db8::7", false, "http://[2001:db8::7]:8080"},
	} {
		if got := baseURL(&net.TCPAddr{IP: net.ParseIP(tt.ip), Port: 8080}, tt.tls); got != tt.want {
			t.Errorf("%v: %s, want %s", tt, got, tt.want)
		}
	}
}

// TestListCommand: the notebookctl that is beside the server is named as it can be run.
func TestListCommand(t *testing.T) {
	top := t.TempDir()
	bin := filepath.Join(top, "bin")
	if err := os.MkdirAll(filepath.Join(bin, "other", "notebookctl"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "notebookctl"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ server, dir, address, want string }{
		{"bin/server", "", "127.0.0.1:9090", "  bin/notebookctl list\n"},
		{"bin/server", "", "127.0.0.1:9191", "  bin/notebookctl list --server 127.0.0.1:9191\n"},
		{"bin/server", "bin", "127.0.0.1:9090", "  ./notebookctl list\n"},
		{"bin/server", "bin/other", "127.0.0.1:9090", "  " + filepath.Join(bin, "notebookctl") + " list\n"},
		{"bin/other/server", "", "127.0.0.1:9090", ""}, // a folder of that name
		{"server", "", "127.0.0.1:9090", ""},
	} {
		if got := listCommand(filepath.Join(top, tt.server), filepath.Join(top, tt.dir), tt.address); got != tt.want {
			t.Errorf("%v: %q, want %q", tt, got, tt.want)
		}
	}
}
