package cloudsim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// account is a simulated SCNet whose clock stands still.
type account struct {
	*SCNet
	at *time.Time
}

func newAccount(settle func(*SCNetSettings)) account {
	at := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	c := account{SCNet: NewSCNet(Config{Now: func() time.Time { return at }}), at: &at}
	c.Set(func(s *SCNetSettings) {
		s.Transition = Duration(time.Minute)
		settle(s)
	})
	return c
}

// wait lets transitions end.
func (c account) wait() { *c.at = c.at.Add(time.Minute) }

// call makes a call with a token of a region and returns code and data.
func (c account) call(t *testing.T, method, path, region, body string) (code, data string) {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("token", c.Token(region))
	r.Header.Set("Content-Type", "application/json;charset=UTF-8")
	w := httptest.NewRecorder()
	c.ServeHTTP(w, r)
	var answer struct {
		Code string
		Data json.RawMessage
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		return fmt.Sprintf("HTTP %d", w.Code), w.Body.String()
	}
	return answer.Code, string(answer.Data)
}

const (
	createPath  = "/ac/openapi/v2/notebook/actions/create"
	startPath   = "/ac/openapi/v2/notebook/actions/start"
	stopPath    = "/ai/openapi/v2/notebook/actions/stop"
	releasePath = "/ai/openapi/v2/notebook/actions/release"
	namePath    = "/ai/openapi/v2/notebook/name"
)

func createBody(edit func(map[string]any)) string {
	body := map[string]any{
		"clusterId": "11250", "imagePath": SCNetImage, "imageName": "jupyterlab-pytorch:2.5.1-py3.10", "imageSize": "7338398370",
		"acceleratorType": "DCU", "acceleratorNumber": "1", "resourceGroupCode": "hgk100_ainormal93b0dc03", "mountHome": true,
	}
	edit(body)
	return string(plainJSON(body))
}

func (c account) state(id string) string {
	list := c.Truth("11250")
	i := slices.IndexFunc(list, func(n Notebook) bool { return n.ID == id })
	if i < 0 {
		return "gone"
	}
	return list[i].State
}

// TestLifeOverTheAPI: what is asked for takes its time by the clock, whether the
// story goes on or not.
func TestLifeOverTheAPI(t *testing.T) {
	c := newAccount(func(*SCNetSettings) {})
	want := func(what, got, wanted string) {
		t.Helper()
		if got != wanted {
			t.Errorf("%s: %s, want %s", what, got, wanted)
		}
	}
	code, data := c.call(t, "POST", createPath, "11250", createBody(func(map[string]any) {}))
	want("create", code, "0")
	var made struct{ TaskID, NotebookID string }
	if err := json.Unmarshal([]byte(data), &made); err != nil || len(made.NotebookID) != 19 || len(made.TaskID) != 19 {
		t.Fatalf("%s: %v", data, err)
	}
	id := made.NotebookID
	if diff := cmp.Diff([]string{id}, c.Created()); diff != "" {
		t.Errorf("created (-want +got):\n%s", diff)
	}
	stop, start := fmt.Sprintf(`{"notebookId":%q,"saveEnv":true}`, id), fmt.Sprintf(`{"notebookId":%q}`, id)
	act := func(what, path, body, wanted string) {
		t.Helper()
		code, _ := c.call(t, "POST", path, "11250", body)
		want(what, code, wanted)
	}
	for range 50 {
		c.Step() // the story has no part in it
	}
	want("at once", c.state(id), "creating")
	act("stop while it is created", stopPath, stop, "716865")
	act("start while it is created", startPath, start, "716865")
	c.wait()
	want("later", c.state(id), "running")
	act("start while it runs", startPath, start, "716865")
	for range 50 {
		c.Step()
	}
	want("while the story goes on", c.state(id), "running")
	act("stop", stopPath, stop, "0")
	want("stopping", c.state(id), "stopping")
	act("stop while it stops", stopPath, stop, "716865")
	c.wait()
	want("stopped", c.state(id), "stopped")
	act("stop again", stopPath, stop, "817140")
	c.Set(func(s *SCNetSettings) { s.StopStopped = "ok" })
	act("stop again", stopPath, stop, "0")
	c.Set(func(s *SCNetSettings) { s.StopStopped = "716865" })
	act("stop again", stopPath, stop, "716865")
	act("start", startPath, start, "0")
	want("starting", c.state(id), "starting")
	act("stop while it starts", stopPath, stop, "0")
	c.wait()
	c.Set(func(s *SCNetSettings) { s.StartFails = "no" })
	act("start", startPath, start, "0")
	c.wait()
	want("failed", c.state(id), "failed")
	c.Set(func(s *SCNetSettings) { s.StartFails = "" })
	act("start of what failed", startPath, start, "0")
	c.wait()
	want("running", c.state(id), "running")

	act("rename", namePath, fmt.Sprintf(`{"id":%q,"notebookName":"2503021210191107"}`, id), "0")
	c.Set(func(s *SCNetSettings) { s.NamesUnique = true })
	act("rename to its own name", namePath, fmt.Sprintf(`{"id":%q,"notebookName":"other"}`, id), "0")
	act("rename to its own name", namePath, fmt.Sprintf(`{"id":%q,"notebookName":"other"}`, id), "0")
	act("rename to a name that is taken", namePath, fmt.Sprintf(`{"id":%q,"notebookName":"2503021210191107"}`, id), "10004")

	act("release under the wrong name", releasePath, start, "10003")
	act("release", releasePath, fmt.Sprintf(`{"id":%q}`, id), "0")
	act("release again", releasePath, fmt.Sprintf(`{"id":%q}`, id), "10004")
	want("released", c.state(id), "gone")
	if diff := cmp.Diff([]string{id}, c.Released()); diff != "" {
		t.Errorf("released (-want +got):\n%s", diff)
	}
	for _, op := range []string{"create", "start", "stop", "rename", "release"} {
		if c.Calls(op) == 0 {
			t.Errorf("%s was not counted", op)
		}
	}
}

// TestBodiesAreChecked: names, types and values of what is sent.
func TestBodiesAreChecked(t *testing.T) {
	c := newAccount(func(*SCNetSettings) {})
	without := func(name string) string { return createBody(func(b map[string]any) { delete(b, name) }) }
	with := func(name string, value any) string { return createBody(func(b map[string]any) { b[name] = value }) }
	images := `{"access":"public","start":0,"limit":20,"sort":"DESC","orderBy":"create_time"}`
	for _, tt := range []struct{ path, body, want string }{
		{createPath, `[]`, "10004"},
		{createPath, `null`, "10004"},
		{createPath, `{`, "10004"},
		{createPath, without("clusterId"), "10003"},
		{createPath, without("imagePath"), "10003"},
		{createPath, without("imageName"), "10003"},
		{createPath, without("imageSize"), "10003"},
		{createPath, without("acceleratorType"), "10003"},
		{createPath, without("acceleratorNumber"), "10003"},
		{createPath, with("imageName", ""), "10003"},
		{createPath, with("imagePath", nil), "10003"},
		{createPath, with("acceleratorNumber", 1), "10004"},
		{createPath, with("acceleratorNumber", "0"), "10004"},
		{createPath, with("acceleratorType", "dcu"), "10004"},
		{createPath, with("imageSize", 7), "10004"},
		{createPath, with("imageSize", "large"), "10004"},
		{createPath, with("resourceGroupCode", "none"), "10004"},
		{createPath, with("mountHome", "true"), "10004"},
		{createPath, with("mountInfo", "x"), "10004"},
		{createPath, with("clusterId", "20057"), "818218"},
		{startPath, `{"id":"1896050410550136833"}`, "10003"},
		{startPath, `{"notebookId":1896050410550136833}`, "10004"},
		{startPath, `{"notebookId":"1"}`, "10004"},
		{stopPath, `{"notebookId":"1896050410550136833","saveEnv":"true"}`, "10004"},
		{stopPath, `{"notebookId":"1"}`, "10004"},
		{namePath, `{"id":"1896050410550136833"}`, "10003"},
		{namePath, `{"id":"1","notebookName":"a"}`, "10004"},
		{releasePath, `{}`, "10003"},
		{"/ai/openapi/v2/image/images", images, "0"},
		{"/ai/openapi/v2/image/images", strings.Replace(images, "0", `"0"`, 1), "10004"},
		{"/ai/openapi/v2/image/images", strings.Replace(images, "public", "all", 1), "10004"},
		{"/ai/openapi/v2/image/images", strings.Replace(images, `"sort":"DESC",`, "", 1), "10003"},
		{"/ai/openapi/v2/image/images", strings.Replace(images, "20", "0", 1), "10004"},
		{"/ai/openapi/v2/image/models", `{"page":1,"size":20}`, "0"},
		{"/ai/openapi/v2/image/models", `{"page":0,"size":20}`, "10004"},
		{"/ai/openapi/v2/image/models", `{"start":0,"limit":20}`, "10003"},
	} {
		before := c.Truth("11250")
		if code, data := c.call(t, "POST", tt.path, "11250", tt.body); code != tt.want {
			t.Errorf("%s %s: %s %s, want %s", tt.path, tt.body, code, data, tt.want)
		}
		if diff := cmp.Diff(before, c.Truth("11250")); diff != "" {
			t.Errorf("%s %s: something happened:\n%s", tt.path, tt.body, diff)
		}
	}
	r := httptest.NewRequest(http.MethodPost, releasePath, strings.NewReader(`{"id":"`+SCNetNotebook+`"}`))
	r.Header.Set("token", c.Token("11250"))
	w := httptest.NewRecorder()
	if c.ServeHTTP(w, r); w.Code != http.StatusUnsupportedMediaType || c.state(SCNetNotebook) == "gone" {
		t.Errorf("without a content type: HTTP %d", w.Code)
	}
}

// TestTokensThatMake: which token creates and starts is a setting.
func TestTokensThatMake(t *testing.T) {
	c := newAccount(func(*SCNetSettings) {})
	body := fmt.Sprintf(`{"notebookId":%q}`, SCNetNotebook)
	for setting, want := range map[string][2]string{"region": {"0", "10008"}, "platform": {"10008", "0"}, "both": {"0", "0"}} {
		c.Set(func(s *SCNetSettings) { s.CreateToken = setting })
		for i, region := range []string{"11250", "0"} {
			if code, _ := c.call(t, "POST", createPath, region, createBody(func(map[string]any) {})); code != want[i] {
				t.Errorf("%s, create with the token of %s: %s, want %s", setting, region, code, want[i])
			}
			if code, _ := c.call(t, "POST", startPath, region, body); code != want[i] {
				t.Errorf("%s, start with the token of %s: %s, want %s", setting, region, code, want[i])
			}
			c.wait()
			_, _ = c.call(t, "POST", stopPath, "11250", body)
			c.wait()
		}
		if code, _ := c.call(t, "POST", startPath, "20057", body); setting == "region" && code != "10004" {
			t.Errorf("with the token of another region: %s", code)
		}
	}
}

// TestCards: what runs holds cards, and what finds none does not run.
func TestCards(t *testing.T) {
	c := newAccount(func(s *SCNetSettings) { s.Pool = 1 })
	c.Clear("11250")
	make1 := func() (code, id string) {
		code, data := c.call(t, "POST", createPath, "11250", createBody(func(map[string]any) {}))
		var made struct{ NotebookID string }
		_ = json.Unmarshal([]byte(data), &made)
		return code, made.NotebookID
	}
	_, first := make1()
	code, second := make1()
	if code != "0" {
		t.Errorf("the second: %s", code)
	}
	c.wait()
	if c.state(first) != "running" || c.state(second) != "failed" {
		t.Errorf("%s and %s", c.state(first), c.state(second))
	}
	c.Set(func(s *SCNetSettings) { s.NoCards = "716865" })
	if code, _ := make1(); code != "716865" {
		t.Errorf("the third: %s", code)
	}
	start := func(id string) string {
		code, _ := c.call(t, "POST", startPath, "11250", fmt.Sprintf(`{"notebookId":%q}`, id))
		return code
	}
	if code := start(second); code != "716865" {
		t.Errorf("a start: %s", code)
	}
	_, data := c.call(t, "GET", "/ac/openapi/v2/resources/accelerators?clusterIds=11250", "11250", "")
	var pools []struct {
		Code string `json:"resourceGroupCode"`
		Free int    `json:"maxFreeNum"`
	}
	if err := json.Unmarshal([]byte(data), &pools); err != nil || len(pools) != 2 || pools[0].Free != 0 || pools[1].Free != 1 {
		t.Errorf("%s: %v", data, err)
	}
	_, _ = c.call(t, "POST", stopPath, "11250", fmt.Sprintf(`{"notebookId":%q}`, first))
	if code := start(second); code != "716865" {
		t.Errorf("a start while the cards are still held: %s", code)
	}
	c.wait()
	if code := start(second); code != "0" {
		t.Errorf("a start once they are free: %s", code)
	}
	if code, _ := c.call(t, "GET", "/ac/openapi/v2/resources/accelerators", "11250", ""); code != "10003" {
		t.Errorf("resources of no region: %s", code)
	}
	if code, _ := c.call(t, "GET", "/ac/openapi/v2/resources/accelerators?clusterIds=11250,20057", "0", ""); code != "0" {
		t.Errorf("resources of two regions: %s", code)
	}
	if code, _ := c.call(t, "GET", "/ac/openapi/v2/resources/accelerators?clusterIds=20057", "11250", ""); code != "818218" {
		t.Errorf("resources of another region: %s", code)
	}
}

// TestImagesByPage: offsets and pages, capped.
func TestImagesByPage(t *testing.T) {
	c := newAccount(func(*SCNetSettings) {})
	paths := func(region, body string) (paths []string, total int) {
		_, data := c.call(t, "POST", "/ai/openapi/v2/image/images", region, body)
		var page struct {
			Total int
			Data  []struct{ Path string }
		}
		if err := json.Unmarshal([]byte(data), &page); err != nil {
			t.Fatal(err)
		}
		for _, row := range page.Data {
			paths = append(paths, row.Path)
		}
		return paths, page.Total
	}
	body := func(access string, start, limit int, more string) string {
		return fmt.Sprintf(`{"access":%q,"start":%d,"limit":%d,"sort":"DESC","orderBy":"create_time"%s}`, access, start, limit, more)
	}
	all, total := paths("11250", body("public", 0, 100, ""))
	if len(all) != 7 || total != 7 || slices.Contains(all, SCNetDistantImage) || slices.Contains(all, SCNetPrivateImage) {
		t.Errorf("%d of %d: %v", len(all), total, all)
	}
	c.Set(func(s *SCNetSettings) { s.PageCap = 2 })
	var parts []string
	for start := 0; start < total; start += 2 {
		some, n := paths("11250", body("public", start, 100, ""))
		if n != total {
			t.Errorf("a total of %d", n)
		}
		parts = append(parts, some...)
	}
	if diff := cmp.Diff(all, parts); diff != "" {
		t.Errorf("in parts (-want +got):\n%s", diff)
	}
	c.Set(func(s *SCNetSettings) { s.PageCap = 0 })
	if got, _ := paths("20057", body("public", 0, 100, `,"name":"rstudio"`)); len(got) != 1 || got[0] != SCNetDistantImage {
		t.Errorf("by name: %v", got)
	}
	if got, _ := paths("11250", body("private", 0, 100, `,"acceleratorType":"DCU"`)); len(got) != 1 || got[0] != SCNetPrivateImage {
		t.Errorf("private: %v", got)
	}
	if got, _ := paths("11250", body("public", 0, 100, `,"type":"CodeServer"`)); len(got) != 2 {
		t.Errorf("by type: %v", got)
	}
}

// TestNotebooksFitTheCatalog: whatever the story makes runs an image of its region that
// is for its accelerator, in the group of cards of that kind.
func TestNotebooksFitTheCatalog(t *testing.T) {
	c := NewSCNet(Config{Seed: 5, Notebooks: 50})
	for range 200 {
		c.Step()
	}
	groupOf := map[string]string{"dcu": "15", "gpu": "16"}
	seen := map[string]bool{}
	for _, p := range c.world.places {
		for _, n := range p.list {
			seen[n.image] = true
			if why := pullFailure(p.id, n.image, n.model.kind); why != "" || n.group.id != groupOf[n.model.kind] {
				t.Errorf("%s of %s: %s on %s in group %s: %s", n.id, p.id, n.image, n.model.kind, n.group.id, why)
			}
		}
	}
	if len(seen) < 6 {
		t.Errorf("only %d images are in use", len(seen))
	}
}
