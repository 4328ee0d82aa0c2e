package scnet

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/notebookd/notebookd/internal/upstream"
)

var shanghai = time.FixedZone("", 8*3600)

// vendorExample is the example answer in the vendor's page, byte for byte.
func vendorExample(tb testing.TB) []byte {
	tb.Helper()
	page, err := os.ReadFile("testdata/vendor-notebook-list-page.txt")
	if err != nil {
		tb.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "返回示例:\njson")
	text, _, ok := strings.Cut(text, "5.错误码")
	if !ok || !json.Valid([]byte(text)) {
		tb.Fatal("the page has no example")
	}
	return []byte(text)
}

func ptr[T any](v T) *T { return &v }

func TestVendorExample(t *testing.T) {
	a, err := open(upstream.Response{Status: 200, Body: vendorExample(t)})
	if err != nil {
		t.Fatal(err)
	}
	p, err := a.page(false)
	if err != nil || len(p.rows) != 1 {
		t.Fatalf("%d rows, %v", len(p.rows), err)
	}
	now := time.Date(2025, 3, 2, 5, 0, 42, 0, time.UTC)
	got, ok := decodeNotebook(p.rows[0], shanghai, now)
	if !ok {
		t.Fatal("not decoded")
	}
	want := upstream.Notebook{
		ID: "1896050410550136833", DisplayName: "2503021210191107", State: upstream.StateStopped, CloudState: "Terminated",
		Image: upstream.Image{
			URI:         "image.ac.com:5000/dcu/admin/base/jupyterlab-simplesdxl-webui:pytorch2.1.0-py3.10-dtk24.04-model",
			DisplayName: "jupyterlab-simplesdxl-webui:pytorch2.1.0-py3.10-dtk24.04-model", SizeBytes: 43726906378,
		},
		Resources: upstream.Resources{
			CPUCores: 24, MemoryBytes: 110 << 30,
			Accelerator: upstream.Accelerator{Type: "dcu", Model: "异构加速卡AI", Count: 1, Available: ptr[int32](5), Max: ptr[int32](8)},
		},
		ResourceGroup: upstream.ResourceGroup{ID: "15", Code: "hgk100_ainormal93b0dc03"},
		CreateTime:    time.Date(2025, 3, 2, 4, 10, 20, 0, time.UTC),
		UpdateTime:    time.Date(2025, 3, 2, 4, 10, 51, 0, time.UTC),
		ExpireTime:    time.Date(2025, 3, 31, 1, 17, 0, 0, time.UTC),
		Endpoints:     upstream.Endpoints{ServiceIP: "10.68.206.205", CustomPort: 1223},
		Attributes: map[string]string{
			"startType": "normal", "taskId": "1896050410558525441", "enoughResource": "true", "node": "10.13.1.15",
			"command": "python /root/SimpleSDXL/entry_with_update.py --listen 0.0.0.0 --port 1223 > /root/sd.log 2>&1",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if strings.Contains(fmt.Sprintf("%+v", got), "9pM28jD7606121T") {
		t.Error("the ssh password is in the notebook")
	}
}

// TestFields sets every field that the example leaves null, and those that
// clients have seen in other forms.
func TestFields(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	tests := []struct {
		name, record string
		want         upstream.Notebook
	}{
		{"only an id", `{"id":"1"}`, upstream.Notebook{ID: "1"}},
		{"number as id", `{"id":1896050410550136833}`, upstream.Notebook{ID: "1896050410550136833"}},
		{"null everywhere", `{"id":"1","notebookName":null,"cpuNumber":null,"acceleratorNumber":null,"progress":null,"releaseTime":null,
			"customizePort":null,"enoughResource":null,"freeNumber":null,"imageSize":null}`, upstream.Notebook{ID: "1"}},
		{"empty everywhere", `{"id":"1","notebookName":"","cpuNumber":"","acceleratorNumber":"","progress":"","releaseTime":"",
			"customizePort":"","enoughResource":"","freeNumber":"","imageSize":""}`, upstream.Notebook{ID: "1"}},
		{"objects where scalars belong", `{"id":"1","notebookName":{"a":1},"cpuNumber":[24],"progress":{}}`, upstream.Notebook{ID: "1"}},
		{"the table's spellings", `{"id":"1","iamgePath":"r/i:t","customsizePort":1223}`,
			upstream.Notebook{ID: "1", Image: upstream.Image{URI: "r/i:t"}, Endpoints: upstream.Endpoints{CustomPort: 1223}}},
		{"both spellings", `{"id":"1","imagePath":"r/a:t","iamgePath":"r/b:t","customizePort":"1","customsizePort":"2"}`,
			upstream.Notebook{ID: "1", Image: upstream.Image{URI: "r/a:t"}, Endpoints: upstream.Endpoints{CustomPort: 1}}},
		{"numbers as text", `{"id":"1","acceleratorNumber":"2","freeNumber":"0","maxNumber":"8","progress":"0.5","imageSize":7338398370}`,
			upstream.Notebook{
				ID: "1", Image: upstream.Image{SizeBytes: 7338398370}, Progress: ptr(0.5),
				Resources: upstream.Resources{Accelerator: upstream.Accelerator{Count: 2, Available: ptr[int32](0), Max: ptr[int32](8)}},
			}},
		{"amounts", `{"id":"1","cpuNumber":"0.5核心","ramSize":"4GB","acceleratorType":"DCU"}`, upstream.Notebook{ID: "1", Resources: upstream.Resources{
			CPUCores: 0.5, MemoryBytes: 4 << 30, Accelerator: upstream.Accelerator{Type: "dcu"},
		}}},
		{"unknown status", `{"id":"1","notebookStatus":"Waiting"}`, upstream.Notebook{ID: "1", CloudState: "Waiting"}},
		{"failure", `{"id":"1","notebookStatus":"Failed","errorMessage":"image pull failed","message":"more"}`, upstream.Notebook{
			ID: "1", State: upstream.StateFailed, CloudState: "Failed", StateMessage: "image pull failed", Attributes: map[string]string{"message": "more"},
		}},
		{"message alone", `{"id":"1","message":"why"}`, upstream.Notebook{ID: "1", StateMessage: "why"}},
		{"what the example has as null", `{"id":"1","progress":40,"maxTimeout":"3600","serviceUrl":"https://u:p@h/x?token=t","sshUrl":"ssh://root:pw@h:22",
			"containerId":"17b8","containerType":"docker","sshPassword":"hunter2"}`, upstream.Notebook{
			ID: "1", Progress: ptr(40.0), Endpoints: upstream.Endpoints{ServiceURL: "https://h/x", SSHURL: "ssh://h:22"},
			Attributes: map[string]string{"maxTimeout": "3600", "containerId": "17b8", "containerType": "docker"},
		}},
		{"out of range", `{"id":"1","acceleratorNumber":99999999999,"customizePort":"70000","freeNumber":-1,"imageSize":"-5","progress":"NaN","ramSize":"99999999999TB"}`,
			upstream.Notebook{ID: "1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := decodeNotebook([]byte(tt.record), shanghai, now)
			if !ok {
				t.Fatal("not decoded")
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	for _, record := range []string{`{}`, `{"id":""}`, `{"id":null}`, `{"id":"a/b"}`, `{"id":" "}`, `{"id":{}}`, `null`, `1`, `"id"`, `[]`} {
		if n, ok := decodeNotebook([]byte(record), shanghai, now); ok {
			t.Errorf("%s was decoded as %q", record, n.ID)
		}
	}
}

func TestStates(t *testing.T) {
	want := map[upstream.Text]upstream.State{
		"Creating": upstream.StateCreating, "Restarting": upstream.StateStarting, "Running": upstream.StateRunning,
		"Shutting": upstream.StateStopping, "Terminated": upstream.StateStopped, "Failed": upstream.StateFailed,
	}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Error(diff)
	}
}

func TestAmounts(t *testing.T) {
	for text, want := range map[string]float64{
		"24核心": 24, "10核": 10, "0.5核心": 0.5, "24": 24, " 24 核心 ": 24, "": 0, "核心": 0, "-1核心": 0, "24GB": 0, "1e9核心": 0, "2000000核": 0,
	} {
		if got := cores(text); got != want {
			t.Errorf("cores(%q) = %v, want %v", text, got, want)
		}
	}
	for text, want := range map[string]int64{
		"110GB": 110 << 30, "4gb": 4 << 30, "1.5G": 3 << 29, "512 MB": 512 << 20, "2TiB": 2 << 40, "8KB": 8 << 10, "110": 0, "": 0, "GB": 0, "-1GB": 0, "110PB": 0,
	} {
		if got := memory(text); got != want {
			t.Errorf("memory(%q) = %v, want %v", text, got, want)
		}
	}
	for text, want := range map[string]time.Duration{
		"28天20小时17分钟": 28*24*time.Hour + 20*time.Hour + 17*time.Minute, "17分钟": 17 * time.Minute, "20小时": 20 * time.Hour, "1天17分钟": 24*time.Hour + 17*time.Minute,
		"0分钟": 0, " 1天 2小时 ": 26 * time.Hour, "30秒": 30 * time.Second, "36500天": maxCountdown,
	} {
		if got, ok := countdown(text); !ok || got != want {
			t.Errorf("countdown(%q) = %v, %v, want %v", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "天", "28", "17分钟28天", "-1天", "1.5天", "soon", "2025-03-02 12:10:20", "36501天", "99999999999999999999天"} {
		if got, ok := countdown(text); ok {
			t.Errorf("countdown(%q) = %v", text, got)
		}
	}
}

// TestCodes is the table of the README.
func TestCodes(t *testing.T) {
	code := func(c string) string { return fmt.Sprintf(`{"code":%s,"msg":"text","data":null}`, c) }
	tests := []struct {
		name   string
		status int
		body   string
		kind   upstream.Kind
		code   string
		stale  bool
	}{
		{"internal error", 200, code(`"10001"`), upstream.KindFault, "10001", false},
		{"internal error, data is a text", 200, `{"code":"10001","msg":"internal_error","data":"oops"}`, upstream.KindFault, "10001", false},
		{"parameters missing", 200, code(`"10003"`), upstream.KindInvalid, "10003", false},
		{"parameter invalid", 200, code(`"10004"`), upstream.KindInvalid, "10004", false},
		{"user frozen", 200, code(`"10007"`), upstream.KindDenied, "10007", false},
		{"token expired", 200, code(`"10008"`), upstream.KindDenied, "10008", true},
		{"token expired, as a number", 200, code(`10008`), upstream.KindDenied, "10008", true},
		{"token expired, with 401", 401, code(`"10008"`), upstream.KindDenied, "10008", true},
		{"no permission", 200, code(`"10009"`), upstream.KindDenied, "10009", false},
		{"no permission, with 403", 403, code(`"10009"`), upstream.KindDenied, "10009", true},
		{"internal error, with 401", 401, code(`"10001"`), upstream.KindDenied, "10001", true},
		{"token expired, with 429", 429, code(`"10008"`), upstream.KindThrottled, "10008", false},
		{"file check failed", 200, code(`"10010"`), upstream.KindInvalid, "10010", false},
		{"file too large", 200, code(`"10011"`), upstream.KindInvalid, "10011", false},
		{"connection interrupted", 200, code(`"10012"`), upstream.KindUnavailable, "10012", false},
		{"database", 200, code(`"716020"`), upstream.KindFault, "716020", false},
		{"script", 200, code(`"716864"`), upstream.KindRejected, "716864", false},
		{"task creation", 200, code(`"716865"`), upstream.KindRejected, "716865", false},
		{"task deletion", 200, code(`"716866"`), upstream.KindRejected, "716866", false},
		{"instances", 200, code(`"716870"`), upstream.KindRejected, "716870", false},
		{"card type", 200, code(`"816304"`), upstream.KindInvalid, "816304", false},
		{"no such task", 200, code(`"816822"`), upstream.KindNotFound, "816822", false},
		{"already stopped", 200, code(`"817140"`), upstream.KindConflict, "817140", false},
		{"no such user in the region", 200, code(`"818218"`), upstream.KindDenied, "818218", false},
		{"parameter name", 200, code(`"820000"`), upstream.KindInvalid, "820000", false},
		{"parameter empty", 200, code(`"1004"`), upstream.KindInvalid, "1004", false},
		{"no such file", 200, code(`"911020"`), upstream.KindNotFound, "911020", false},
		{"file exists", 200, code(`"911021"`), upstream.KindConflict, "911021", false},
		{"console token", 401, `{"code":"1001","message":"jwt token is invalid"}`, upstream.KindDenied, "1001", true},
		{"unknown exception, or console token", 200, code(`"1001"`), upstream.KindRejected, "1001", false},
		{"unknown, with 404", 404, `{"code":404,"message":"Not Found"}`, upstream.KindNotFound, "404", false},
		{"known, with 404", 404, code(`"816822"`), upstream.KindNotFound, "816822", false},
		{"unknown", 200, code(`"123456"`), upstream.KindRejected, "123456", false},
		{"unknown, with 500", 500, code(`"123456"`), upstream.KindUnavailable, "123456", false},
		{"known, with 500", 500, code(`"10004"`), upstream.KindInvalid, "10004", false},
		{"known, with 429", 429, code(`"10001"`), upstream.KindThrottled, "10001", false},
		{"HTTP 401", 401, `<html>`, upstream.KindDenied, "HTTP 401", true},
		{"HTTP 403", 403, ``, upstream.KindDenied, "HTTP 403", true},
		{"HTTP 404", 404, `{"timestamp":1,"status":404,"error":"Not Found"}`, upstream.KindNotFound, "HTTP 404", false},
		{"HTTP 405", 405, ``, upstream.KindInvalid, "HTTP 405", false},
		{"HTTP 429", 429, ``, upstream.KindThrottled, "HTTP 429", false},
		{"HTTP 502", 502, `<html>bad gateway</html>`, upstream.KindUnavailable, "HTTP 502", false},
		{"HTTP 503", 503, ``, upstream.KindUnavailable, "HTTP 503", false},
		{"success with 500", 500, code(`"0"`), upstream.KindUnavailable, "HTTP 500", false},
		{"html", 200, `<html></html>`, upstream.KindBadResponse, "HTTP 200", false},
		{"nothing", 200, ``, upstream.KindBadResponse, "HTTP 200", false},
		{"cut", 200, `{"code":"0","data":{"total":1,"rec`, upstream.KindBadResponse, "HTTP 200", false},
		{"no code", 200, `{"msg":"success","data":{}}`, upstream.KindBadResponse, "HTTP 200", false},
		{"code 200", 200, code(`"200"`), upstream.KindRejected, "200", false},
		{"code false", 200, code(`false`), upstream.KindRejected, "false", false},
		{"an array", 200, `[]`, upstream.KindBadResponse, "HTTP 200", false},
	}
	seen := map[string]bool{}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, err := open(upstream.Response{Status: tt.status, Body: []byte(tt.body)})
			e, ok := err.(*upstream.Error) //nolint:errorlint // open returns it bare
			if !ok || e.Kind != tt.kind || e.Code != tt.code || a.stale != tt.stale {
				t.Errorf("got %v, stale %v; want %v, code %q, stale %v", err, a.stale, tt.kind, tt.code, tt.stale)
			}
			seen[tt.code] = true
		})
	}
	for c := range kinds {
		if !seen[c] {
			t.Errorf("code %s has no row", c)
		}
	}
	for _, body := range []string{code(`"0"`), code(`0`), `{"code":"0","msg":"SUCCESS","data":[]}`, `{"code":"0","msg":"操作成功","data":{}}`} {
		if _, err := open(upstream.Response{Status: 200, Body: []byte(body)}); err != nil {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestEnvelopes(t *testing.T) {
	tests := []struct {
		name, data string
		rows       int
		total      int
		ok, strict bool // accepted, and accepted strictly
	}{
		{"A", `{"total":2,"records":[{"id":"1"},{"id":"2"}]}`, 2, 2, true, true},
		{"A, empty", `{"total":0,"records":[]}`, 0, 0, true, true},
		{"A, empty as null", `{"total":0,"records":null}`, 0, 0, true, true},
		{"A, total as text", `{"total":"1","records":[{"id":"1"}]}`, 1, 1, true, true},
		{"A without a total", `{"records":[]}`, 0, -1, true, true},
		{"A, null without a total", `{"records":null}`, 0, 0, false, false},
		{"A, null with a total", `{"total":3,"records":null}`, 0, 0, false, false},
		{"A, records are no list", `{"total":3,"records":{"id":"1"}}`, 0, 0, false, false},
		{"B", `{"id":"1","notebookName":"n"}`, 1, 1, true, false},
		{"B with a number as id", `{"id":1}`, 1, 1, true, false},
		{"C", `{"total":1,"data":[{"id":"1"}]}`, 1, 1, true, false},
		{"D", `[]`, 0, -1, true, false},
		{"D with records", `[{"id":"1"}]`, 1, -1, true, false},
		{"D, null", `null`, 0, -1, true, false},
		{"none", `{}`, 0, 0, false, false},
		{"text", `"oops"`, 0, 0, false, false},
		{"number", `1`, 0, 0, false, false},
		{"missing", ``, 0, 0, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for strict, want := range map[bool]bool{false: tt.ok, true: tt.strict} {
				p, err := answer{data: []byte(tt.data)}.page(strict)
				if (err == nil) != want || err == nil && (len(p.rows) != tt.rows || p.total != tt.total) {
					t.Errorf("strict %v: %d rows, total %d, %v", strict, len(p.rows), p.total, err)
				}
				if err != nil && upstream.KindOf(err) != upstream.KindBadResponse {
					t.Errorf("kind = %v", upstream.KindOf(err))
				}
			}
		})
	}
}
