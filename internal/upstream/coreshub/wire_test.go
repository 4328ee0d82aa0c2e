package coreshub

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/notebookd/notebookd/internal/upstream"
)

const (
	testKeyID  = "QYTESTACCESSKEYID000"
	testSecret = "fakeSecretKeyForTestsOnly0123456789ABCDEF"
	testPath   = "/aicp/notebooks/namespaces/usr-testuser/notebooks"
)

// TestSign has the vectors that the vendor's own signing code gave for invented
// keys.
func TestSign(t *testing.T) {
	const nothing = "\nd41d8cd98f00b204e9800998ecf8427e"
	body := []byte(`{"image":"xb3-dockerhub.coreshub.cn/aicp/public/tensorflow:2.16.1-gpu-jupyter","image_type":"official","uuid":"nb-0123456789ab"}`)
	tests := []struct {
		name, method, path   string
		params               url.Values
		body                 []byte
		signer               signer // keys default to the test keys
		canonical, text, b64 string
		wire                 string
	}{{
		name: "V1 plain list", method: "GET", path: testPath,
		params:    url.Values{"zone": {"xb3"}, "limit": {"10"}, "offset": {"0"}, "name": {""}},
		canonical: "access_key_id=QYTESTACCESSKEYID000&limit=10&name=&offset=0&zone=xb3",
		text:      "GET\n" + testPath + "/\naccess_key_id=QYTESTACCESSKEYID000&limit=10&name=&offset=0&zone=xb3" + nothing,
		b64:       "8qMOQRU2VvRcpqqeSriMSNxuwFysyIps9+TSgOH7IKk=",
		wire:      "8qMOQRU2VvRcpqqeSriMSNxuwFysyIps9%252BTSgOH7IKk%253D",
	}, {
		name: "V2 filters, escapes, list value", method: "GET", path: testPath,
		params: url.Values{
			"zone": {"xb3"}, "limit": {"100"}, "offset": {"200"}, "name": {"a b/c+d&e=f~g*h"}, "reverse": {"True"},
			"order_by": {"created_at"}, "status": {"Suspended", "Running", "Pending"},
			"start_at": {"2025-04-10 00:00:00"}, "end_at": {"2025-04-17T23:59:59"}, "owner": {"usr-TestUser"},
		},
		canonical: "access_key_id=QYTESTACCESSKEYID000&end_at=2025-04-17T23%3A59%3A59&limit=100&name=a%20b/c%2Bd%26e%3Df~g%2Ah&offset=200&order_by=created_at&owner=usr-TestUser&reverse=True&start_at=2025-04-10%2000%3A00%3A00&status=Pending&status=Running&status=Suspended&zone=xb3",
		b64:       "3SfkfpnsNmcDha4HUsmn2il3CFRWFTQBYoQ57v8Zd6g=",
		wire:      "3SfkfpnsNmcDha4HUsmn2il3CFRWFTQBYoQ57v8Zd6g%253D",
	}, {
		name: "V3 non-ASCII value", method: "GET", path: testPath,
		params:    url.Values{"zone": {"hb2"}, "limit": {"10"}, "offset": {"0"}, "name": {"容器实例-1"}},
		canonical: "access_key_id=QYTESTACCESSKEYID000&limit=10&name=%E5%AE%B9%E5%99%A8%E5%AE%9E%E4%BE%8B-1&offset=0&zone=hb2",
		b64:       "CCOt3oKT+7GrDEKgeIRSGWTYOEgTdLejHwjehH0uLBw=",
		wire:      "CCOt3oKT%252B7GrDEKgeIRSGWTYOEgTdLejHwjehH0uLBw%253D",
	}, {
		name: "V4 servers", method: "GET", path: testPath + "/nb-0123456789ab/servers",
		params:    url.Values{"zone": {"xb3"}, "owner": {"usr-TestUser"}, "user_id": {"usr-TestUser"}, "services": {"ssh", "custom", "node_port"}},
		canonical: "access_key_id=QYTESTACCESSKEYID000&owner=usr-TestUser&services=custom&services=node_port&services=ssh&user_id=usr-TestUser&zone=xb3",
		b64:       "w4qFxoe5FbJIy5RKykVscPLDbPbMzAiC0XuC7M1G7Qc=",
		wire:      "w4qFxoe5FbJIy5RKykVscPLDbPbMzAiC0XuC7M1G7Qc%253D",
	}, {
		name: "V5 change_image", method: "POST", path: testPath + "/change_image",
		params: url.Values{"zone": {"xb3"}}, body: body,
		canonical: "access_key_id=QYTESTACCESSKEYID000&zone=xb3",
		text:      "POST\n" + testPath + "/change_image/\naccess_key_id=QYTESTACCESSKEYID000&zone=xb3" + nothing,
		b64:       "09qe5TaZCtbf7/U5xEq7gvHfdbPAuwhvSGc1hsQ5Bgk=",
		wire:      "09qe5TaZCtbf7%252FU5xEq7gvHfdbPAuwhvSGc1hsQ5Bgk%253D",
	}, {
		name: "V5 encoded once", method: "POST", path: testPath + "/change_image",
		params: url.Values{"zone": {"xb3"}}, body: body, signer: signer{once: true},
		canonical: "access_key_id=QYTESTACCESSKEYID000&zone=xb3",
		b64:       "09qe5TaZCtbf7/U5xEq7gvHfdbPAuwhvSGc1hsQ5Bgk=",
		wire:      "09qe5TaZCtbf7%2FU5xEq7gvHfdbPAuwhvSGc1hsQ5Bgk%3D",
	}, {
		name: "V6 stop", method: "POST", path: testPath + "/stop",
		params: url.Values{"zone": {"xb2"}}, body: []byte("any"),
		canonical: "access_key_id=QYTESTACCESSKEYID000&zone=xb2",
		b64:       "bqoEWEpKdM1+cewVB70NPAj8Qq0HkZWAyc2SfhOb42w=",
		wire:      "bqoEWEpKdM1%252BcewVB70NPAj8Qq0HkZWAyc2SfhOb42w%253D",
	}, {
		name: "the vendor's sample input", method: "GET", path: "/aicp/trains/namespaces/ALL/trains/",
		params:    url.Values{"image_name": {""}, "limit": {"3"}, "name": {""}, "namespace": {"ALL"}, "offset": {"0"}, "reverse": {"False"}, "zone": {"hd1"}},
		signer:    signer{keyID: upstream.NewSecret("QYACCESSKEYIDEXAMPLE"), secret: upstream.NewSecret("SECRETACCESSKEY")},
		canonical: "access_key_id=QYACCESSKEYIDEXAMPLE&image_name=&limit=3&name=&namespace=ALL&offset=0&reverse=False&zone=hd1",
		b64:       "XUd2nDuea3MtKWsCcW6oB9seLt9dFi4litWBnHIuHXw=",
	}, {
		name: "V5 with the body's MD5", method: "POST", path: testPath + "/change_image",
		params: url.Values{"zone": {"xb3"}}, body: body, signer: signer{hashBody: true},
		canonical: "access_key_id=QYTESTACCESSKEYID000&zone=xb3",
		text:      "POST\n" + testPath + "/change_image/\naccess_key_id=QYTESTACCESSKEYID000&zone=xb3\nd3f72a6f693872130da6e2c31242e791",
		b64:       "EeFnBPWypBPw0RUctgcyA1NRzK9oAPT8rkX/z3haJBQ=",
	}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.signer.keyID.IsZero() {
				tt.signer.keyID, tt.signer.secret = upstream.NewSecret(testKeyID), upstream.NewSecret(testSecret)
			}
			got := tt.signer.sign(tt.method, tt.path, tt.params, tt.body)
			if got.canonical != tt.canonical {
				t.Errorf("canonical query:\n got %s\nwant %s", got.canonical, tt.canonical)
			}
			if tt.text != "" && got.text != tt.text {
				t.Errorf("string to sign:\n got %q\nwant %q", got.text, tt.text)
			}
			if got.base64 != tt.b64 {
				t.Errorf("signature: got %s, want %s", got.base64, tt.b64)
			}
			if want := tt.canonical + "&signature=" + tt.wire; tt.wire != "" && got.query != want {
				t.Errorf("query:\n got %s\nwant %s", got.query, want)
			}
			if _, ok := tt.params["access_key_id"]; ok {
				t.Error("the caller's parameters were changed")
			}
		})
	}
}

// codeTests is every code of the reference, and of each range a code that
// nobody documents.
var codeTests = []struct {
	code  int
	kind  upstream.Kind
	trips bool
}{
	{1100, upstream.KindInvalid, false},
	{1101, upstream.KindUnsupported, false},
	{1200, upstream.KindDenied, false},
	{1300, upstream.KindDenied, false},
	{1400, upstream.KindConflict, false},
	{2100, upstream.KindNotFound, false},
	{2400, upstream.KindConflict, false},
	{2500, upstream.KindThrottled, false},
	{5000, upstream.KindFault, true},
	{5100, upstream.KindUnavailable, true},

	{400, upstream.KindInvalid, false},
	{401, upstream.KindDenied, false},
	{403, upstream.KindDenied, false},
	{404, upstream.KindNotFound, false},
	{409, upstream.KindConflict, false},
	{422, upstream.KindInvalid, false},
	{429, upstream.KindThrottled, false},
	{500, upstream.KindFault, true},
	{501, upstream.KindUnsupported, false},
	{502, upstream.KindUnavailable, true},
	{503, upstream.KindUnavailable, true},
	{504, upstream.KindUnavailable, true},

	{1, upstream.KindRejected, false},
	{-1, upstream.KindRejected, false},
	{200, upstream.KindRejected, false},
	{418, upstream.KindRejected, false},
	{511, upstream.KindUnavailable, true},
	{1500, upstream.KindRejected, false},
	{2999, upstream.KindRejected, false},
	{3000, upstream.KindRejected, false},
	{4000, upstream.KindRejected, false},
	{5300, upstream.KindUnavailable, true},
	{5999, upstream.KindUnavailable, true},
	{6000, upstream.KindRejected, false},
}

func TestCodes(t *testing.T) {
	tested := map[int]bool{}
	for _, tt := range codeTests {
		tested[tt.code] = true
		t.Run(strconv.Itoa(tt.code), func(t *testing.T) {
			statuses := []int{200}
			if tt.code >= 400 && tt.code < 600 {
				statuses = append(statuses, tt.code) // the style in which both are the same
			}
			for _, status := range statuses {
				for _, body := range []string{
					`{"message":"no","meta":{"X_REQUEST_ID":"d5ad2d69"},"ret_code":%d}`,
					`{"ret_code":"%d","data":null,"message":"no","meta":{"X_REQUEST_ID":"d5ad2d69","X_REQUEST_USER":null}}`,
				} {
					_, err := open(upstream.Response{Status: status, Body: fmt.Appendf(nil, body, tt.code)})
					e, ok := errors.AsType[*upstream.Error](err)
					if !ok {
						t.Fatalf("HTTP %d: got %v, want an *upstream.Error", status, err)
					}
					want := &upstream.Error{Kind: tt.kind, Code: strconv.Itoa(tt.code), Message: "no", RequestID: "d5ad2d69"}
					if diff := cmp.Diff(want, e); diff != "" {
						t.Errorf("HTTP %d (-want +got):\n%s", status, diff)
					}
					if e.Kind.TripsBreaker() != tt.trips {
						t.Errorf("HTTP %d: trips the breaker: %v, want %v", status, e.Kind.TripsBreaker(), tt.trips)
					}
				}
			}
		})
	}
	for code := range kinds {
		if !tested[code] {
			t.Errorf("code %d is in the table but not in the test", code)
		}
	}
}

func TestOpen(t *testing.T) {
	const html = "<html><body>Bad gateway</body></html>"
	tests := []struct {
		name   string
		status int
		body   string
		kind   upstream.Kind
		code   string
	}{
		{"html with 200", 200, html, upstream.KindBadResponse, "HTTP 200"},
		{"nothing with 200", 200, "", upstream.KindBadResponse, "HTTP 200"},
		{"null with 200", 200, "null", upstream.KindBadResponse, "HTTP 200"},
		{"array with 200", 200, `[{"uuid":"nb-1"}]`, upstream.KindBadResponse, "HTTP 200"},
		{"cut with 200", 200, `{"ret_code":0,"data":[{"uuid":"nb-1"`, upstream.KindBadResponse, "HTTP 200"},
		{"more behind it", 200, `{"ret_code":0,"data":[]}<html>`, upstream.KindBadResponse, "HTTP 200"},
		{"no ret_code", 200, `{"message":"success","data":[]}`, upstream.KindBadResponse, "HTTP 200"},
		{"ret_code is a word", 200, `{"message":"success","ret_code":"ok"}`, upstream.KindBadResponse, "HTTP 200"},
		{"ret_code is no integer", 200, `{"message":"success","ret_code":0.5}`, upstream.KindBadResponse, "HTTP 200"},
		{"ret_code is huge", 200, `{"message":"success","ret_code":99999999999999999999}`, upstream.KindBadResponse, "HTTP 200"},
		{"success with 201", 201, `{"ret_code":0,"data":[]}`, upstream.KindBadResponse, "HTTP 201"},
		{"redirection", 302, html, upstream.KindBadResponse, "HTTP 302"},
		{"html with 502", 502, html, upstream.KindUnavailable, "HTTP 502"},
		{"nothing with 503", 503, "", upstream.KindUnavailable, "HTTP 503"},
		{"success with 500", 500, `{"ret_code":0}`, upstream.KindUnavailable, "HTTP 500"},
		{"html with 401", 401, html, upstream.KindDenied, "HTTP 401"},
		{"html with 403", 403, html, upstream.KindDenied, "HTTP 403"},
		{"html with 403 and a quota text", 403, "<html>Too Many requests</html>", upstream.KindThrottled, "HTTP 403"},
		{"html with 404", 404, html, upstream.KindNotFound, "HTTP 404"},
		{"html with 429", 429, html, upstream.KindThrottled, "HTTP 429"},
		{"framework's own error", 422, `{"detail":[{"msg":"field required"}]}`, upstream.KindInvalid, "HTTP 422"},

		{"403 with a quota text", 403, `{"ret_code":403,"message":"API quota exceeded"}`, upstream.KindThrottled, "403"},
		{"403 in the envelope with a quota text", 200, `{"ret_code":403,"message":"请求过于频繁"}`, upstream.KindThrottled, "403"},
		{"403 without ret_code with a quota text", 403, `{"message":"请求次数超出配额"}`, upstream.KindThrottled, "HTTP 403"},
		{"403 with another text", 403, `{"ret_code":403,"message":"not the owner"}`, upstream.KindDenied, "403"},
		{"1200 speaks of no quota", 200, `{"ret_code":1200,"message":"quota"}`, upstream.KindDenied, "1200"},
		{"general code with an HTTP status", 500, `{"ret_code":2100}`, upstream.KindNotFound, "2100"},
		{"429 with any code", 429, `{"ret_code":1400}`, upstream.KindThrottled, "1400"},
		{"unknown code with 502", 502, `{"ret_code":1234}`, upstream.KindUnavailable, "1234"},
		{"unknown code with 401", 401, `{"ret_code":1234}`, upstream.KindDenied, "1234"},
		{"unknown code with 400", 400, `{"ret_code":1234}`, upstream.KindRejected, "1234"},
		{"meta of another shape", 200, `{"ret_code":2100,"meta":"x"}`, upstream.KindNotFound, "2100"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := open(upstream.Response{Status: tt.status, Body: []byte(tt.body)})
			e, ok := errors.AsType[*upstream.Error](err)
			if !ok {
				t.Fatalf("got %v, want an *upstream.Error", err)
			}
			if e.Kind != tt.kind || e.Code != tt.code {
				t.Errorf("got %v with code %q, want %v with code %q", e.Kind, e.Code, tt.kind, tt.code)
			}
		})
	}
}

func TestNotebooksIncomplete(t *testing.T) {
	for _, body := range []string{
		`{"ret_code":0}`,
		`{"ret_code":0,"data":null}`,
		`{"ret_code":0,"data":{}}`,
		`{"ret_code":0,"data":""}`,
		`{"ret_code":0,"data":{"uuid":"nb-1"}}`,
		`{"ret_code":0,"data":[null]}`,
		`{"ret_code":0,"data":[1]}`,
		`{"ret_code":0,"data":[[]]}`,
		`{"ret_code":0,"data":[{}]}`,
		`{"ret_code":0,"data":[{"uuid":"nb-1"},{"uuid":null}]}`,
		`{"ret_code":0,"data":[{"uuid":"nb-1"},{"uuid":""}]}`,
		`{"ret_code":0,"data":[{"uuid":" "}]}`,
		`{"ret_code":0,"data":[{"uuid":"a/b"}]}`,
		`{"ret_code":0,"data":[{"uuid":["nb-1"]}]}`,
	} {
		a, err := open(upstream.Response{Status: 200, Body: []byte(body)})
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		rows, err := a.notebooks(china, "ns", nil)
		if upstream.KindOf(err) != upstream.KindBadResponse || err == nil || rows != nil {
			t.Errorf("%s: got %v, %v, want no rows and a bad response", body, rows, err)
		}
	}
	a, err := open(upstream.Response{Status: 200, Body: []byte(`{"ret_code":0,"data":[]}`)})
	if err != nil {
		t.Fatal(err)
	}
	if rows, err := a.notebooks(china, "ns", nil); err != nil || len(rows) != 0 {
		t.Errorf("empty list: got %v, %v", rows, err)
	}
}

var china = time.FixedZone("", 8*3600)

func TestParseTime(t *testing.T) {
	want := time.Date(2025, 4, 10, 7, 0, 33, 0, time.UTC)
	tests := map[string]time.Time{
		"2025-04-10T15:00:33":                 want,
		"2025-04-10 15:00:33":                 want,
		" 2025-04-10t15:00:33 ":               want,
		"2025-04-10T15:00:33.25":              want.Add(250 * time.Millisecond),
		"2025-04-10 15:00:33.000001":          want.Add(time.Microsecond),
		"2025-04-10T07:00:33Z":                want,
		"2025-04-10T07:00:33.334Z":            want.Add(334 * time.Millisecond),
		"2025-04-10T09:00:33+02:00":           want,
		"2025-04-10T09:00:33.5+0200":          want.Add(500 * time.Millisecond),
		"2025-04-10 09:00:33 +02":             want,
		"1744268433":                          want,
		"1744268433250":                       want.Add(250 * time.Millisecond),
		"":                                    {},
		"null":                                {},
		"0":                                   {},
		"soon":                                {},
		"2025-04-10":                          {},
		"2025-13-10T15:00:33":                 {},
		"0000-00-00 00:00:00":                 {},
		"0001-01-01T00:00:00":                 {},
		"1970-01-01T08:00:00":                 {},
		"9999-12-31T23:59:59-08:00":           {},
		"2025-04-10T15:00:33 China time":      {},
		"二〇二五年四月十日":                           {},
		"-744268433":                          {},
		"99999999999999999999999999999999999": {},
	}
	for in, want := range tests {
		if got := upstream.ParseTime(in, china); !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("%q: got %v, want %v", in, got, want)
		}
	}
	shanghai, err := upstream.ParseZone("Asia/Shanghai")
	if err != nil {
		t.Skip("no time zone database: ", err)
	}
	if got := upstream.ParseTime("2025-04-10T15:00:33", shanghai); !got.Equal(want) {
		t.Errorf("Asia/Shanghai: got %v, want %v", got, want)
	}
}

func TestEnvNames(t *testing.T) {
	tests := map[string][]string{
		``:     nil,
		`null`: nil,
		`""`:   nil,
		`[]`:   nil,
		`{}`:   nil,
		`"[]"`: nil,
		`7`:    nil,
		`[{"name":"B","value":"v"},{"name":"A"}]`:             {"A", "B"},
		`[{"key":"A","value":"v"},{"name":"A","value":"v"}]`:  {"A"},
		`[{"name":"A=v"},{"name":null},{"x":"y"},null,1,"v"]`: nil,
		`"[{\"name\":\"A\",\"value\":\"v\"}]"`:                {"A"},
		`["A=v","B=v,C=v"]`:                                   {"A", "B"},
		`{"A":"v","B":1}`:                                     {"A", "B"},
		`{"name":"A","value":"v"}`:                            {"A"},
		`"A=v,hunter2=x\nhunter3==\nB=v"`:                     {"A"},
		`"v"`:                                                 nil,
		`"{A=v}"`:                                             nil,
	}
	for in, want := range tests {
		if diff := cmp.Diff(want, envNames([]byte(in))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", in, diff)
		}
	}
}

func TestStates(t *testing.T) {
	for word, want := range map[string]upstream.State{
		"Pending": upstream.StateStarting, "Running": upstream.StateRunning, "Failed": upstream.StateFailed,
		"Suspended": upstream.StateStopped, "Stopping": upstream.StateUnspecified, "欠费": upstream.StateUnspecified, "": upstream.StateUnspecified,
	} {
		n, ok := decodeNotebook(fmt.Appendf(nil, `{"uuid":"nb-1","status":%q}`, word), china, "ns")
		if !ok || n.State != want || n.CloudState != word {
			t.Errorf("%q: got %v, %q, %v, want state %v", word, n.State, n.CloudState, ok, want)
		}
	}
}

// TestSpecFields has every documented field of replica_specs find its place.
func TestSpecFields(t *testing.T) {
	parts := make([]string, 0, len(specFields))
	want := map[string]string{}
	for i, name := range specFields {
		parts = append(parts, fmt.Sprintf("%q:%d", name, i+1))
		want["replica_specs."+name] = strconv.Itoa(i + 1)
	}
	object := "{" + strings.Join(parts, ",") + "}"
	for _, raw := range []string{object, "[" + object + "]", strconv.Quote(object)} {
		n, ok := decodeNotebook([]byte(`{"uuid":"nb-1","replica_specs":`+raw+`}`), china, "ns")
		if diff := cmp.Diff(want, n.Attributes); !ok || diff != "" {
			t.Errorf("%s (-want +got):\n%s", raw, diff)
		}
	}
	for _, raw := range []string{"null", "[]", "{}", `""`, "[null,1]", `"x"`} {
		n, ok := decodeNotebook([]byte(`{"uuid":"nb-1","replica_specs":`+raw+`}`), china, "ns")
		if !ok || n.Attributes != nil || n.Resources != (upstream.Resources{}) {
			t.Errorf("%s: got %+v, %v", raw, n, ok)
		}
	}
	for _, raw := range []string{"-1", `"NaN"`, `"Inf"`, "1e300", `"many"`, "0.5"} {
		n, _ := decodeNotebook([]byte(`{"uuid":"nb-1","replica_specs":{"custom_gpu":`+raw+`}}`), china, "ns")
		if n.Resources != (upstream.Resources{}) {
			t.Errorf("custom_gpu %s: got %+v", raw, n.Resources)
		}
	}
}

// vendorExample is the example answer of the vendor's change_image page, byte
// for byte.
func vendorExample(tb testing.TB) []byte {
	tb.Helper()
	page, err := os.ReadFile("testdata/vendor-change_image-page.txt")
	if err != nil {
		tb.Fatal(err)
	}
	_, example, ok := strings.Cut(string(page), "响应示例\n\n")
	if !ok {
		tb.Fatal("the page has no example answer")
	}
	return []byte(example)
}

// vendorNotebook is what the example says.
var vendorNotebook = upstream.Notebook{
	ID:           "nb-eiguqichl5hc",
	DisplayName:  "容器实例-1",
	State:        upstream.StateStopped,
	CloudState:   "Suspended",
	StateMessage: "已暂停",
	Image:        upstream.Image{URI: "xb3-dockerhub.coreshub.cn/aicp/public/tensorflow:2.16.1-gpu-jupyter", Type: "official"},
	ServerType:   "jupyter",
	Namespace:    "usr-5hy8xxxx",
	OwnerID:      "usr-5HY8xxxx",
	CreateTime:   time.Date(2025, 4, 10, 15, 0, 33, 0, china),
	UpdateTime:   time.Date(2025, 4, 10, 17, 33, 41, 0, china),
	Mirrors:      upstream.Mirrors{Pip: "aliyun", Conda: "conda", APT: "ubuntu"},
	Attributes:   map[string]string{"kuid": "b9a485e4-1672-45fa-a90e-5adf0016fe30"},
}

// asList turns an answer about one notebook into a list of it.
func asList(tb testing.TB, example []byte) []byte {
	tb.Helper()
	i := strings.Index(string(example), `"data": {`) + len(`"data": `)
	end := strings.LastIndex(string(example), "},\n    \"ret_code\"") + 1
	if i < len(`"data": `) || end <= i {
		tb.Fatal("the example has no notebook")
	}
	return []byte(string(example[:i]) + "[" + string(example[i:end]) + `], "counts": 1` + string(example[end:]))
}

// FuzzDecode feeds any answer to the whole way that answers take.
func FuzzDecode(f *testing.F) {
	example := vendorExample(f)
	f.Add(200, example)
	f.Add(200, asList(f, example))
	for _, name := range []string{
		"testdata/GET/aicp/notebooks/namespaces/usr-testuser/notebooks.json",
		"testdata/POST/aicp/notebooks/namespaces/usr-testuser/notebooks/change_image.json",
	} {
		body, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(200, body)
	}
	signer := signer{keyID: upstream.NewSecret(testKeyID), secret: upstream.NewSecret(testSecret)}
	list := signer.sign("GET", testPath, url.Values{"zone": {"xb3"}, "order_by": {"created_at"}, "limit": {"100"}, "offset": {"0"}}, nil)
	change := signer.sign("POST", testPath+"/change_image", url.Values{"zone": {"xb3"}}, nil)
	listSecrets := []string{testKeyID, testSecret, list.base64, url.QueryEscape(list.base64)}
	changeSecrets := []string{testKeyID, testSecret, change.base64, url.QueryEscape(change.base64), testPassword}
	for _, secret := range slices.Concat(listSecrets, changeSecrets) {
		f.Add(400, fmt.Appendf(nil, `{"message":%q,"ret_code":1200,"meta":{"X_REQUEST_ID":%q}}`, secret, secret))
	}
	f.Add(400, fmt.Appendf(nil, `{"message":%q,"ret_code":1200}`, list.query))
	f.Add(502, []byte("<html>"+change.query+testPassword))
	f.Add(200, []byte(`{"ret_code":0,"data":null}`))
	f.Add(200, []byte(`{"ret_code":0,"data":[{"uuid":null}]}`))

	f.Fuzz(func(t *testing.T, status int, body []byte) {
		p := newProvider(t, Config{}, func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(body)))}, nil
		})
		check := func(secrets []string, rows []upstream.Notebook, err error) {
			if err != nil {
				if _, ok := errors.AsType[*upstream.Error](err); !ok {
					t.Errorf("%v is no *upstream.Error", err)
				}
				for _, secret := range secrets {
					for _, shown := range []string{err.Error(), fmt.Sprintf("%+v %#v", err, err)} {
						if strings.Contains(shown, secret) {
							t.Errorf("the error %q holds the secret %q", shown, secret)
						}
					}
				}
				return
			}
			ids := map[string]bool{}
			for _, n := range rows {
				if n.ID == "" || ids[n.ID] {
					t.Errorf("id %q is empty or there twice", n.ID)
				}
				ids[n.ID] = true
				for _, at := range []time.Time{n.CreateTime, n.UpdateTime, n.StopTime, n.ExpireTime} {
					if !at.IsZero() && (at.Year() < 1970 || at.Year() > 9999) {
						t.Errorf("time %v", at)
					}
				}
				texts := append([]string{
					n.ID, n.DisplayName, n.CloudState, n.StateMessage, n.Image.URI, n.Image.Type, n.ServerType, n.Namespace, n.OwnerID,
					n.RootOwnerID, n.Endpoints.ServiceURL, n.Mirrors.Pip, n.Mirrors.Conda, n.Mirrors.APT, n.Resources.Accelerator.Model,
				}, n.EnvNames...)
				for _, value := range n.Attributes {
					texts = append(texts, value)
				}
				for _, s := range texts {
					if !utf8.ValidString(s) {
						t.Errorf("%q is no UTF-8", s)
					}
				}
			}
		}
		rows, err := p.List(t.Context(), "xb3")
		check(listSecrets, rows, err)
		n, err := p.ChangeImage(t.Context(), upstream.ImageRequest{
			Location: "xb3", NotebookID: vendorNotebook.ID, Image: "i", ImageType: "custom",
			Credential: &upstream.RegistryCredential{Username: "u", Password: upstream.NewSecret(testPassword)},
		})
		check(changeSecrets, []upstream.Notebook{n}, err)
	})
}

// FuzzTime looks for texts that give a time that the contract cannot hold.
func FuzzTime(f *testing.F) {
	for _, s := range []string{
		"2025-04-10T15:00:33", "2025-04-10T17:33:41", "2025-04-08T08:30:07.334Z", "2025-04-10 00:00:00", "", "0", "1744268433250",
		"9999-12-31T23:59:59-08:00", "0001-01-01T00:00:00+08:00",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := upstream.ParseTime(s, china)
		if got.IsZero() {
			return
		}
		if got.Year() < 1970 || got.Year() > 9999 {
			t.Errorf("%q: %v", s, got)
		}
		if again := upstream.ParseTime(got.Format(time.RFC3339Nano), china); !again.Equal(got) {
			t.Errorf("%q: %v reads back as %v", s, got, again)
		}
	})
}
