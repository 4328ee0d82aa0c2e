package service

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/notebookd/notebookd/internal/upstream"
	"github.com/notebookd/notebookd/internal/upstream/coreshub"
	"github.com/notebookd/notebookd/internal/upstream/scnet"
)

// roundTrip is a cloud that gives one answer.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// codeCase is an answer of a cloud, and all that becomes of it.
type codeCase struct {
	cloud  string
	code   string // the cloud's own; empty for an answer without an envelope
	http   int
	kind   upstream.Kind
	grpc   codes.Code
	reason string
	trips  bool // counts against the circuit breaker
}

// codeCases is every code that is known of the clouds, and every HTTP status
// that they are known to use.
var codeCases = []codeCase{
	// CoresHub, the vendor's general codes.
	{"coreshub", "1100", 200, upstream.KindInvalid, codes.InvalidArgument, "CLOUD_REJECTED", false},
	{"coreshub", "1101", 200, upstream.KindUnsupported, codes.Unimplemented, "OPERATION_NOT_SUPPORTED", false},
	{"coreshub", "1200", 200, upstream.KindDenied, codes.Internal, "CLOUD_CREDENTIALS_REJECTED", false},
	{"coreshub", "1300", 200, upstream.KindDenied, codes.Internal, "CLOUD_CREDENTIALS_REJECTED", false},
	{"coreshub", "1400", 200, upstream.KindConflict, codes.FailedPrecondition, "CLOUD_REJECTED", false},
	{"coreshub", "2100", 200, upstream.KindNotFound, codes.NotFound, "NOTEBOOK_NOT_FOUND", false},
	{"coreshub", "2400", 200, upstream.KindConflict, codes.FailedPrecondition, "CLOUD_REJECTED", false},
	{"coreshub", "2500", 200, upstream.KindThrottled, codes.ResourceExhausted, "CLOUD_RATE_LIMITED", false},
	{"coreshub", "5000", 200, upstream.KindFault, codes.Internal, "CLOUD_UNAVAILABLE", true},
	{"coreshub", "5100", 200, upstream.KindUnavailable, codes.Unavailable, "CLOUD_UNAVAILABLE", true},
	{"coreshub", "5200", 200, upstream.KindUnavailable, codes.Unavailable, "CLOUD_UNAVAILABLE", true},
	{"coreshub", "1999", 200, upstream.KindRejected, codes.Internal, "CLOUD_REJECTED", false},
	{"coreshub", "2999", 200, upstream.KindRejected, codes.Internal, "CLOUD_REJECTED", false},
	{"coreshub", "499", 200, upstream.KindRejected, codes.Internal, "CLOUD_REJECTED", false},
	// The same code with an HTTP status that is not 200.
	{"coreshub", "1400", 403, upstream.KindConflict, codes.FailedPrecondition, "CLOUD_REJECTED", false},
	{"coreshub", "2100", 500, upstream.KindNotFound, codes.NotFound, "NOTEBOOK_NOT_FOUND", false},
	{"coreshub", "1100", 429, upstream.KindThrottled, codes.ResourceExhausted, "CLOUD_RATE_LIMITED", false},
	{"coreshub", "0", 500, upstream.KindUnavailable, codes.Unavailable, "CLOUD_UNAVAILABLE", true},
	// Codes that equal the HTTP status.
	{"coreshub", "400", 400, upstream.KindInvalid, codes.InvalidArgument, "CLOUD_REJECTED", false},
	{"coreshub", "401", 401, upstream.KindDenied, codes.Internal, "CLOUD_CREDENTIALS_REJECTED", false},
	{"coreshub", "403", 403, upstream.KindDenied, codes.Internal, "CLOUD_CREDENTIALS_REJECTED", false},
	{"coreshub", "404", 404, upstream.KindNotFound, codes.NotFound, "NOTEBOOK_NOT_FOUND", false},
	{"coreshub", "409", 409, upstream.KindConflict, codes.FailedPrecondition, "CLOUD_REJECTED", false},
	{"coreshub", "422", 422, upstream.KindInvalid, codes.InvalidArgument, "CLOUD_REJECTED", false},
	{"coreshub", "429", 429, upstream.KindThrottled, codes.ResourceExhausted, "CLOUD_RATE_LIMITED", false},
	{"coreshub", "500", 500, upstream.KindFault, codes.Internal, "CLOUD_UNAVAILABLE", true},
	{"coreshub", "501", 501, upstream.KindUnsupported, codes.Unimplemented, "OPERATION_NOT_SUPPORTED", false},
	{"coreshub", "502", 502, upstream.KindUnavailable, codes.Unavailable, "CLOUD_UNAVAILABLE", true},
	{"coreshub", "503", 503, upstream.KindUnavailable, codes.Unavailable, "CLOUD_UNAVAILABLE", true},
	{"coreshub", "504", 504, upstream.KindUnavailable, codes.Unavailable, "CLOUD_UNAVAILABLE", true},
	{"coreshub", "401", 200, upstream.KindDenied, codes.Internal, "CLOUD_CREDENTIALS_REJECTED", false},
	{"coreshub", "422", 200, upstream.KindInvalid, codes.InvalidArgument, "CLOUD_REJECTED", false},
	// No envelope.
	{"coreshub", "", 200, upstream.KindBadResponse, codes.Internal, "CLOUD_BAD_RESPONSE", true},
	{"coreshub", "", 302, upstream.KindBadResponse, codes.Internal, "CLOUD_BAD_RESPONSE", true},
	{"coreshub", "", 401, upstream.KindDenied, codes.Internal, "CLOUD_CREDENTIALS_REJECTED", false},
	{"coreshub", "", 403, upstream.KindDenied, codes.Internal, "CLOUD_CREDENTIALS_REJECTED", false},
	{"coreshub", "", 404, upstream.KindNotFound, codes.NotFound, "NOTEBOOK_NOT_FOUND", false},
	{"coreshub", "", 429, upstream.KindThrottled, codes.ResourceExhausted, "CLOUD_RATE_LIMITED", false},
	{"coreshub", "", 500, upstream.KindUnavailable, codes.Unavailable, "CLOUD_UNAVAILABLE", true},
	{"coreshub", "", 502, upstream.KindUnavailable, codes.Unavailable, "CLOUD_UNAVAILABLE", true},
	{"coreshub", "", 503, upstream.KindUnavailable, codes.Unavailable, "CLOUD_UNAVAILABLE", true},
	{"coreshub", "", 504, upstream.KindUnavailable, codes.Unavailable, "CLOUD_UNAVAILABLE", true},

	// SCNet, the codes of the vendor's page.
	{"scnet", "10001", 200, upstream.KindFault, codes.Internal, "CLOUD_UNAVAILABLE", true},
	{"scnet", "10003", 200, upstream.KindInvalid, codes.InvalidArgument, "CLOUD_REJECTED", false},
	{"scnet", "10004", 200, upstream.KindInvalid, codes.InvalidArgument, "CLOUD_REJECTED", false},
	{"scnet", "10007", 200, upstream.KindDenied, codes.Internal, "CLOUD_CREDENTIALS_REJECTED", false},
	{"scnet", "10008", 200, upstream.KindDenied, codes.Internal, "CLOUD_CREDENTIALS_REJECTED", false},
	{"scnet", "10009", 200, upstream.KindDenied, codes.Internal, "CLOUD_CREDENTIALS_REJECTED", false},
	{"scnet", "10010", 200, upstream.KindInvalid, codes.InvalidArgument, "CLOUD_REJECTED", false},
	{"scnet", "10011", 200, upstream.KindInvalid, codes.InvalidArgument, "CLOUD_REJECTED", false},
	{"scnet", "10012", 200, upstream.KindUnavailable, codes.Unavailable, "CLOUD_UNAVAILABLE", true},
	// Codes of the services behind it.
	{"scnet", "716020", 200, upstream.KindFault, codes.Internal, "CLOUD_UNAVAILABLE", true},
	{"scnet", "716864", 200, upstream.KindRejected, codes.Internal, "CLOUD_REJECTED", false},
	{"scnet", "716865", 200, upstream.KindRejected, codes.Internal, "CLOUD_REJECTED", false},
	{"scnet", "716866", 200, upstream.KindRejected, codes.Internal, "CLOUD_REJECTED", false},
	{"scnet", "716870", 200, upstream.KindRejected, codes.Internal, "CLOUD_REJECTED", false},
	{"scnet", "911020", 200, upstream.KindNotFound, codes.NotFound, "NOTEBOOK_NOT_FOUND", false},
	{"scnet", "911021", 200, upstream.KindConflict, codes.FailedPrecondition, "CLOUD_REJECTED", false},
	{"scnet", "1001", 200, upstream.KindRejected, codes.Internal, "CLOUD_REJECTED", false},
	{"scnet", "1004", 200, upstream.KindInvalid, codes.InvalidArgument, "CLOUD_REJECTED", false},
	{"scnet", "817140", 200, upstream.KindConflict, codes.FailedPrecondition, "CLOUD_REJECTED", false},
	{"scnet", "816822", 200, upstream.KindNotFound, codes.NotFound, "NOTEBOOK_NOT_FOUND", false},
	{"scnet", "818218", 200, upstream.KindDenied, codes.Internal, "CLOUD_CREDENTIALS_REJECTED", false},
	{"scnet", "820000", 200, upstream.KindInvalid, codes.InvalidArgument, "CLOUD_REJECTED", false},
	{"scnet", "816304", 200, upstream.KindInvalid, codes.InvalidArgument, "CLOUD_REJECTED", false},
	{"scnet", "99999", 200, upstream.KindRejected, codes.Internal, "CLOUD_REJECTED", false},
	// With an HTTP status that is not 200.
	{"scnet", "10008", 401, upstream.KindDenied, codes.Internal, "CLOUD_CREDENTIALS_REJECTED", false},
	{"scnet", "10004", 500, upstream.KindInvalid, codes.InvalidArgument, "CLOUD_REJECTED", false},
	{"scnet", "0", 500, upstream.KindUnavailable, codes.Unavailable, "CLOUD_UNAVAILABLE", true},
	// No envelope.
	{"scnet", "", 200, upstream.KindBadResponse, codes.Internal, "CLOUD_BAD_RESPONSE", true},
	{"scnet", "", 401, upstream.KindDenied, codes.Internal, "CLOUD_CREDENTIALS_REJECTED", false},
	{"scnet", "", 403, upstream.KindDenied, codes.Internal, "CLOUD_CREDENTIALS_REJECTED", false},
	{"scnet", "", 404, upstream.KindDisabled, codes.FailedPrecondition, "LOCATION_DISABLED", false},
	{"scnet", "", 405, upstream.KindInvalid, codes.InvalidArgument, "CLOUD_REJECTED", false},
	{"scnet", "", 429, upstream.KindThrottled, codes.ResourceExhausted, "CLOUD_RATE_LIMITED", false},
	{"scnet", "", 500, upstream.KindUnavailable, codes.Unavailable, "CLOUD_UNAVAILABLE", true},
	{"scnet", "", 503, upstream.KindUnavailable, codes.Unavailable, "CLOUD_UNAVAILABLE", true},
}

// providerOf returns a provider whose cloud gives one answer to everything.
func providerOf(t *testing.T, cloud string, answer roundTrip) upstream.Provider {
	t.Helper()
	client := upstream.NewClient(upstream.ClientConfig{Cloud: cloud, Transport: answer})
	var provider upstream.Provider
	var err error
	switch cloud {
	case "coreshub":
		provider, err = coreshub.New(coreshub.Config{
			Zones: []string{"xb3"}, UserID: "usr-1", AccessKeyID: upstream.NewSecret("ak"), SecretAccessKey: upstream.NewSecret("sk"),
		}, client)
	case "scnet":
		provider, err = scnet.New(scnet.Config{
			Regions: []scnet.Region{{ID: "xb3", Endpoint: "https://scnet.test", Token: upstream.NewSecret("token")}},
		}, client)
	}
	if err != nil {
		t.Fatal(err)
	}
	return provider
}

// TestCodes follows every known code from the wire to the caller.
func TestCodes(t *testing.T) {
	for _, tt := range codeCases {
		t.Run(fmt.Sprintf("%s/%s/%d", tt.cloud, tt.code, tt.http), func(t *testing.T) {
			body := "<html>an upstream page</html>"
			switch {
			case tt.code != "" && tt.cloud == "coreshub":
				body = fmt.Sprintf(`{"message": "an upstream page", "data": null, "ret_code": %s}`, tt.code)
			case tt.code != "":
				body = fmt.Sprintf(`{"code": %q, "msg": "an upstream page", "data": null}`, tt.code)
			}
			provider := providerOf(t, tt.cloud, func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: tt.http, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
			})
			_, err := provider.List(t.Context(), "xb3")
			if kind := upstream.KindOf(err); err == nil || kind != tt.kind || kind.TripsBreaker() != tt.trips {
				t.Fatalf("%v is %v (trips %v), want %v (trips %v)", err, kind, kind.TripsBreaker(), tt.kind, tt.trips)
			}
			st := status.Convert((&Service{}).toStatus(t.Context(), err, nil))
			var info *errdetails.ErrorInfo
			for _, detail := range st.Details() {
				if d, ok := detail.(*errdetails.ErrorInfo); ok {
					info = d
				}
			}
			if st.Code() != tt.grpc || info.GetReason() != tt.reason {
				t.Errorf("%v / %s, want %v / %s", st.Code(), info.GetReason(), tt.grpc, tt.reason)
			}
			if want := tt.code; want != "" && want != "0" && info.GetMetadata()["cloud_code"] != want {
				t.Errorf("cloud_code %q, want %q", info.GetMetadata()["cloud_code"], want)
			}
			if strings.Contains(st.String(), "an upstream page") {
				t.Errorf("the caller is shown the cloud's own text: %v", st)
			}
		})
	}
}
