package service

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream"
)

// historyOf is a client of the fixture's history, over a connection of its own.
func historyOf(t *testing.T, f *fixture) notebookv1.ImageChangeServiceClient {
	t.Helper()
	server := grpc.NewServer()
	notebookv1.RegisterImageChangeServiceServer(server, f.service)
	listener := bufconn.Listen(1 << 20)
	served := make(chan struct{}) // closed when Serve has returned
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	conn, err := grpc.NewClient("passthrough:///history", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		<-served
	})
	return notebookv1.NewImageChangeServiceClient(conn)
}

// change is a change of an image that has to end well.
func change(t *testing.T, f *fixture, req *notebookv1.ChangeImageRequest) *notebookv1.ImageChange {
	t.Helper()
	resp, err := f.ChangeImage(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetChange()
}

// reasonsOf are the reasons that changes were given, which tell them apart.
func reasonsOf(changes []*notebookv1.ImageChange) string {
	var out []string
	for _, c := range changes {
		out = append(out, c.GetReason())
	}
	return strings.Join(out, " ")
}

// quoted is a time as a value of a filter.
func quoted(t *timestamppb.Timestamp) string {
	return `"` + t.AsTime().Format(time.RFC3339Nano) + `"`
}

// TestHistory: changes by several callers, of several notebooks and with
// several ends, as filters select them.
func TestHistory(t *testing.T) {
	const (
		a = "clouds/core/locations/xb3/notebooks/nb-0000"
		b = "clouds/core/locations/xb3/notebooks/nb-0001"
		c = "clouds/scnet/locations/11250/notebooks/nb-0000"
	)
	core, scnet := newFakeCloud("xb3"), newFakeCloud("11250")
	list := numbered(2)
	list[0].Image = upstream.Image{URI: "registry/old:1", Type: "official"}
	list[1].State = upstream.StateRunning
	core.put("xb3", list...)
	other := numbered(1)
	other[0].Image = upstream.Image{URI: "registry/same:1", Type: "custom"}
	scnet.put("11250", other...)
	f := start(t, "", map[string]*fakeCloud{"core": core, "scnet": scnet})
	history := historyOf(t, f)

	if resp, err := history.ListImageChanges(t.Context(), &notebookv1.ListImageChangesRequest{Filter: "phase:*"}); err != nil || len(resp.GetImageChanges()) != 0 {
		t.Errorf("before the first change: %v, %v", resp, err)
	}

	first := change(t, f, &notebookv1.ChangeImageRequest{Name: a, Image: "registry/PyTorch:2", ImageType: "official", Reason: "made"})
	core.set(func(cloud *fakeCloud) {
		cloud.changeErr = &upstream.Error{Cloud: "core", Location: "xb3", Kind: upstream.KindConflict, Code: "1400", RequestID: "cr-7", Sent: true}
	})
	_, err := f.ChangeImage(t.Context(), &notebookv1.ChangeImageRequest{Name: a, Image: "registry/none:1", ImageType: "official", Reason: "refused"})
	wantError(t, err, codes.FailedPrecondition, "CLOUD_REJECTED")
	core.set(func(cloud *fakeCloud) { cloud.changeErr = nil })
	f.service.caller = func(context.Context) Caller { return Caller{Name: "10.0.0.9"} }
	third := change(t, f, &notebookv1.ChangeImageRequest{
		Name: b, Image: "registry/new:1", ImageType: "custom", Reason: "acknowledged", Acknowledge: []string{"NOTEBOOK_RUNNING"},
	})
	request := uuid.NewString()
	change(t, f, &notebookv1.ChangeImageRequest{Name: c, Image: "registry/same:1", ImageType: "custom", Reason: "unchanged", RequestId: request})
	// The last one is under way until the cloud answers.
	block := make(chan struct{})
	scnet.set(func(cloud *fakeCloud) { cloud.block = block })
	under := change(t, f, &notebookv1.ChangeImageRequest{Name: c, Image: "registry/next:1", ImageType: "custom", Reason: "open", Wait: durationpb.New(0)})
	f.until(t, "the cloud is asked", func() bool {
		scnet.mu.Lock()
		defer scnet.mu.Unlock()
		return len(scnet.changes) == 1
	})

	for _, tt := range []struct{ filter, want string }{
		{"", "open unchanged acknowledged refused made"},
		{"notebook = " + a, "refused made"},
		{"notebook = " + b, "acknowledged"},
		{"notebook = clouds/core/*", "acknowledged refused made"},
		{"cloud = scnet", "open unchanged"},
		{"location = xb3", "acknowledged refused made"},
		{"principal = bufconn", "refused made"},
		{"principal = 10.0.0.9", "open unchanged acknowledged"},
		{"NOT principal = bufconn AND notebook = " + b, "acknowledged"},
		{"create_time >= " + quoted(third.GetCreateTime()), "open unchanged acknowledged"},
		{"create_time < " + quoted(third.GetCreateTime()), "refused made"},
		{"create_time = " + quoted(first.GetCreateTime()), "made"},
		{"update_time <= " + quoted(first.GetUpdateTime()), "made"},
		{"createTime > " + quoted(first.GetCreateTime()) + " createTime < " + quoted(third.GetCreateTime()), "refused"},
		{"phase = SUCCEEDED", "acknowledged made"},
		{"phase = PHASE_FAILED", "refused"},
		{"phase = UNCHANGED OR phase = VERIFYING", "open unchanged"},
		{"phase != SUCCEEDED AND phase != FAILED", "open unchanged"},
		{"sent = true", "open acknowledged refused made"},
		{"sent = false", "unchanged"},
		{"failure.reason = CLOUD_REJECTED failure.cloud_code = 1400 cloud_request_id = cr-7", "refused"},
		{"NOT failure:*", "open unchanged acknowledged made"},
		{"acknowledged:NOTEBOOK_RUNNING", "acknowledged"},
		{"request_id = " + request, "unchanged"},
		{"from_image = registry/old:1 to_image = registry/PyTorch:2", "made"},
		{"image_type = custom", "open unchanged acknowledged"},
		{"pytorch", "refused made"}, // the image from which the refused one was to go
		{"unchanged", "unchanged"},
		{"name = " + third.GetName(), "acknowledged"},
		{"phase = PLANNED", ""},
	} {
		resp, err := history.ListImageChanges(t.Context(), &notebookv1.ListImageChangesRequest{Filter: tt.filter})
		if err != nil {
			t.Errorf("%s: %v", tt.filter, err)
			continue
		}
		if got := reasonsOf(resp.GetImageChanges()); got != tt.want || resp.GetNextPageToken() != "" {
			t.Errorf("%s: %q and token %q, want %q", tt.filter, got, resp.GetNextPageToken(), tt.want)
		}
		for _, listed := range resp.GetImageChanges() {
			one, err := history.GetImageChange(t.Context(), &notebookv1.GetImageChangeRequest{Name: listed.GetName()})
			if err != nil || !proto.Equal(one.GetImageChange(), listed) {
				t.Errorf("%s is listed as %v, and read as %v, %v", listed.GetName(), listed, one.GetImageChange(), err)
			}
		}
	}

	close(block)
	f.until(t, "the last change has ended", func() bool {
		resp, err := history.ListImageChanges(t.Context(), &notebookv1.ListImageChangesRequest{Filter: "phase = SUCCEEDED name = " + under.GetName()})
		return err == nil && len(resp.GetImageChanges()) == 1
	})
	_, err = history.GetImageChange(t.Context(), &notebookv1.GetImageChangeRequest{Name: "imageChanges/none"})
	wantError(t, err, codes.NotFound, "IMAGE_CHANGE_NOT_FOUND")
}

// TestHistoryFilterErrors: a filter that is wrong is refused as that of List is.
func TestHistoryFilterErrors(t *testing.T) {
	f := start(t, "", map[string]*fakeCloud{"core": newFakeCloud("xb3")})
	history := historyOf(t, f)
	for filter, want := range map[string]string{
		"stat = FAILED":          "at position 0: stat: there is no such field",
		"display_name = x":       "at position 0: display_name: there is no such field",
		"phase = RUNNING":        `at position 8: phase: "RUNNING" is none of PHASE_UNSPECIFIED, `,
		"sent = 1":               `at position 7: sent: "1" is neither true nor false`,
		"create_time > tomorrow": `at position 14: create_time: "tomorrow" is not a time`,
		"(phase = FAILED":        "at position 0: this parenthesis is not closed",
	} {
		_, err := history.ListImageChanges(t.Context(), &notebookv1.ListImageChangesRequest{Filter: filter})
		wantError(t, err, codes.InvalidArgument, "FILTER_INVALID")
		var bad *errdetails.BadRequest
		for _, d := range status.Convert(err).Details() {
			if v, ok := d.(*errdetails.BadRequest); ok {
				bad = v
			}
		}
		if v := bad.GetFieldViolations(); len(v) != 1 || v[0].GetField() != "filter" || !strings.HasPrefix(v[0].GetDescription(), want) {
			t.Errorf("%s: violations %v, want one of filter with %q", filter, v, want)
		}
	}
}

// TestHistoryPagesWhileChangesAreAdded: what there was at the first page comes
// exactly once, the newest first, and what was added since does not.
func TestHistoryPagesWhileChangesAreAdded(t *testing.T) {
	const a, b = "clouds/core/locations/xb3/notebooks/nb-0000", "clouds/core/locations/xb3/notebooks/nb-0001"
	core := newFakeCloud("xb3")
	list := numbered(2)
	for i := range list {
		list[i].Image = upstream.Image{URI: "registry/same:1", Type: "official"}
	}
	core.put("xb3", list...)
	core.set(func(cloud *fakeCloud) {
		cloud.changeErr = &upstream.Error{Cloud: "core", Location: "xb3", Kind: upstream.KindConflict, Code: "1400", Sent: true}
	})
	f := start(t, "", map[string]*fakeCloud{"core": core})
	history := historyOf(t, f)
	// add makes three changes, of which the filter below has the first.
	add := func() (matching string) {
		t.Helper()
		same := func(name string) *notebookv1.ImageChange {
			return change(t, f, &notebookv1.ChangeImageRequest{Name: name, Image: "registry/same:1", ImageType: "official", RequestId: uuid.NewString()})
		}
		matching = same(a).GetName()
		_, err := f.ChangeImage(t.Context(), &notebookv1.ChangeImageRequest{Name: a, Image: "registry/none:1", ImageType: "official"})
		wantError(t, err, codes.FailedPrecondition, "CLOUD_REJECTED")
		same(b)
		return matching
	}
	// Spellings of one filter: each page is asked for with another one.
	spellings := []string{
		"phase = UNCHANGED AND notebook = " + a,
		`phase = PHASE_UNCHANGED notebook = "` + a + `"`,
		"((phase='UNCHANGED') (notebook='" + a + "'))",
	}

	for _, tt := range []struct {
		name   string
		filter func(page int) string
	}{
		{"filter", func(page int) string { return spellings[page%len(spellings)] }},
		{"no filter", func(int) string { return "" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for range 8 {
				add()
			}
			all, err := history.ListImageChanges(t.Context(), &notebookv1.ListImageChangesRequest{Filter: tt.filter(0), PageSize: 1000})
			if err != nil || all.GetNextPageToken() != "" || len(all.GetImageChanges()) < 8 {
				t.Fatalf("%d changes, %v", len(all.GetImageChanges()), err)
			}
			var got []*notebookv1.ImageChange
			for page, token := 0, ""; ; page++ {
				resp, err := history.ListImageChanges(t.Context(), &notebookv1.ListImageChangesRequest{Filter: tt.filter(page), PageSize: 4, PageToken: token})
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, resp.GetImageChanges()...)
				if token = resp.GetNextPageToken(); (token == "") != (len(got) >= len(all.GetImageChanges())) {
					t.Fatalf("token %q after %d of %d changes", token, len(got), len(all.GetImageChanges()))
				}
				if token == "" {
					break
				}
				newest := add()
				if one, err := history.GetImageChange(t.Context(), &notebookv1.GetImageChangeRequest{Name: newest}); err != nil || one.GetImageChange().GetNotebook() != a {
					t.Errorf("the change that was added: %v, %v", one, err)
				}
			}
			var want, names []string
			for _, c := range all.GetImageChanges() {
				want = append(want, c.GetName())
			}
			for i, c := range got {
				names = append(names, c.GetName())
				if i > 0 && c.GetCreateTime().AsTime().After(got[i-1].GetCreateTime().AsTime()) {
					t.Errorf("%s comes after an older one", c.GetName())
				}
			}
			if diff := cmp.Diff(want, names); diff != "" {
				t.Errorf("changes (-at the first page +in pages):\n%s", diff)
			}
		})
	}

	first, err := history.ListImageChanges(t.Context(), &notebookv1.ListImageChangesRequest{Filter: spellings[0], PageSize: 1})
	if err != nil || first.GetNextPageToken() == "" {
		t.Fatalf("no token: %v", err)
	}
	for _, filter := range []string{"", "phase = UNCHANGED", "phase != UNCHANGED AND notebook = " + a} {
		_, err := history.ListImageChanges(t.Context(), &notebookv1.ListImageChangesRequest{Filter: filter, PageToken: first.GetNextPageToken()})
		wantError(t, err, codes.InvalidArgument, "PAGE_TOKEN_INVALID")
	}
	_, err = history.ListImageChanges(t.Context(), &notebookv1.ListImageChangesRequest{PageToken: mustToken(t, f)}) // of List
	wantError(t, err, codes.InvalidArgument, "PAGE_TOKEN_INVALID")
}
