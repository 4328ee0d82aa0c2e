package service

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/inventory"
	"github.com/notebookd/notebookd/internal/upstream"
)

// places are the locations that somebody may see, as cloud/location, or a cloud with
// all of its own. What begins with + may be changed, too.
type places []string

func (p places) Sees(cloud, location string) bool {
	return slices.ContainsFunc(p, func(place string) bool {
		place = strings.TrimPrefix(place, "+")
		return place == cloud || place == cloud+"/"+location
	})
}

func (p places) SeesCloud(cloud string) bool {
	return slices.ContainsFunc(p, func(place string) bool {
		name, _, _ := strings.Cut(strings.TrimPrefix(place, "+"), "/")
		return name == cloud
	})
}

func (p places) Operates(cloud, location string) bool {
	return slices.Contains(p, "+"+cloud) || slices.Contains(p, "+"+cloud+"/"+location)
}

func (p places) Nothing() bool { return len(p) == 0 }
func (p places) Key() string   { return strings.ReplaceAll(strings.Join(p, " "), "+", "") }

// people are callers by name, as a header says it.
type people struct {
	mu     sync.Mutex // guards what is below
	rights map[string]Rights
	gone   map[string]error
}

func (p *people) caller(ctx context.Context) Caller {
	md, _ := metadata.FromIncomingContext(ctx)
	name := strings.Join(md.Get("who"), "")
	check := func(context.Context) (Rights, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.rights[name], p.gone[name]
	}
	rights, _ := check(ctx)
	return Caller{Name: name, Rights: rights, Check: check}
}

func (p *people) set(change func(p *people)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

func as(t *testing.T, name string) context.Context {
	t.Helper()
	return metadata.AppendToOutgoingContext(t.Context(), "who", name)
}

func watchAs(t *testing.T, f *fixture, name string, req *notebookv1.WatchRequest) *watching {
	t.Helper()
	stream, err := f.Watch(as(t, name), req)
	if err != nil {
		t.Fatal(err)
	}
	return &watching{t: t, stream: stream, state: map[string]*notebookv1.Notebook{}}
}

// town is a fixture with two clouds of two locations each and one that is down, and
// people who may see something of them.
func town(t *testing.T) (*fixture, *people) {
	t.Helper()
	core, scn, down := newFakeCloud("xb2", "xb3"), newFakeCloud("sh", "zz"), newFakeCloud("far")
	for cloud, locations := range map[*fakeCloud][]string{core: {"xb2", "xb3"}, scn: {"sh", "zz"}} {
		cloud.can.ChangeImage = upstream.ChangeImageInPlace
		for _, location := range locations {
			cloud.put(location, numbered(3)...)
		}
	}
	down.set(func(f *fakeCloud) { f.err = &upstream.Error{Kind: upstream.KindUnavailable} })
	f := start(t, "", map[string]*fakeCloud{"core": core, "scn": scn, "down": down})
	p := &people{gone: map[string]error{}, rights: map[string]Rights{
		"all": everything{}, "core": places{"+core"}, "xb3": places{"+core/xb3"}, "both": places{"core/xb3", "+scn/sh"},
		"down": places{"down"}, "ghost": places{"nowhere"}, "nobody": places{},
	}}
	f.service.caller = p.caller
	return f, p
}

// TestSeen: what a caller gets of List, Watch and the clouds is what it may see, in
// every part of the answer, whoever else asked the same a moment before.
func TestSeen(t *testing.T) {
	f, _ := town(t)
	for range 2 { // the second time from what is kept
		for name, want := range map[string]struct {
			locations, clouds string
			unreachable       string
		}{
			"all":  {"core/xb2 core/xb3 down/far scn/sh scn/zz", "core down scn", "down/far"},
			"core": {"core/xb2 core/xb3", "core", ""},
			"xb3":  {"core/xb3", "core", ""},
			"both": {"core/xb3 scn/sh", "core scn", ""},
		} {
			list, err := f.List(as(t, name), &notebookv1.ListRequest{PageSize: 4})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			expected := map[string]int{}
			total := 0
			for _, location := range strings.Fields(want.locations) {
				if location != "down/far" {
					expected[location], total = 3, total+3
				}
			}
			if int(list.GetTotalSize()) != total {
				t.Errorf("%s: total is %d, want %d", name, list.GetTotalSize(), total)
			}
			if got := located(list.GetUnreachable()...); got != want.unreachable {
				t.Errorf("%s: unreachable is %q, want %q", name, got, want.unreachable)
			}
			var fresh []string
			for _, freshness := range list.GetFreshness() {
				fresh = append(fresh, freshness.GetLocation())
			}
			if got := located(fresh...); got != want.locations {
				t.Errorf("%s: freshness of %q, want %q", name, got, want.locations)
			}
			rows := map[string]int{}
			for token := ""; ; {
				page, err := f.List(as(t, name), &notebookv1.ListRequest{PageSize: 4, PageToken: token, OrderBy: "state desc"})
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				for _, n := range page.GetNotebooks() {
					rows[located(n.GetName())]++
				}
				if token = page.GetNextPageToken(); token == "" {
					break
				}
			}
			if !maps.Equal(rows, expected) {
				t.Errorf("%s: pages have %v, want %v", name, rows, expected)
			}

			w := watchAs(t, f, name, &notebookv1.WatchRequest{})
			var told []string
			for {
				frame := w.next()
				if l := frame.GetLocation(); l != nil {
					told = append(told, l.GetName())
				}
				if frame.GetBookmark() != nil {
					break
				}
			}
			if got := located(told...); got != want.locations {
				t.Errorf("%s: a watch tells of %q, want %q", name, got, want.locations)
			}
			if len(w.state) != total {
				t.Errorf("%s: a watch shows %d rows, want %d", name, len(w.state), total)
			}

			clouds, err := f.clouds.ListClouds(as(t, name), &notebookv1.ListCloudsRequest{})
			if err != nil {
				t.Fatal(err)
			}
			var cloudNames, locationNames []string
			for _, c := range clouds.GetClouds() {
				one, err := f.clouds.GetCloud(as(t, name), &notebookv1.GetCloudRequest{Name: c.GetName()})
				if err != nil {
					t.Fatal(err)
				}
				cloudNames = append(cloudNames, strings.TrimPrefix(c.GetName(), "clouds/"))
				for _, l := range one.GetCloud().GetLocations() {
					locationNames = append(locationNames, l.GetName())
				}
			}
			if got := strings.Join(cloudNames, " "); got != want.clouds {
				t.Errorf("%s: clouds are %q, want %q", name, got, want.clouds)
			}
			if got := located(locationNames...); got != want.locations {
				t.Errorf("%s: locations of the clouds are %q, want %q", name, got, want.locations)
			}
		}
	}
}

// located makes cloud/location of resource names.
func located(names ...string) string {
	var out []string
	for _, name := range names {
		parts := strings.Split(name, "/")
		if len(parts) >= 4 {
			out = append(out, parts[1]+"/"+parts[3])
		} else {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// TestDenied: what a caller may not do is refused alike whether it exists or not.
func TestDenied(t *testing.T) {
	f, _ := town(t)
	const a, elsewhere = "clouds/core/locations/xb3/notebooks/nb-0000", "clouds/scn/locations/sh/notebooks/nb-0000"
	change := func(name string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := f.ChangeImage(ctx, &notebookv1.ChangeImageRequest{Name: name, Image: "registry/new:1", ImageType: "custom"})
			return err
		}
	}
	list := func(parent string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := f.List(ctx, &notebookv1.ListRequest{Parent: parent})
			return err
		}
	}
	watch := func(parent string) func(context.Context) error {
		return func(ctx context.Context) error {
			stream, err := f.Watch(ctx, &notebookv1.WatchRequest{Parent: parent})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}
	}
	cloud := func(name string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := f.clouds.GetCloud(ctx, &notebookv1.GetCloudRequest{Name: name})
			return err
		}
	}
	texts := map[string]bool{}
	for _, tt := range []struct {
		who, what string
		call      func(context.Context) error
	}{
		{"core", "list of another cloud", list("clouds/scn")},
		{"core", "list of no cloud", list("clouds/none")},
		{"xb3", "list of another location", list("clouds/core/locations/xb2")},
		{"xb3", "list of no location", list("clouds/core/locations/none")},
		{"core", "watch of another cloud", watch("clouds/scn/locations/sh")},
		{"core", "watch of no cloud", watch("clouds/none")},
		{"core", "another cloud", cloud("clouds/scn")},
		{"core", "no cloud", cloud("clouds/none")},
		{"core", "change elsewhere", change(elsewhere)},
		{"core", "change of nothing", change("clouds/none/locations/x/notebooks/y")},
		{"both", "change by a viewer", change(a)},
		{"nobody", "list", list("")},
		{"nobody", "watch", watch("")},
		{"nobody", "change", change(a)},
		{"nobody", "clouds", func(ctx context.Context) error {
			_, err := f.clouds.ListClouds(ctx, &notebookv1.ListCloudsRequest{})
			return err
		}},
	} {
		err := tt.call(as(t, tt.who))
		if status.Code(err) != codes.PermissionDenied || reason(err) != "PERMISSION_DENIED" {
			t.Errorf("%s by %s: %v", tt.what, tt.who, err)
		}
		texts[status.Convert(err).Message()] = true
	}
	if len(texts) != 1 {
		t.Errorf("the refusals differ: %v", slices.Collect(maps.Keys(texts)))
	}
	if err := change(a)(as(t, "xb3")); err != nil {
		t.Errorf("the one who may: %v", err)
	}
	wantError(t, list("")(as(t, "ghost")), codes.NotFound, "CLOUD_NOT_FOUND")
}

// TestGetCaller: a caller is told what the door says of it, and where nobody is asked
// that it may do everything.
func TestGetCaller(t *testing.T) {
	describe := func() *notebookv1.Caller {
		return &notebookv1.Caller{Subject: "x", Method: notebookv1.Caller_METHOD_OIDC}
	}
	for _, tt := range []struct {
		caller Caller
		want   *notebookv1.Caller
	}{
		{Caller{Name: "192.0.2.1"}, &notebookv1.Caller{
			Subject: "192.0.2.1", Method: notebookv1.Caller_METHOD_NONE, Grants: []*notebookv1.Grant{{Role: notebookv1.Grant_ROLE_ADMIN, Parent: "clouds/-"}},
		}},
		{Caller{Name: "x", Rights: places{}, Describe: describe}, &notebookv1.Caller{Subject: "x", Method: notebookv1.Caller_METHOD_OIDC}},
	} {
		s := New(Config{Caller: func(context.Context) Caller { return tt.caller }})
		resp, err := s.GetCaller(t.Context(), &notebookv1.GetCallerRequest{})
		if diff := cmp.Diff(tt.want, resp.GetCaller(), protocmp.Transform()); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}
}

// TestPastStates: what is told has no two states beside each other that look the same.
func TestPastStates(t *testing.T) {
	at := func(minutes int) time.Time { return time.Unix(int64(60*minutes), 0) }
	failed := func(kind upstream.Kind) *inventory.Failure { return &inventory.Failure{Kind: kind} }
	const live, unreachable = notebookv1.Location_STATE_LIVE, notebookv1.Location_STATE_UNREACHABLE
	got := pastStates([]inventory.Past{
		{State: live, Since: at(1)},
		{State: unreachable, Failure: failed(upstream.KindUnavailable), Since: at(2)},
		{State: unreachable, Failure: failed(upstream.KindFault), Since: at(3)}, // is CLOUD_UNAVAILABLE, too
		{State: unreachable, Failure: failed(upstream.KindCircuitOpen), Since: at(4)},
		{State: unreachable, Failure: &inventory.Failure{Store: true}, Since: at(5)},
		{State: live, Since: at(6)},
	})
	past := func(state notebookv1.Location_State, reason notebookv1.ErrorReason, minutes int) *notebookv1.PastState {
		return &notebookv1.PastState{State: state, Reason: reason, StartTime: timestamppb.New(at(minutes))}
	}
	want := []*notebookv1.PastState{
		past(live, 0, 1), past(unreachable, notebookv1.ErrorReason_ERROR_REASON_CLOUD_UNAVAILABLE, 2),
		past(unreachable, notebookv1.ErrorReason_ERROR_REASON_CIRCUIT_OPEN, 4), past(unreachable, notebookv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE, 5), past(live, 0, 6),
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestHistorySeen: the history has what a caller may see, and nothing tells an image
// change that it may not see from none.
func TestHistorySeen(t *testing.T) {
	f, _ := town(t)
	one := changeAs(t, f, "xb3", &notebookv1.ChangeImageRequest{Name: "clouds/core/locations/xb3/notebooks/nb-0000", Image: "registry/new:1", ImageType: "custom"})
	other := changeAs(t, f, "both", &notebookv1.ChangeImageRequest{Name: "clouds/scn/locations/sh/notebooks/nb-0000", Image: "registry/new:1", ImageType: "custom"})
	if one.GetPrincipal() != "xb3" {
		t.Errorf("the principal is %q", one.GetPrincipal())
	}
	for name, want := range map[string][]string{
		"all": {other.GetName(), one.GetName()}, "core": {one.GetName()}, "both": {other.GetName(), one.GetName()}, "down": nil,
	} {
		resp, err := f.service.ListImageChanges(incomingAs(t, name), &notebookv1.ListImageChangesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range resp.GetImageChanges() {
			got = append(got, c.GetName())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s sees %v, want %v", name, got, want)
		}
		for _, c := range []*notebookv1.ImageChange{one, other} {
			_, err := f.service.GetImageChange(incomingAs(t, name), &notebookv1.GetImageChangeRequest{Name: c.GetName()})
			if slices.Contains(want, c.GetName()) != (err == nil) {
				t.Errorf("%s asks for %s: %v", name, c.GetNotebook(), err)
			}
			if err != nil {
				wantError(t, err, codes.NotFound, "IMAGE_CHANGE_NOT_FOUND")
			}
		}
	}
	_, err := f.service.ListImageChanges(incomingAs(t, "nobody"), &notebookv1.ListImageChangesRequest{})
	wantError(t, err, codes.PermissionDenied, "PERMISSION_DENIED")
	_, err = f.service.GetImageChange(incomingAs(t, "nobody"), &notebookv1.GetImageChangeRequest{Name: one.GetName()})
	wantError(t, err, codes.PermissionDenied, "PERMISSION_DENIED")
}

func changeAs(t *testing.T, f *fixture, name string, req *notebookv1.ChangeImageRequest) *notebookv1.ImageChange {
	t.Helper()
	resp, err := f.ChangeImage(as(t, name), req)
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetChange()
}

func incomingAs(t *testing.T, name string) context.Context {
	t.Helper()
	return metadata.NewIncomingContext(t.Context(), metadata.Pairs("who", name))
}

// TestRightsGo: a watch ends at a bookmark when its caller may not watch any more,
// and is told to come again when it may see something else; then it begins anew.
func TestRightsGo(t *testing.T) {
	f, p := town(t)
	often := durationpb.New(50 * time.Millisecond)
	w := watchAs(t, f, "core", &notebookv1.WatchRequest{BookmarkInterval: often})
	w.untilBookmark(notebookv1.Bookmark_KIND_SNAPSHOT_END)
	w.untilBookmark(notebookv1.Bookmark_KIND_HEARTBEAT)
	p.set(func(p *people) { p.rights["core"] = places{"core/xb2"} })
	var last string
	for {
		frame := w.next()
		if frame.GetNotebook() != nil {
			t.Fatalf("a row after the rights have changed: %v", frame)
		}
		last = frame.GetResumeToken()
		if frame.GetBookmark().GetKind() == notebookv1.Bookmark_KIND_CLOSING {
			break
		}
	}
	w = watchAs(t, f, "core", &notebookv1.WatchRequest{BookmarkInterval: often, ResumeToken: last})
	if r := w.next().GetReset_().GetReason(); r != "VIEW_CHANGED" {
		t.Errorf("resumed with %q", r)
	}
	w.untilBookmark(notebookv1.Bookmark_KIND_SNAPSHOT_END)
	if len(w.state) != 3 {
		t.Errorf("%d rows, want 3", len(w.state))
	}
	p.set(func(p *people) { p.gone["core"] = errDenied(nil) })
	for {
		if _, err := w.stream.Recv(); err != nil {
			wantError(t, err, codes.PermissionDenied, "PERMISSION_DENIED")
			break
		}
	}
}

// TestCloudsComeAndGo: a watch begins anew when a cloud is gone, or is back with
// what it had; a new one just comes.
func TestCloudsComeAndGo(t *testing.T) {
	f, _ := town(t)
	sources := map[string]inventory.Source{}
	for _, name := range []string{"core", "scn", "down"} {
		source, ok := f.inventory.Source(name)
		if !ok {
			t.Fatal(name)
		}
		sources[name] = source
	}
	set := func(names ...string) {
		var list []inventory.Source
		for _, name := range names {
			list = append(list, sources[name])
		}
		f.inventory.SetSources(list)
	}
	w := watchAs(t, f, "all", &notebookv1.WatchRequest{})
	only := watchAs(t, f, "core", &notebookv1.WatchRequest{})
	gone := watchAs(t, f, "all", &notebookv1.WatchRequest{Parent: "clouds/scn"})
	for _, each := range []*watching{w, only, gone} {
		each.untilBookmark(notebookv1.Bookmark_KIND_SNAPSHOT_END)
	}
	first, err := f.List(as(t, "all"), &notebookv1.ListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	before := first.GetResumeToken()
	rows := func(want int, reset string) {
		t.Helper()
		for {
			if r := w.next().GetReset_(); r != nil {
				if r.GetReason() != reset {
					t.Fatalf("reset with %q, want %q", r.GetReason(), reset)
				}
				w.state = map[string]*notebookv1.Notebook{}
				break
			}
		}
		w.untilBookmark(notebookv1.Bookmark_KIND_SNAPSHOT_END)
		if len(w.state) != want {
			t.Fatalf("%d rows, want %d", len(w.state), want)
		}
	}
	set("core", "down")
	rows(6, "VIEW_CHANGED")
	for {
		if _, err := gone.stream.Recv(); err != nil {
			wantError(t, err, codes.NotFound, "CLOUD_NOT_FOUND")
			break
		}
	}
	list, err := f.List(as(t, "all"), &notebookv1.ListRequest{})
	if err != nil || list.GetTotalSize() != 6 {
		t.Errorf("a list has %d rows: %v", list.GetTotalSize(), err)
	}
	set("core", "down", "scn")
	rows(12, "VIEW_CHANGED")

	fresh := newFakeCloud("moon")
	fresh.put("moon", numbered(2)...)
	sources["new"] = inventory.Source{Name: "new", Kind: "fake", Provider: fresh, Client: upstream.NewClient(upstream.ClientConfig{Cloud: "new"}), Poll: sources["core"].Poll}
	set("core", "down", "scn", "new")
	for range 2 {
		if e := w.nextNotebook(); e.GetType() != notebookv1.NotebookEvent_TYPE_ADDED || located(e.GetNotebook().GetName()) != "new/moon" {
			t.Errorf("event %v", e)
		}
	}
	late := watchAs(t, f, "all", &notebookv1.WatchRequest{ResumeToken: before})
	if r := late.next().GetReset_().GetReason(); r != "VIEW_CHANGED" {
		t.Errorf("an old token is resumed with %q", r)
	}
	// Who cannot see what came and went is told nothing of it.
	core := sources["core"].Provider.(*fakeCloud)
	core.put("xb2", append(numbered(3), upstream.Notebook{ID: "last"})...)
	for {
		frame := only.next()
		if frame.GetReset_() != nil {
			t.Fatal("a reset for who sees another cloud only")
		}
		if frame.GetNotebook() != nil {
			break
		}
	}
}
