package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream"
	"github.com/notebookd/notebookd/internal/upstream/upstreamtest/toycloud"
	"github.com/notebookd/notebookd/internal/upstream/upstreamtest/toycloud/toysim"
)

// TestThirdCloud: a cloud that nothing here was written for needs its package
// and one line in kinds. It is configured, listed, watched and changed, over
// both doors, without a change to any other package.
func TestThirdCloud(t *testing.T) {
	kinds["toycloud"] = kindOf(toycloud.New, upstream.BudgetConfig{}) // the one line
	t.Cleanup(func() { delete(kinds, "toycloud") })

	sim, err := toysim.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sim.Close)
	zone := toysim.Zones[0]
	id := sim.Add(zone, 1)[0]
	sim.Off(id)
	name := "clouds/toy/locations/" + zone + "/notebooks/" + id
	const poll = "poll: {fast: 100ms, normal: 100ms, idle: 100ms}"
	p := start(t, fmt.Sprintf(`clouds:
  - name: toy
    kind: toycloud
    toycloud: {endpoint: %q, zones: [%s], key: {value: %s}}
    %s
`, sim.URL(), strings.Join(toysim.Zones, ", "), toysim.Key, poll))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	cloud, err := p.clouds.GetCloud(ctx, &notebookv1.GetCloudRequest{Name: "clouds/toy"})
	if err != nil || cloud.GetCloud().GetKind() != "toycloud" || len(cloud.GetCloud().GetLocations()) != len(toysim.Zones) {
		t.Errorf("cloud = %v, %v", cloud, err)
	}
	list, err := p.List(ctx, &notebookv1.ListRequest{})
	if err != nil || list.GetTotalSize() != 11 || len(list.GetNotebooks()) != 11 || len(list.GetUnreachable()) != 0 {
		t.Errorf("list over gRPC: %d of %d, unreachable %v, %v", len(list.GetNotebooks()), list.GetTotalSize(), list.GetUnreachable(), err)
	}
	code, body := p.get(t, "/v1/clouds/toy/locations/"+zone+"/notebooks")
	overREST := &notebookv1.ListResponse{}
	if err := protojson.Unmarshal([]byte(body), overREST); err != nil || code != http.StatusOK || len(overREST.GetNotebooks()) != 6 {
		t.Errorf("list over REST: %d, %v, %s", code, err, body)
	}

	// Both watches follow what happens.
	stream, err := p.Watch(ctx, &notebookv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	lines := p.lines(t, "/v1/clouds/toy/notebooks:watch")
	see := func(ok func(*notebookv1.WatchResponse) bool) {
		t.Helper()
		frames(t, stream, ok)
		untilLine(t, lines, ok)
	}
	see(func(f *notebookv1.WatchResponse) bool {
		return f.GetBookmark().GetKind() == notebookv1.Bookmark_KIND_SNAPSHOT_END
	})
	added := "clouds/toy/locations/" + zone + "/notebooks/" + sim.Add(zone, 1)[0]
	see(func(f *notebookv1.WatchResponse) bool {
		return isEvent(f, notebookv1.NotebookEvent_TYPE_ADDED, added, "")
	})

	const first, second = "registry.example.com/toy:2", "registry.example.com/toy:3"
	changed, err := p.ChangeImage(ctx, &notebookv1.ChangeImageRequest{Name: name, Image: first})
	if err != nil || changed.GetChange().GetPhase() != notebookv1.ImageChange_PHASE_SUCCEEDED || changed.GetNotebook().GetImage().GetUri() != first {
		t.Errorf("change over gRPC: %v, %v", changed, err)
	}
	see(func(f *notebookv1.WatchResponse) bool {
		return isEvent(f, notebookv1.NotebookEvent_TYPE_MODIFIED, name, first)
	})
	code, body = p.do(t, http.MethodPost, "/v1/"+name+":changeImage", `{"image": "`+second+`"}`)
	changed = &notebookv1.ChangeImageResponse{}
	if err := protojson.Unmarshal([]byte(body), changed); err != nil || code != http.StatusOK ||
		changed.GetChange().GetPhase() != notebookv1.ImageChange_PHASE_SUCCEEDED || changed.GetNotebook().GetImage().GetUri() != second {
		t.Errorf("change over REST: %d, %v, %s", code, err, body)
	}
	see(func(f *notebookv1.WatchResponse) bool {
		return isEvent(f, notebookv1.NotebookEvent_TYPE_MODIFIED, name, second)
	})
	if n := sim.Changes(id); n != 2 {
		t.Errorf("the cloud made %d changes, want 2", n)
	}

	// What it refuses is told in our words.
	code, body = p.do(t, http.MethodPost, "/v1/"+added+":changeImage", `{"image": "`+second+`", "acknowledge": ["NOTEBOOK_RUNNING"]}`)
	if code != http.StatusBadRequest || !strings.Contains(body, `"CLOUD_REJECTED"`) || !strings.Contains(body, `"box_is_on"`) {
		t.Errorf("a refused change: %d, %s", code, body)
	}
	for where, text := range map[string]string{"list": list.String(), "answer": body, "log": p.log.String()} {
		for _, secret := range []string{toysim.Key, toysim.Password, toysim.EnvValue} {
			if strings.Contains(text, secret) {
				t.Errorf("%s is in the %s", secret, where)
			}
		}
	}
}
