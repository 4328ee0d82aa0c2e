package scnet

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/notebookd/notebookd/internal/upstream"
)

// FuzzDecode feeds any answer to everything that reads answers.
func FuzzDecode(f *testing.F) {
	f.Add(200, vendorExample(f))
	f.Add(200, []byte(`{"code":"0","data":{"total":1,"records":[{"id":"1","releaseTime":"28天20小时17分钟","sshPassword":"canary-password",
		"errorMessage":"canary-password is wrong","sshUrl":"ssh://root:canary-password@h:22","command":"login canary-password"}]}}`))
	f.Add(200, []byte(`{"code":"0","data":{"total":1,"data":[{"id":2,"sshPassword":"redacted","message":"redacted"}]}}`))
	f.Add(200, []byte(`{"code":0,"data":[{"clusterId":11250,"clusterName":"n","token":"a.eyJleHBpcmVUaW1lIjoiMTY4NjAzNjc2MDk1NCJ9.b"}]}`))
	f.Add(200, []byte(`{"code":"0","data":{"aiUrls":[{"enable":"true","url":"https://h:1/ai/"}]}}`))
	f.Add(200, []byte(`{"code":10008,"msg":"token expired","data":null}`))
	f.Add(502, []byte(`<html>`))
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		a, err := open(upstream.Response{Status: status, Body: body})
		if err != nil {
			if _, ok := err.(*upstream.Error); !ok { //nolint:errorlint // open returns it bare
				t.Fatalf("%T", err)
			}
			return
		}
		rows := []json.RawMessage{a.data} // as detail has it
		for _, strict := range []bool{false, true} {
			p, err := a.page(strict)
			if err != nil && upstream.KindOf(err) != upstream.KindBadResponse {
				t.Fatal(err)
			}
			rows = append(rows, p.rows...)
		}
		for _, row := range rows {
			n, ok := decodeNotebook(row, shanghai, now)
			if ok != upstream.UsableID(n.ID) {
				t.Fatalf("id %q, %v", n.ID, ok)
			}
			if n.Resources.CPUCores < 0 || n.Resources.MemoryBytes < 0 || n.Image.SizeBytes < 0 || n.Resources.Accelerator.Count < 0 {
				t.Fatalf("negative amounts: %+v", n)
			}
			for _, at := range []time.Time{n.CreateTime, n.UpdateTime, n.ExpireTime} {
				if !at.IsZero() && (at.Year() < 1970 || at.Year() > 9999) {
					t.Fatalf("time %v", at)
				}
			}
			checkPassword(t, row, n, now)
		}
		if grants, err := a.grants(now); err == nil {
			checkGrants(t, grants)
		}
		if at, err := a.endpoint(""); err == nil && (at.base == "") == (at.disabled == "") {
			t.Fatalf("endpoint %+v", at)
		}
		a.empty()
	})
}

// checkPassword looks for the ssh password in n, which was decoded from row:
// texts do not hold it, and nothing else depends on it.
func checkPassword(t *testing.T, row []byte, n upstream.Notebook, now time.Time) {
	t.Helper()
	var w notebook
	if json.Unmarshal(row, &w) != nil || len(w.SSHPassword) < shortestPassword {
		return
	}
	for _, text := range []string{n.StateMessage, n.Attributes["message"], n.Attributes["command"], n.Endpoints.ServiceURL, n.Endpoints.SSHURL} {
		if strings.Contains(text, string(w.SSHPassword)) {
			t.Fatalf("%q has the password %q", text, w.SSHPassword)
		}
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(row, &fields) != nil {
		return
	}
	for name := range fields {
		if strings.EqualFold(name, "sshPassword") {
			delete(fields, name)
		}
	}
	bare, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	without, _ := decodeNotebook(bare, shanghai, now)
	for _, m := range []*upstream.Notebook{&n, &without} {
		m.StateMessage, m.Endpoints.ServiceURL, m.Endpoints.SSHURL = "", "", ""
		kept := map[string]string{}
		for name, value := range m.Attributes {
			if name != "message" && name != "command" {
				kept[name] = value
			}
		}
		m.Attributes = kept
	}
	// Of keys that differ only in case the last one counts, and a map has no
	// order.
	if !repeated(fields) {
		if diff := cmp.Diff(without, n); diff != "" {
			t.Fatalf("the password changes the notebook:\n%s", diff)
		}
	}
}

func repeated(fields map[string]json.RawMessage) bool {
	seen := map[string]bool{}
	for name := range fields {
		folded := strings.ToLower(strings.ToUpper(name))
		if seen[folded] {
			return true
		}
		seen[folded] = true
	}
	return false
}

func checkGrants(t *testing.T, grants []grant) {
	t.Helper()
	seen := map[string]bool{}
	for _, g := range grants {
		if !upstream.PlainSegment(g.id) || g.id == "0" || seen[g.id] {
			t.Fatalf("region %q", g.id)
		}
		seen[g.id] = true
		if g.lifetime <= 0 {
			t.Fatalf("lifetime %v", g.lifetime)
		}
		if !headerSafe(g.token.Reveal()) {
			t.Fatalf("token %q", g.token.Reveal())
		}
	}
}

func FuzzCountdown(f *testing.F) {
	for _, s := range []string{"28天20小时17分钟", "17分钟", "20 小时", "1天17分", "30秒", "0分钟", "36500天", "99999999999999999999天", "2025-03-02 12:10:20", "天"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, ok := countdown(s)
		if d < 0 && ok || ok && d > maxCountdown {
			t.Errorf("countdown(%q) = %v", s, d)
		}
		if !ok {
			return
		}
		again := fmt.Sprintf("%d天%d小时%d分钟%d秒", d/(24*time.Hour), d/time.Hour%24, d/time.Minute%60, d/time.Second%60)
		if back, ok := countdown(again); !ok || back != d {
			t.Errorf("countdown(%q) = %v, and %q is %v, %v", s, d, again, back, ok)
		}
	})
}

func FuzzAmounts(f *testing.F) {
	for _, s := range []string{"24核心", "10核", "0.5核心", "24", "110GB", "4gb", "1.5G", "2TiB", "99999999999TB", "-1GB", "1e9核心", "43726906378", "2025-03-02 12:10:20"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if v := cores(s); !(v >= 0 && v <= 1e6) {
			t.Errorf("cores(%q) = %v", s, v)
		}
		if v := memory(s); v < 0 {
			t.Errorf("memory(%q) = %v", s, v)
		}
		if v := whole(s, 100); v < 0 || v > 100 {
			t.Errorf("whole(%q) = %v", s, v)
		}
		if v := cards(s); v != nil && *v < 0 {
			t.Errorf("cards(%q) = %v", s, *v)
		}
		if cores(s) != 0 && memory(s) != 0 {
			t.Errorf("%q is cores and memory", s)
		}
	})
}

// FuzzGrants has a login answer any id and any token, and a token claim
// anything.
func FuzzGrants(f *testing.F) {
	f.Add("11250", "华东一区【昆山】", `{"expireTime":"1686036760954","clusterId":"11250"}`)
	f.Add("0", "ac", `{"expireTime":1686036760954}`)
	f.Add("20091", "", `{"expireTime":"9223372036854775807"}`)
	f.Add("a/b", "", `{"expireTime":-1}`)
	f.Add("1", "", `a.b`)
	now := time.UnixMilli(1686036000000)
	f.Fuzz(func(t *testing.T, id, name, claims string) {
		for _, token := range []string{claims, "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"} {
			if at, ok := expiry(token); ok && at.UnixMilli() <= 0 {
				t.Fatalf("%q ends at %v", token, at)
			}
			data := upstream.CompactJSON([]map[string]any{{"clusterId": id, "clusterName": name, "token": token}, {"clusterId": "7", "token": nil}})
			grants, err := answer{data: data}.grants(now)
			if err != nil {
				if upstream.KindOf(err) != upstream.KindBadResponse || strings.Contains(err.Error(), token) && len(token) > 20 {
					t.Fatal(err)
				}
				continue
			}
			checkGrants(t, grants)
		}
	})
}
