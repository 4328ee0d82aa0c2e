package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
)

const (
	coreNotebook  = "clouds/core/locations/xb3/notebooks/" + cloudsim.CoresHubNotebook
	scnetNotebook = "clouds/scnet/locations/11250/notebooks/" + cloudsim.SCNetNotebook
)

// change asks for a change over one of the doors.
func (p *process) change(ctx context.Context, t *testing.T, door string, req *notebookv1.ChangeImageRequest) (*notebookv1.ChangeImageResponse, *spb.Status) {
	t.Helper()
	if door == "gRPC" {
		resp, err := p.ChangeImage(ctx, req)
		if err != nil {
			return nil, status.Convert(err).Proto()
		}
		return resp, nil
	}
	name := req.GetName()
	body, err := protojson.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	code, answer := p.do(t, http.MethodPost, "/v1/"+name+":changeImage", strings.Replace(string(body), `"name":"`+name+`"`, `"name":""`, 1))
	if code == http.StatusOK {
		resp := &notebookv1.ChangeImageResponse{}
		if err := protojson.Unmarshal([]byte(answer), resp); err != nil {
			t.Fatal(err)
		}
		return resp, nil
	}
	st := &spb.Status{}
	if err := protojson.Unmarshal([]byte(answer), st); err != nil {
		t.Fatalf("%d %s: %v", code, answer, err)
	}
	return nil, st
}

// TestChangeRefusals produces every reason for which a change is refused, over
// both doors.
func TestChangeRefusals(t *testing.T) {
	t.Parallel()
	core := func(edit func(*notebookv1.ChangeImageRequest)) *notebookv1.ChangeImageRequest {
		req := &notebookv1.ChangeImageRequest{Name: coreNotebook, Image: "registry.example.com/team/a:1", ImageType: "custom"}
		if edit != nil {
			edit(req)
		}
		return req
	}
	scnet := func(edit func(*notebookv1.ChangeImageRequest)) *notebookv1.ChangeImageRequest {
		req := &notebookv1.ChangeImageRequest{Name: scnetNotebook, Image: cloudsim.SCNetImage, Acknowledge: every}
		if edit != nil {
			edit(req)
		}
		return req
	}
	request := uuid.NewString()
	for _, tt := range []struct {
		name    string
		prepare func(ctx context.Context, t *testing.T, p *process, fleet *cloudsim.Fleet)
		req     *notebookv1.ChangeImageRequest
		code    codes.Code
		reason  string
		// violations are the types of a PreconditionFailure; change says that the
		// metadata names one.
		violations []string
		change     bool
	}{
		{
			name: "running", req: core(func(r *notebookv1.ChangeImageRequest) {
				r.Name = "" // filled in: one that runs
			}), code: codes.FailedPrecondition, reason: "WARNINGS_NOT_ACKNOWLEDGED", violations: []string{"NOTEBOOK_RUNNING"},
		},
		{
			name: "consequences of another notebook", req: scnet(func(r *notebookv1.ChangeImageRequest) { r.Acknowledge = []string{"ADDRESSES_CHANGE"} }),
			code: codes.FailedPrecondition, reason: "WARNINGS_NOT_ACKNOWLEDGED",
			violations: []string{"NOTEBOOK_ID_CHANGES", "CONTAINER_DATA_LOST", "MOUNTS_NOT_RESTORED", "ACCELERATOR_MAY_BE_LOST"},
		},
		{
			name: "image that is not in the region", req: scnet(func(r *notebookv1.ChangeImageRequest) { r.Image = "image.ac.com:5000/none:1" }),
			code: codes.NotFound, reason: "IMAGE_NOT_FOUND",
		},
		{name: "old etag", req: core(func(r *notebookv1.ChangeImageRequest) { r.Etag = "old" }), code: codes.Aborted, reason: "ETAG_MISMATCH"},
		{
			name: "request id of other arguments", prepare: func(ctx context.Context, t *testing.T, p *process, _ *cloudsim.Fleet) {
				t.Helper()
				if _, err := p.ChangeImage(ctx, core(func(r *notebookv1.ChangeImageRequest) { r.RequestId = request })); err != nil {
					t.Fatal(err)
				}
			},
			req: core(func(r *notebookv1.ChangeImageRequest) {
				r.RequestId, r.Image = request, "registry.example.com/team/b:1"
			}),
			code: codes.InvalidArgument, reason: "REQUEST_ID_REUSED",
		},
		{
			name: "another change under way", prepare: func(ctx context.Context, t *testing.T, p *process, fleet *cloudsim.Fleet) {
				t.Helper()
				fleet.CoresHub.Break(cloudsim.Fault{Op: "change_image", Mode: cloudsim.ModeHang})
				if _, err := p.ChangeImage(ctx, core(func(r *notebookv1.ChangeImageRequest) { r.Wait = durationpb.New(0) })); err != nil {
					t.Fatal(err)
				}
			},
			req:  core(func(r *notebookv1.ChangeImageRequest) { r.Image = "registry.example.com/team/b:1" }),
			code: codes.Aborted, reason: "CHANGE_IN_PROGRESS", change: true,
		},
		{
			name: "lost answer", prepare: func(_ context.Context, _ *testing.T, _ *process, fleet *cloudsim.Fleet) {
				fleet.CoresHub.Break(cloudsim.Fault{Op: "change_image", Mode: cloudsim.ModeReset})
				fleet.CoresHub.Break(cloudsim.Fault{Op: "list", Mode: cloudsim.ModeHang})
			},
			req: core(func(r *notebookv1.ChangeImageRequest) { r.Wait = durationpb.New(time.Second) }), code: codes.Unknown, reason: "OUTCOME_UNKNOWN", change: true,
		},
		{
			name: "refused by the cloud", prepare: func(_ context.Context, _ *testing.T, _ *process, fleet *cloudsim.Fleet) {
				fleet.CoresHub.Break(cloudsim.Fault{Op: "change_image", Mode: cloudsim.ModeCode, Code: "1400"})
			},
			req: core(nil), code: codes.FailedPrecondition, reason: "CLOUD_REJECTED",
		},
		{
			name: "credentials of ours refused", prepare: func(_ context.Context, _ *testing.T, _ *process, fleet *cloudsim.Fleet) {
				fleet.CoresHub.Break(cloudsim.Fault{Op: "change_image", Mode: cloudsim.ModeCode, Code: "1200"})
			},
			req: core(nil), code: codes.Internal, reason: "CLOUD_CREDENTIALS_REJECTED",
		},
		{
			name: "quota", prepare: func(_ context.Context, _ *testing.T, _ *process, fleet *cloudsim.Fleet) {
				fleet.CoresHub.Break(cloudsim.Fault{Op: "change_image", Mode: cloudsim.ModeStatus, Status: 429, RetryAfter: 7})
			},
			req: core(nil), code: codes.ResourceExhausted, reason: "CLOUD_RATE_LIMITED",
		},
		{
			name: "no connection", prepare: func(ctx context.Context, t *testing.T, p *process, fleet *cloudsim.Fleet) {
				t.Helper()
				fleet.CoresHub.Break(cloudsim.Fault{Mode: cloudsim.ModeRefuse})
				// A connection that was kept would be reset after the call was sent.
				p.until(t, "the kept connections are gone", func() bool {
					resp, err := p.List(ctx, &notebookv1.ListRequest{Parent: "clouds/core"})
					return err == nil && len(resp.GetUnreachable()) == 2
				})
			},
			req: core(nil), code: codes.Unavailable, reason: "CLOUD_UNAVAILABLE",
		},
		{
			name: "credential that the cloud takes none of", req: scnet(func(r *notebookv1.ChangeImageRequest) {
				r.RegistryCredential = &notebookv1.RegistryCredential{Username: "u", Password: "canary-password"}
			}), code: codes.InvalidArgument, reason: "INVALID_FIELD",
		},
		{name: "unknown notebook", req: core(func(r *notebookv1.ChangeImageRequest) { r.Name += "x" }), code: codes.NotFound, reason: "NOTEBOOK_NOT_FOUND"},
	} {
		for _, door := range []string{"gRPC", "REST"} {
			t.Run(tt.name+"/"+door, func(t *testing.T) {
				t.Parallel()
				fleet, err := cloudsim.Start(cloudsim.Config{})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(fleet.Close)
				p := start(t, fastConfig(fleet, ""))
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				req := tt.req
				if req.GetName() == "" {
					i := slices.IndexFunc(fleet.CoresHub.Truth("xb3"), func(n cloudsim.Notebook) bool { return n.State == "running" })
					req = core(func(r *notebookv1.ChangeImageRequest) {
						r.Name = "clouds/core/locations/xb3/notebooks/" + fleet.CoresHub.Truth("xb3")[i].ID
					})
				}
				if tt.prepare != nil {
					tt.prepare(ctx, t, p, fleet)
				}
				_, st := p.change(ctx, t, door, req)
				if codes.Code(st.GetCode()) != tt.code || reasonOf(status.FromProto(st).Err()) != tt.reason {
					t.Fatalf("%v, want %v / %s", st, tt.code, tt.reason)
				}
				var violations []string
				for _, detail := range status.FromProto(st).Details() {
					switch d := detail.(type) {
					case *errdetails.PreconditionFailure:
						for _, v := range d.GetViolations() {
							violations = append(violations, v.GetType())
							if v.GetSubject() != req.GetName() || v.GetDescription() == "" {
								t.Errorf("violation %v", v)
							}
						}
					case *errdetails.ErrorInfo:
						if name := d.GetMetadata()["change"]; strings.HasPrefix(name, "imageChanges/") != tt.change {
							t.Errorf("metadata %v", d.GetMetadata())
						}
					}
				}
				if !slices.Equal(violations, tt.violations) {
					t.Errorf("violations %v, want %v", violations, tt.violations)
				}
				if strings.Contains(p.log.String()+st.String(), "canary-password") {
					t.Error("a password is shown")
				}
			})
		}
	}
}

// TestRecreateFromPlanToHistory is a change on SCNet as a person makes it: the
// plan, the change, its progress in a watch, and the record of it.
func TestRecreateFromPlanToHistory(t *testing.T) {
	t.Parallel()
	fleet, err := cloudsim.Start(cloudsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	fleet.SCNet.Set(func(s *cloudsim.SCNetSettings) { s.Transition = cloudsim.Duration(100 * time.Millisecond) })
	p := start(t, fastConfig(fleet, ""))
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()

	req := &notebookv1.ChangeImageRequest{Name: scnetNotebook, Image: cloudsim.SCNetImage, ValidateOnly: true}
	plan, st := p.change(ctx, t, "REST", req)
	if st != nil {
		t.Fatal(st)
	}
	c := plan.GetChange()
	if c.GetPhase() != notebookv1.ImageChange_PHASE_PLANNED || c.GetToImage() != cloudsim.SCNetImage || c.GetFromImage() == "" || len(c.GetSteps()) != 5 || len(c.GetWarnings()) != 5 {
		t.Errorf("plan = %v", c)
	}
	for _, op := range []string{"create", "stop", "start", "release", "rename"} {
		if n := fleet.SCNet.Calls(op); n != 0 {
			t.Errorf("the plan made %d calls of %s", n, op)
		}
	}
	if list, err := p.changes.ListImageChanges(ctx, &notebookv1.ListImageChangesRequest{}); err != nil || len(list.GetImageChanges()) != 0 {
		t.Errorf("a plan is remembered: %v, %v", list, err)
	}

	stream, err := p.Watch(ctx, &notebookv1.WatchRequest{Parent: "clouds/scnet"})
	if err != nil {
		t.Fatal(err)
	}
	req.ValidateOnly, req.Reason, req.RequestId = false, "newer torch", uuid.NewString()
	for _, w := range c.GetWarnings() {
		req.Acknowledge = append(req.Acknowledge, w.GetCode())
	}
	resp, st := p.change(ctx, t, "gRPC", req)
	if st != nil {
		t.Fatal(st)
	}
	made := resp.GetChange()
	if made.GetPhase() != notebookv1.ImageChange_PHASE_SUCCEEDED || made.GetNewNotebook() == "" || !made.GetSent() {
		t.Fatalf("change = %v", made)
	}
	var phases []string
	succeeded, gone, added := false, false, false
	frames(t, stream, func(f *notebookv1.WatchResponse) bool {
		if change := f.GetImageChange(); change != nil {
			if phase := strings.TrimPrefix(change.GetPhase().String(), "PHASE_"); len(phases) == 0 || phases[len(phases)-1] != phase {
				phases = append(phases, phase)
			}
			succeeded = change.GetPhase() == notebookv1.ImageChange_PHASE_SUCCEEDED && change.GetNewNotebook() == made.GetNewNotebook()
		}
		e := f.GetNotebook()
		gone = gone || e.GetType() == notebookv1.NotebookEvent_TYPE_DELETED && e.GetNotebook().GetName() == scnetNotebook
		added = added || e.GetNotebook().GetName() == made.GetNewNotebook()
		return succeeded && gone && added
	})
	// Phases in between may be skipped, but not the first of the work and the last.
	if !slices.Contains(phases, "CREATING") || phases[len(phases)-1] != "SUCCEEDED" {
		t.Errorf("the watch saw %v", phases)
	}

	got, err := p.changes.GetImageChange(ctx, &notebookv1.GetImageChangeRequest{Name: made.GetName()})
	if err != nil {
		t.Fatal(err)
	}
	record := got.GetImageChange()
	if record.GetReason() != "newer torch" || record.GetPrincipal() != "127.0.0.1" || record.GetRequestId() != req.GetRequestId() ||
		!slices.Equal(record.GetAcknowledged(), slices.Sorted(slices.Values(req.GetAcknowledge()))) || record.GetUpdateTime().AsTime().Before(record.GetCreateTime().AsTime()) {
		t.Errorf("record = %v", record)
	}
	code, body := p.get(t, "/v1/"+made.GetName())
	if code != http.StatusOK || !strings.Contains(body, made.GetNewNotebook()) {
		t.Errorf("REST: %d %s", code, body)
	}
}

// TestFailedCreateBringsTheOldBack: when the new notebook fails, the old one runs
// again, and the record says so.
func TestFailedCreateBringsTheOldBack(t *testing.T) {
	t.Parallel()
	for name, settle := range map[string]func(*cloudsim.SCNetSettings){
		"it fails to start":         func(s *cloudsim.SCNetSettings) { s.CreateFails = "image pull failed" },
		"the cloud refuses to make": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fleet, err := cloudsim.Start(cloudsim.Config{Notebooks: 1})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(fleet.Close)
			fleet.SCNet.Set(func(s *cloudsim.SCNetSettings) { s.Transition = cloudsim.Duration(100 * time.Millisecond) })
			p := start(t, fastConfig(fleet, ""))
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			startSCNet(t, fleet)
			p.until(t, "the notebook is seen to run", func() bool {
				resp, err := p.List(ctx, &notebookv1.ListRequest{Filter: fmt.Sprintf("state = RUNNING AND name = %q", scnetNotebook)})
				return err == nil && len(resp.GetNotebooks()) == 1
			})
			if settle != nil {
				fleet.SCNet.Set(settle)
			} else {
				fleet.SCNet.Break(cloudsim.Fault{Op: "create", Mode: cloudsim.ModeCode, Code: "10004"})
			}
			resp, st := p.change(ctx, t, "gRPC", &notebookv1.ChangeImageRequest{Name: scnetNotebook, Image: cloudsim.SCNetImage, Acknowledge: every})
			if st != nil {
				t.Fatal(st)
			}
			c := resp.GetChange()
			if c.GetPhase() != notebookv1.ImageChange_PHASE_FAILED || !strings.Contains(c.GetFailure().GetMessage(), "the old notebook is running again") {
				t.Errorf("change = %v", c)
			}
			wantState(t, fleet, cloudsim.SCNetNotebook, true, "")
			if created, released := fleet.SCNet.Created(), fleet.SCNet.Released(); !slices.Equal(created, released) {
				t.Errorf("created %v, released %v", created, released)
			}
		})
	}
}
