package service

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// TestListing: in the wire format and as JSON a Listing is what List returns.
func TestListing(t *testing.T) {
	core, scnet := newFakeCloud("1", "2"), newFakeCloud("2")
	core.put("1", numbered(4)...)
	core.put("2", numbered(1)...)
	scnet.put("2", numbered(3)...)
	f := startSlow(t, map[string]*fakeCloud{"core": core, "scnet": scnet})
	if _, err := f.List(t.Context(), fresh("")); err != nil { // everything is read, and then stays as it is
		t.Fatal(err)
	}
	through := 0
	interceptor := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		through++
		if info.FullMethod != notebookv1.NotebookService_List_FullMethodName {
			t.Errorf("method %s", info.FullMethod)
		}
		return handler(ctx, req)
	}
	for name, req := range map[string]*notebookv1.ListRequest{
		"everything":     {},
		"a page":         {PageSize: 2},
		"another order":  {PageSize: 3, OrderBy: "display_name desc"},
		"filtered":       {Filter: `state = RUNNING`},
		"nothing":        {Filter: `display_name = "there is none"`},
		"of a location":  {Parent: "clouds/core/locations/1"},
		"refused filter": {Filter: "("},
	} {
		t.Run(name, func(t *testing.T) {
			want, wantErr := f.service.List(t.Context(), req)
			before := through
			listing, err := f.service.ListInProcess(t.Context(), req, interceptor)
			if through != before+1 {
				t.Errorf("it went through the interceptor %d times", through-before)
			}
			if (err == nil) != (wantErr == nil) {
				t.Fatalf("%v, want %v", err, wantErr)
			}
			if err != nil {
				return
			}
			data, err := listing.encode()
			if err != nil {
				t.Fatal(err)
			}
			binary, asJSON := &notebookv1.ListResponse{}, &notebookv1.ListResponse{}
			if err := proto.Unmarshal(data.Materialize(), binary); err != nil {
				t.Fatal(err)
			}
			data.Free()
			text, err := listing.AppendJSON(nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := protojson.Unmarshal(text, asJSON); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
			same := []cmp.Option{
				protocmp.Transform(), // tokens are sealed with another nonce each time
				protocmp.IgnoreFields(&notebookv1.ListResponse{}, "resume_token", "next_page_token"),
			}
			if diff := cmp.Diff(want, binary, same...); diff != "" {
				t.Errorf("encoded (-List +encoded):\n%s", diff)
			}
			if diff := cmp.Diff(binary, asJSON, protocmp.Transform()); diff != "" {
				t.Errorf("JSON (-encoded +JSON):\n%s", diff)
			}
			if (want.GetNextPageToken() == "") != (binary.GetNextPageToken() == "") || binary.GetResumeToken() == "" {
				t.Error("a token is missing")
			}
		})
	}
}
