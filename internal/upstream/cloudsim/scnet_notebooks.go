package cloudsim

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The images of the simulated SCNet that tests name.
const (
	imageBase    = "image.ac.com:5000/dcu/admin/base/"
	gpuImageBase = "image.ac.com:5000/gpu/admin/base/"
	// SCNetImage is a public image for the accelerator of SCNetNotebook, which
	// has another one.
	SCNetImage = imageBase + "jupyterlab-pytorch:2.5.1-py3.10"
	// SCNetPrivateImage is one that only the account has.
	SCNetPrivateImage = "image.ac.com:5000/dcu/simulated/team-env:7"
	// SCNetModelImage is in the list of model images.
	SCNetModelImage = "image.ac.com:5000/dcu/admin/model/qwen3-vllm:0.9.1"
	// SCNetUnfinishedImage is still being made.
	SCNetUnfinishedImage = imageBase + "jupyterlab-mindspore:2.4.0-py3.11"
	// SCNetGPUImage is for another accelerator.
	SCNetGPUImage = gpuImageBase + "jupyterlab-pytorch:2.6.0-py3.12-cuda12.4"
	// SCNetDistantImage exists in the second region only.
	SCNetDistantImage = imageBase + "rstudio-tidyverse:4.4.1"
)

// Codes that several calls answer with.
const (
	codeMissing = "10003"
	codeInvalid = "10004"
	codeTask    = "716865"
	codeStopped = "817140"
)

// catalogued is an image of the cloud.
type catalogued struct {
	path, size, kind    string
	access, accelerator string
	status              string
	model               bool   // stands in the list of model images instead
	region              string // the one that has it; empty: all
}

// vendorSize is the size of the image in the vendor's example.
const vendorSize = "43726906378"

var catalog = []catalogued{
	{path: imageBase + "jupyterlab-simplesdxl-webui:pytorch2.1.0-py3.10-dtk24.04-model", size: vendorSize, kind: "JupyterLab", access: "public", accelerator: "dcu", status: "Completed"},
	{path: SCNetImage, size: vendorSize, kind: "JupyterLab", access: "public", accelerator: "dcu", status: "Completed"},
	{path: imageBase + "codeserver-vllm:0.8.3-py3.10", size: vendorSize, kind: "CodeServer", access: "public", accelerator: "dcu", status: "Completed"},
	{path: SCNetUnfinishedImage, size: "7338398370", kind: "JupyterLab", access: "public", accelerator: "dcu", status: "Building"},
	{path: gpuImageBase + "jupyterlab-pytorch:2.4.1-py3.11-cuda12.1", size: "8804682956", kind: "JupyterLab", access: "public", accelerator: "gpu", status: "Completed"},
	{path: SCNetGPUImage, size: "9126805504", kind: "JupyterLab", access: "public", accelerator: "gpu", status: "Completed"},
	{path: gpuImageBase + "codeserver-vllm:0.9.1-py3.12-cuda12.4", size: "15032385536", kind: "CodeServer", access: "public", accelerator: "gpu", status: "Completed"},
	{path: SCNetDistantImage, size: "4026531840", kind: "RStudio", access: "public", accelerator: "dcu", status: "Completed", region: "20057"},
	{path: SCNetPrivateImage, size: "12884901888", kind: "Base", access: "private", accelerator: "dcu", status: "Completed"},
	{path: SCNetModelImage, size: "21474836480", kind: "JupyterLab", access: "public", accelerator: "dcu", status: "Completed", model: true},
}

func sizeOf(path string) string {
	if i := slices.IndexFunc(catalog, func(x catalogued) bool { return x.path == path }); i >= 0 {
		return catalog[i].size
	}
	return vendorSize
}

// show is an image as the lists have it.
func (x catalogued) show() map[string]any {
	version := x.path[strings.LastIndex(x.path, "/")+1:]
	name, tag, _ := strings.Cut(version, ":")
	id := sha256.Sum256([]byte(x.path))
	row := map[string]any{
		"id": hex.EncodeToString(id[:16]), "name": name, "tag": tag, "path": x.path, "version": version, "imageSize": x.size, "type": x.kind,
		"access": x.access, "acceleratorType": x.accelerator, "status": x.status, "description": nil, "createTime": "2026-03-02 12:10:20",
		"user": "simulated", "cloneTimes": 3, "isPresetImage": x.access == "public",
	}
	if x.model {
		delete(row, "name")
	}
	return row
}

// ledger is what was done to which notebooks, in order.
type ledger struct {
	mu  sync.Mutex // guards ids
	ids []string
}

func (l *ledger) add(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ids = append(l.ids, id)
}

func (l *ledger) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.ids)
}

// Created returns the notebooks that were created over the API, in order.
func (c *SCNet) Created() []string { return c.created.all() }

// Released returns the notebooks that were released over the API, in order.
func (c *SCNet) Released() []string { return c.released.all() }

// status also shows what was created and released.
func (c *SCNet) status() map[string]any {
	out := c.simulator.status()
	out["created"], out["released"] = c.Created(), c.Released()
	return out
}

func (p *place) free(s SCNetSettings, g group) int { return max(s.Pool-p.used(g), 0) }

// arguments are the members of a body, of which problem says by a code what is
// wrong with the first that is.
type arguments struct {
	raw     map[string]json.RawMessage
	problem string
}

func bodyOf(r *http.Request) *arguments {
	a := &arguments{}
	data, err := io.ReadAll(r.Body) // is in memory
	if err != nil || json.Unmarshal(data, &a.raw) != nil || a.raw == nil {
		a.blame(codeInvalid)
	}
	return a
}

func (a *arguments) blame(code string) {
	if a.problem == "" {
		a.problem = code
	}
}

// read reads one member as the type of into, and reports whether it is there.
func (a *arguments) read(name string, into any) bool {
	raw, ok := a.raw[name]
	if !ok || string(raw) == "null" {
		return false
	}
	if json.Unmarshal(raw, into) != nil {
		a.blame(codeInvalid)
	}
	return true
}

// need is a text that has to be there.
func (a *arguments) need(name string) (text string) {
	if !a.read(name, &text) || text == "" && a.problem == "" {
		a.blame(codeMissing)
	}
	return text
}

// may is a text that need not be there.
func (a *arguments) may(name string) (text string) {
	a.read(name, &text)
	return text
}

// oneOf is a text that has to be one of some words.
func (a *arguments) oneOf(name string, words ...string) string {
	text := a.need(name)
	if !slices.Contains(words, text) {
		a.blame(codeInvalid)
	}
	return text
}

// number is a number that has to be there and to be at least least.
func (a *arguments) number(name string, least int) (n int) {
	if !a.read(name, &n) {
		a.blame(codeMissing)
	} else if n < least {
		a.blame(codeInvalid)
	}
	return n
}

// flag is a boolean that changes nothing here.
func (a *arguments) flag(name string) { a.read(name, new(bool)) }

// refused is the answer to a body that is wrong.
func (c *SCNet) refused(s SCNetSettings, r *http.Request, code string) reply {
	text := map[string]string{
		codeMissing: "param_incomplete", codeInvalid: "param_invalid", codeTask: "task create error", codeStopped: "the notebook is stopped already",
		"818218": "compute user does not exist",
	}[code]
	return c.refuse(s, code, text, r.Header.Get("token"))
}

// posted reads a body. It reports false, with the answer, when there is none.
func (c *SCNet) posted(r *http.Request) (*arguments, reply, bool) {
	if kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); kind != "application/json" {
		return nil, reply{
			status: http.StatusUnsupportedMediaType, header: http.Header{"Content-Type": {"text/plain"}}, body: []byte("Unsupported Media Type\n"),
		}, false
	}
	return bodyOf(r), reply{}, true
}

// concerned is the region that a body is about, for calls with the platform's
// token: that of the named cluster, or that of the notebook.
func (c *SCNet) concerned(body []byte) string {
	var named struct {
		ClusterID  any `json:"clusterId"`
		NotebookID any `json:"notebookId"`
	}
	_ = json.Unmarshal(body, &named) // who reads the body says what is wrong with it
	if id, ok := named.ClusterID.(string); ok {
		return id
	}
	id, _ := named.NotebookID.(string)
	w := c.world
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.places {
		if _, ok := p.byID[id]; ok {
			return p.id
		}
	}
	return ""
}

var sizeForm = regexp.MustCompile(`^[0-9]+(GB)?$`)

// create makes a notebook, which is being created from then on.
func (c *SCNet) create(s SCNetSettings, r *http.Request, g grant) reply {
	a, out, ok := c.posted(r)
	if !ok {
		return out
	}
	cluster, path, name, size := a.need("clusterId"), a.need("imagePath"), a.need("imageName"), a.need("imageSize")
	kind, count, code := a.need("acceleratorType"), a.need("acceleratorNumber"), a.may("resourceGroupCode")
	a.flag("mountHome")
	a.may("startCommand")
	a.read("mountInfo", new([]struct{ SourcePath, TargetPath, Permission string }))
	cards, err := strconv.Atoi(count)
	if err != nil || cards < 1 || !sizeForm.MatchString(size) {
		a.blame(codeInvalid)
	}
	w := c.world
	m := slices.IndexFunc(w.species.models, func(m model) bool { return strings.ToUpper(m.kind) == kind })
	pool := 0
	if code != "" {
		pool = slices.IndexFunc(w.species.groups, func(g group) bool { return g.code == code })
	}
	if m < 0 || pool < 0 {
		a.blame(codeInvalid)
	}
	if a.problem == "" && cluster != g.region {
		a.blame("818218")
	}
	if a.problem == "" && noService(s.Regions[cluster]) {
		a.blame(codeTask)
	}
	if a.problem != "" {
		return c.refused(s, r, a.problem)
	}

	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.placeLocked(cluster)
	if p == nil {
		return c.refused(s, r, codeInvalid)
	}
	w.ripenLocked(p)
	doomed := s.CreateFails
	if doomed == "" {
		doomed = pullFailure(cluster, path, kind)
	}
	if p.free(s, w.species.groups[pool]) < cards {
		if s.NoCards == codeTask {
			return c.refused(s, r, codeTask)
		}
		doomed = noCards
	}
	n := w.makeLocked(p, w.now())
	n.image, n.imageName, n.cards, n.model, n.group = path, name, cards, w.species.models[m], w.species.groups[pool]
	w.askLocked(n, creating, time.Duration(s.Transition), doomed)
	c.created.add(n.id)
	return c.success(map[string]string{"taskId": n.task, "notebookId": n.id})
}

const noCards = "no node has enough free cards"

// pullFailure says why an image cannot be run in a region, if it cannot.
func pullFailure(region, path, accelerator string) string {
	i := slices.IndexFunc(catalog, func(x catalogued) bool { return x.path == path && (x.region == "" || x.region == region) })
	switch {
	case i < 0 || catalog[i].status != "Completed":
		return "image pull failed: manifest for " + path + " not found: manifest unknown"
	case !strings.EqualFold(catalog[i].accelerator, accelerator):
		return "container exited with code 1: no driver for this accelerator"
	}
	return ""
}

// with does something to a notebook of a region that has to be there. The work
// returns a code, or nothing for success.
func (c *SCNet) with(s SCNetSettings, r *http.Request, region, id string, a *arguments, work func(*place, *instance) string) reply {
	w := c.world
	w.mu.Lock()
	defer w.mu.Unlock()
	code := a.problem
	if p := w.placeLocked(region); code == "" && p != nil {
		w.ripenLocked(p)
		if n, ok := p.byID[id]; ok {
			if code = work(p, n); code == "" {
				return c.success(true)
			}
		}
	}
	if code == "" {
		code = codeInvalid
	}
	return c.refused(s, r, code)
}

func (c *SCNet) start(s SCNetSettings, r *http.Request, g grant) reply {
	a, out, ok := c.posted(r)
	if !ok {
		return out
	}
	w := c.world
	return c.with(s, r, g.region, a.need("notebookId"), a, func(p *place, n *instance) string {
		if n.phase != stopped && n.phase != failed {
			return codeTask
		}
		doomed := s.StartFails
		if p.free(s, n.group) < n.cards {
			if s.NoCards == codeTask {
				return codeTask
			}
			doomed = noCards
		}
		w.startLocked(n, w.now())
		w.askLocked(n, starting, time.Duration(s.Transition), doomed)
		return ""
	})
}

func (c *SCNet) stop(s SCNetSettings, r *http.Request, g grant) reply {
	a, out, ok := c.posted(r)
	if !ok {
		return out
	}
	id := a.need("notebookId")
	a.flag("saveEnv")
	return c.with(s, r, g.region, id, a, func(_ *place, n *instance) string {
		switch {
		case n.phase == running || n.phase == starting:
			c.world.askLocked(n, stopping, time.Duration(s.Transition), "")
			return ""
		case n.phase != stopped:
			return codeTask
		case s.StopStopped == "ok":
			return ""
		}
		return s.StopStopped
	})
}

func (c *SCNet) release(s SCNetSettings, r *http.Request, g grant) reply {
	a, out, ok := c.posted(r)
	if !ok {
		return out
	}
	return c.with(s, r, g.region, a.need("id"), a, func(p *place, n *instance) string {
		c.world.removeLocked(p, n.id)
		c.released.add(n.id)
		return ""
	})
}

func (c *SCNet) rename(s SCNetSettings, r *http.Request, g grant) reply {
	a, out, ok := c.posted(r)
	if !ok {
		return out
	}
	id, name := a.need("id"), a.need("notebookName")
	return c.with(s, r, g.region, id, a, func(p *place, n *instance) string {
		if s.NamesUnique && slices.ContainsFunc(p.list, func(o *instance) bool { return o != n && o.name == name }) {
			return codeInvalid
		}
		n.name, n.updated, n.pinned = name, c.world.now(), true
		return ""
	})
}

// images lists what is public, or the account's own, by offset.
func (c *SCNet) images(s SCNetSettings, r *http.Request, g grant) reply {
	a, out, ok := c.posted(r)
	if !ok {
		return out
	}
	access := a.oneOf("access", "public", "private")
	start, limit := a.number("start", 0), a.number("limit", 1)
	a.oneOf("sort", "DESC", "ASC")
	a.oneOf("orderBy", "create_time", "share_time", "clone_times")
	name, kind, accelerator := a.may("name"), a.may("type"), a.may("acceleratorType")
	if a.problem != "" {
		return c.refused(s, r, a.problem)
	}
	rows, total := stretch(s, start, limit, func(x catalogued) bool {
		return !x.model && x.access == access && (x.region == "" || x.region == g.region) && strings.Contains(x.path[strings.LastIndex(x.path, "/")+1:], name) &&
			(kind == "" || x.kind == kind) && (accelerator == "" || strings.EqualFold(x.accelerator, accelerator))
	})
	return c.success(map[string]any{"total": total, "data": rows})
}

// modelImages lists the images that have a model in them, by page.
func (c *SCNet) modelImages(s SCNetSettings, r *http.Request, _ grant) reply {
	a, out, ok := c.posted(r)
	if !ok {
		return out
	}
	page, size, accelerator := a.number("page", 1), a.number("size", 1), a.may("acceleratorType")
	if a.problem != "" {
		return c.refused(s, r, a.problem)
	}
	if s.PageCap > 0 {
		size = min(size, s.PageCap)
	}
	rows, total := stretch(s, (page-1)*size, size, func(x catalogued) bool {
		return x.model && (accelerator == "" || strings.EqualFold(x.accelerator, accelerator))
	})
	return c.success(map[string]any{"total": total, "records": rows})
}

// stretch is a part of the catalog, and how many match in all.
func stretch(s SCNetSettings, start, limit int, match func(catalogued) bool) (rows []map[string]any, total int) {
	if s.PageCap > 0 {
		limit = min(limit, s.PageCap)
	}
	rows = []map[string]any{}
	for _, x := range catalog {
		if !match(x) {
			continue
		}
		if total >= start && total-start < limit {
			rows = append(rows, x.show())
		}
		total++
	}
	return rows, total
}

// resources lists the pools of the named regions.
func (c *SCNet) resources(s SCNetSettings, r *http.Request, g grant) reply {
	ids := r.URL.Query().Get("clusterIds")
	if ids == "" {
		return c.refused(s, r, codeMissing)
	}
	rows := []map[string]any{}
	w := c.world
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range strings.Split(ids, ",") {
		p := w.placeLocked(id)
		if p == nil {
			return c.refused(s, r, codeInvalid)
		}
		if g.region != "0" && g.region != id {
			return c.refused(s, r, "818218")
		}
		w.ripenLocked(p)
		number, _ := strconv.Atoi(id)
		for i, pool := range w.species.groups {
			m := w.species.models[i%len(w.species.models)]
			rows = append(rows, map[string]any{
				"id": pool.id, "resourceGroupCode": pool.code, "resourceGroupName": pool.code, "clusterId": number, "clusterName": regionNames[id],
				"maxNum": 8, "maxFreeNum": min(p.free(s, pool), 8), "cpuNumber": "10核", "ramSize": "220GB", "resourceId": pool.id,
				"resourceType": strings.ToUpper(m.kind), "resourceName": m.name, "resourceSpec": "{}",
			})
		}
	}
	return c.success(rows)
}
