package main

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// doorCase is one wrong call, as it is made over each door. A nil grpc or an
// empty path means that the door cannot even express it.
type doorCase struct {
	name   string
	grpc   func(ctx context.Context, p *process) error
	method string // GET unless given
	path   string
	body   string

	code   codes.Code
	reason string
	field  string // of a BadRequest; empty for none
}

func list(req *notebookv1.ListRequest) func(context.Context, *process) error {
	return func(ctx context.Context, p *process) error { _, err := p.List(ctx, req); return err }
}

func watch(req *notebookv1.WatchRequest) func(context.Context, *process) error {
	return func(ctx context.Context, p *process) error {
		stream, err := p.Watch(ctx, req)
		if err != nil {
			return err
		}
		_, err = stream.Recv()
		return err
	}
}

func change(req *notebookv1.ChangeImageRequest) func(context.Context, *process) error {
	return func(ctx context.Context, p *process) error { _, err := p.ChangeImage(ctx, req); return err }
}

func doorCases(pageToken, resumeToken string) []doorCase {
	const (
		core  = "clouds/core/locations/xb3/notebooks/nb-eiguqichl5hc"
		scnet = "clouds/scnet/locations/11250/notebooks/1896050410550136833"
	)
	huge := strings.Repeat("x", 600<<10)
	return []doorCase{
		{
			name: "unknown cloud in parent", grpc: list(&notebookv1.ListRequest{Parent: "clouds/none"}), path: "/v1/clouds/none/notebooks",
			code: codes.NotFound, reason: "CLOUD_NOT_FOUND",
		},
		{
			name: "unknown location in parent", grpc: list(&notebookv1.ListRequest{Parent: "clouds/core/locations/none"}), path: "/v1/clouds/core/locations/none/notebooks",
			code: codes.NotFound, reason: "CLOUD_NOT_FOUND",
		},
		{
			name: "malformed parent", grpc: list(&notebookv1.ListRequest{Parent: "projects/x"}), path: "/v1/notebooks?parent=projects/x",
			code: codes.InvalidArgument, reason: "INVALID_FIELD", field: "parent",
		},
		{
			name: "negative page size", grpc: list(&notebookv1.ListRequest{PageSize: -1}), path: "/v1/notebooks?pageSize=-1",
			code: codes.InvalidArgument, reason: "INVALID_FIELD", field: "page_size",
		},
		{
			name: "page size that is no number", path: "/v1/notebooks?pageSize=many",
			code: codes.InvalidArgument, reason: "INVALID_FIELD", field: "pageSize",
		},
		{name: "page size of a thousand million", grpc: list(&notebookv1.ListRequest{PageSize: 1e9}), path: "/v1/notebooks?pageSize=1000000000", code: codes.OK},
		{
			name: "page token that is none", grpc: list(&notebookv1.ListRequest{PageToken: "foreign"}), path: "/v1/notebooks?pageToken=foreign",
			code: codes.InvalidArgument, reason: "PAGE_TOKEN_INVALID", field: "page_token",
		},
		{
			name: "page token of another parent", grpc: list(&notebookv1.ListRequest{Parent: "clouds/core", PageToken: pageToken}),
			path: "/v1/clouds/core/notebooks?pageToken=" + pageToken,
			code: codes.InvalidArgument, reason: "PAGE_TOKEN_INVALID", field: "page_token",
		},
		{
			name: "huge page token", grpc: list(&notebookv1.ListRequest{PageToken: strings.Repeat("A", 5000)}), path: "/v1/notebooks?pageToken=" + strings.Repeat("A", 5000),
			code: codes.InvalidArgument, reason: "INVALID_FIELD", field: "page_token",
		},
		{
			name: "filter and order", grpc: list(&notebookv1.ListRequest{Filter: "state = STOPPED", OrderBy: "create_time desc"}),
			path: "/v1/notebooks?filter=state+%3D+STOPPED&orderBy=create_time+desc", code: codes.OK,
		},
		{
			name: "filter of an unknown field", grpc: list(&notebookv1.ListRequest{Filter: "image.url = x"}), path: "/v1/notebooks?filter=image.url+%3D+x",
			code: codes.InvalidArgument, reason: "FILTER_INVALID", field: "filter",
		},
		{
			name: "filter of a watch that is no filter", grpc: watch(&notebookv1.WatchRequest{Filter: "((state"}), path: "/v1/notebooks:watch?filter=((state",
			code: codes.InvalidArgument, reason: "FILTER_INVALID", field: "filter",
		},
		{
			name: "order by an unknown field", grpc: list(&notebookv1.ListRequest{OrderBy: "etag"}), path: "/v1/notebooks?orderBy=etag",
			code: codes.InvalidArgument, reason: "FILTER_INVALID", field: "order_by",
		},
		{
			name: "page token of another filter", grpc: list(&notebookv1.ListRequest{Filter: "state = STOPPED", PageToken: pageToken}),
			path: "/v1/notebooks?filter=state+%3D+STOPPED&pageToken=" + pageToken,
			code: codes.InvalidArgument, reason: "PAGE_TOKEN_INVALID", field: "page_token",
		},
		{
			name: "page token of another order", grpc: list(&notebookv1.ListRequest{OrderBy: "state", PageToken: pageToken}),
			path: "/v1/notebooks?orderBy=state&pageToken=" + pageToken,
			code: codes.InvalidArgument, reason: "PAGE_TOKEN_INVALID", field: "page_token",
		},
		{
			name: "negative staleness", path: "/v1/notebooks?maxStaleness=-1s", code: codes.InvalidArgument, reason: "INVALID_FIELD", field: "max_staleness",
		},
		{
			name: "unknown query parameter", path: "/v1/notebooks?stateless=1",
			code: codes.InvalidArgument, reason: "INVALID_FIELD", field: "stateless",
		},
		{
			name: "unknown path", path: "/v1/notebook", code: codes.NotFound, reason: "OPERATION_NOT_SUPPORTED",
		},
		{
			name: "wrong method", method: http.MethodDelete, path: "/v1/notebooks", code: codes.Unimplemented, reason: "OPERATION_NOT_SUPPORTED",
		},
		{
			name: "watch of an unknown cloud", grpc: watch(&notebookv1.WatchRequest{Parent: "clouds/none"}), path: "/v1/clouds/none/notebooks:watch",
			code: codes.NotFound, reason: "CLOUD_NOT_FOUND",
		},
		{
			name: "foreign resume token", grpc: watch(&notebookv1.WatchRequest{ResumeToken: "foreign"}), path: "/v1/notebooks:watch?resumeToken=foreign",
			code: codes.InvalidArgument, reason: "RESUME_TOKEN_INVALID", field: "resume_token",
		},
		{
			name: "resume token of another parent", grpc: watch(&notebookv1.WatchRequest{Parent: "clouds/core", ResumeToken: resumeToken}),
			path: "/v1/clouds/core/notebooks:watch?resumeToken=" + resumeToken,
			code: codes.InvalidArgument, reason: "RESUME_TOKEN_INVALID", field: "resume_token",
		},
		{
			name: "snapshot of no known kind", grpc: watch(&notebookv1.WatchRequest{Snapshot: 9}), path: "/v1/notebooks:watch?snapshot=9",
			code: codes.InvalidArgument, reason: "INVALID_FIELD", field: "snapshot",
		},
		{
			name: "bookmarks too often", path: "/v1/notebooks:watch?bookmarkInterval=1s",
			code: codes.InvalidArgument, reason: "INVALID_FIELD", field: "bookmark_interval",
		},
		{
			name: "malformed name", grpc: change(&notebookv1.ChangeImageRequest{Name: "notebooks/x", Image: "i"}),
			method: http.MethodPost, path: "/v1/clouds/CORE/locations/xb3/notebooks/x:changeImage", body: `{"image": "i"}`,
			code: codes.InvalidArgument, reason: "INVALID_FIELD", field: "name",
		},
		{
			name: "empty image", grpc: change(&notebookv1.ChangeImageRequest{Name: core, ImageType: "official"}),
			method: http.MethodPost, path: "/v1/" + core + ":changeImage", body: `{"imageType": "official"}`,
			code: codes.InvalidArgument, reason: "INVALID_FIELD", field: "image",
		},
		{
			name: "image of 600 KiB", grpc: change(&notebookv1.ChangeImageRequest{Name: core, Image: huge, ImageType: "official"}),
			method: http.MethodPost, path: "/v1/" + core + ":changeImage", body: `{"imageType": "official", "image": "` + huge + `"}`,
			code: codes.InvalidArgument, reason: "INVALID_FIELD", field: "image",
		},
		{
			name: "body of 1.2 MiB", method: http.MethodPost, path: "/v1/" + core + ":changeImage", body: `{"image": "` + huge + huge + `"}`,
			code: codes.InvalidArgument, reason: "INVALID_FIELD", field: "body",
		},
		{
			name: "unknown field in JSON", method: http.MethodPost, path: "/v1/" + core + ":changeImage", body: `{"image": "i", "imageTyp": "official"}`,
			code: codes.InvalidArgument, reason: "INVALID_FIELD", field: "imageTyp",
		},
		{
			name: "JSON of another type", method: http.MethodPost, path: "/v1/" + core + ":changeImage", body: `{"image": {"password": "canary"}}`,
			code: codes.InvalidArgument, reason: "INVALID_FIELD", field: "body",
		},
		{
			name: "no JSON", method: http.MethodPost, path: "/v1/" + core + ":changeImage", body: `image=i`,
			code: codes.InvalidArgument, reason: "INVALID_FIELD", field: "body",
		},
		{
			name: "two JSON values", method: http.MethodPost, path: "/v1/" + core + ":changeImage", body: `{"image": "i"} {"image": "j"}`,
			code: codes.InvalidArgument, reason: "INVALID_FIELD", field: "body",
		},
		{
			name: "image type missing", grpc: change(&notebookv1.ChangeImageRequest{Name: core, Image: "i"}),
			method: http.MethodPost, path: "/v1/" + core + ":changeImage", body: `{"image": "i"}`,
			code: codes.InvalidArgument, reason: "INVALID_FIELD", field: "image_type",
		},
		{
			name: "request id that is no UUID", grpc: change(&notebookv1.ChangeImageRequest{Name: core, Image: "i", RequestId: "x"}),
			method: http.MethodPost, path: "/v1/" + core + ":changeImage", body: `{"image": "i", "requestId": "x"}`,
			code: codes.InvalidArgument, reason: "INVALID_FIELD", field: "request_id",
		},
		{
			name: "password without user", grpc: change(&notebookv1.ChangeImageRequest{
				Name: core, Image: "i", ImageType: "custom", RegistryCredential: &notebookv1.RegistryCredential{Password: "canary"},
			}),
			method: http.MethodPost, path: "/v1/" + core + ":changeImage", body: `{"image": "i", "imageType": "custom", "registryCredential": {"password": "canary"}}`,
			code: codes.InvalidArgument, reason: "INVALID_FIELD", field: "registry_credential.username",
		},
		{
			name: "unknown notebook", grpc: change(&notebookv1.ChangeImageRequest{Name: "clouds/core/locations/xb3/notebooks/none", Image: "i", ImageType: "official"}),
			method: http.MethodPost, path: "/v1/clouds/core/locations/xb3/notebooks/none:changeImage", body: `{"image": "i", "imageType": "official"}`,
			code: codes.NotFound, reason: "NOTEBOOK_NOT_FOUND",
		},
		{
			name: "old etag", grpc: change(&notebookv1.ChangeImageRequest{Name: core, Image: "i", ImageType: "official", Etag: "old"}),
			method: http.MethodPost, path: "/v1/" + core + ":changeImage", body: `{"image": "i", "imageType": "official", "etag": "old"}`,
			code: codes.Aborted, reason: "ETAG_MISMATCH",
		},
		{
			name: "cloud without image change", grpc: change(&notebookv1.ChangeImageRequest{Name: scnet, Image: "i"}),
			method: http.MethodPost, path: "/v1/" + scnet + ":changeImage", body: `{"image": "i"}`,
			code: codes.Unimplemented, reason: "OPERATION_NOT_SUPPORTED",
		},
		{
			name: "unknown cloud", grpc: func(ctx context.Context, p *process) error {
				_, err := p.clouds.GetCloud(ctx, &notebookv1.GetCloudRequest{Name: "clouds/none"})
				return err
			},
			path: "/v1/clouds/none", code: codes.NotFound, reason: "CLOUD_NOT_FOUND",
		},
		{
			name: "query that is not UTF-8", path: "/v1/notebooks:watch?resumeToken=%ff", code: codes.InvalidArgument, reason: "INVALID_FIELD", field: "resumeToken",
		},
		{
			name: "path that is not UTF-8", path: "/v1/clouds/%ff/notebooks", code: codes.InvalidArgument, reason: "INVALID_FIELD", field: "path",
		},
		{
			name: "unknown image change", grpc: func(ctx context.Context, p *process) error {
				_, err := p.changes.GetImageChange(ctx, &notebookv1.GetImageChangeRequest{Name: "imageChanges/none"})
				return err
			},
			path: "/v1/imageChanges/none", code: codes.NotFound, reason: "IMAGE_CHANGE_NOT_FOUND",
		},
		{
			name: "foreign page token of the history", grpc: func(ctx context.Context, p *process) error {
				_, err := p.changes.ListImageChanges(ctx, &notebookv1.ListImageChangesRequest{PageToken: pageToken})
				return err
			},
			path: "/v1/imageChanges?pageToken=" + pageToken, code: codes.InvalidArgument, reason: "PAGE_TOKEN_INVALID", field: "page_token",
		},
	}
}

// TestBothDoorsRefuseAlike makes every wrong call over gRPC and over REST and
// wants the same code, reason and field.
func TestBothDoorsRefuseAlike(t *testing.T) {
	_, clouds := startVendorClouds(t)
	p := start(t, vendorConfig(clouds.URL, ""))
	first, err := p.List(t.Context(), &notebookv1.ListRequest{PageSize: 1})
	if err != nil || first.GetNextPageToken() == "" {
		t.Fatalf("no page token: %v", err)
	}
	for _, tt := range doorCases(first.GetNextPageToken(), first.GetResumeToken()) {
		t.Run(tt.name, func(t *testing.T) {
			if tt.grpc != nil {
				tt.check(t, "gRPC", status.Convert(tt.grpc(t.Context(), p)).Proto())
			}
			if tt.path == "" {
				return
			}
			method := tt.method
			if method == "" {
				method = http.MethodGet
			}
			httpCode, body := p.do(t, method, tt.path, tt.body)
			st := &spb.Status{}
			if tt.code != codes.OK {
				if err := protojson.Unmarshal([]byte(statusText(body)), st); err != nil {
					t.Fatalf("REST: %d with a body that is no status: %.200s", httpCode, body)
				}
			}
			if (httpCode == http.StatusOK) != (tt.code == codes.OK) {
				t.Errorf("REST: HTTP %d for %v", httpCode, tt.code)
			}
			tt.check(t, "REST", st)
		})
	}
	if strings.Contains(p.log.String(), "canary") {
		t.Error("the log holds a password of a request that was refused")
	}
}

// statusText takes the "error" of a stream's line off, if it is there.
func statusText(body string) string {
	body = strings.TrimSpace(body)
	if inner, ok := strings.CutPrefix(body, `{"error":`); ok {
		return strings.TrimSuffix(inner, "}")
	}
	return body
}

func (tt doorCase) check(t *testing.T, door string, st *spb.Status) {
	t.Helper()
	if codes.Code(st.GetCode()) != tt.code {
		t.Errorf("%s: code %v, want %v (%s)", door, codes.Code(st.GetCode()), tt.code, st.GetMessage())
	}
	var reasons, fields []string
	for _, detail := range status.FromProto(st).Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			reasons = append(reasons, d.GetReason())
			if d.GetDomain() != "notebookd" {
				t.Errorf("%s: domain %q", door, d.GetDomain())
			}
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				fields = append(fields, v.GetField())
			}
		}
	}
	if tt.code != codes.OK && (len(reasons) != 1 || reasons[0] != tt.reason) {
		t.Errorf("%s: reasons %v, want one: %s", door, reasons, tt.reason)
	}
	if tt.field == "" && len(fields) != 0 || tt.field != "" && (len(fields) != 1 || fields[0] != tt.field) {
		t.Errorf("%s: fields %v, want %q", door, fields, tt.field)
	}
	if strings.Contains(st.String(), "canary") {
		t.Errorf("%s: the error quotes a password: %v", door, st)
	}
}
