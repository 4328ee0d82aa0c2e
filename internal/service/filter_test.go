package service

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.einride.tech/aip/filtering"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/web/sentences"
)

func at(text string) *timestamppb.Timestamp {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		panic(err)
	}
	return timestamppb.New(t)
}

// filterNotebooks are what the table of filters is matched with, by a letter:
// one with everything, one with messages that hold next to nothing, and one
// with nothing but its name.
func filterNotebooks() map[string]*notebookv1.Notebook {
	return map[string]*notebookv1.Notebook{
		"f": {
			Name: "clouds/coreshub-a/locations/xb3/notebooks/nb-1", DisplayName: "Train PyTorch", State: notebookv1.Notebook_STATE_RUNNING,
			CloudState: "Running", StateMessage: "a \"quoted\" word, (and) a *", ServerType: "jupyter", Namespace: "ns-1", OwnerId: "u-7", RootOwnerId: "acc-1",
			CreateTime: at("2026-01-31T08:00:00Z"), UpdateTime: at("2026-02-01T00:00:00.5Z"), ObserveTime: at("2026-02-02T00:00:00Z"),
			StopTime: at("2026-03-01T00:00:00Z"), ExpireTime: at("2026-04-01T00:00:00Z"), Progress: proto.Float64(99.5), Etag: "e1",
			Image:     &notebookv1.Image{Uri: "hub.example.com:5000/ml/pytorch:2.1-cuda12", DisplayName: "PyTorch 2.1", Type: "official", SizeBytes: 1 << 60},
			Resources: &notebookv1.Resources{CpuCores: 7.5, MemoryBytes: 64 << 30, Accelerator: &notebookv1.Accelerator{Type: "gpu", Model: "RTX 4090", Count: 4, AvailableCount: proto.Int32(0), MaxCount: proto.Int32(8)}},
			ResourceGroup: &notebookv1.ResourceGroup{
				Id: "rg-1", Code: "4090x",
			},
			Endpoints: &notebookv1.Endpoints{ServiceIp: "10.0.0.1", ServiceUrl: "https://nb.example.com/1", SshUrl: "ssh://nb.example.com:2222", CustomPort: 8080},
			Mirrors:   &notebookv1.Mirrors{Pip: "https://pip.example.com", Conda: "c", Apt: "a"},
			EnvNames:  []string{"HF_HOME", "PATH"},
			Attributes: map[string]string{
				"charge_mode": "monthly", "key.with.dots": "x", "empty": "", "kebab-key": "yes", "AND": "odd", "größe": "9",
			},
		},
		"m": {
			Name: "clouds/scnet/locations/11250/notebooks/m", DisplayName: "", State: notebookv1.Notebook_STATE_STOPPED,
			Image: &notebookv1.Image{}, Resources: &notebookv1.Resources{Accelerator: &notebookv1.Accelerator{Type: "dcu"}},
			Progress: proto.Float64(0), CreateTime: at("1970-01-01T00:00:00Z"), Attributes: map[string]string{"charge_mode": "hourly"},
		},
		"n": {Name: "clouds/scnet/locations/11250/notebooks/n"},
	}
}

// filterCases are filters and the letters of what they match.
var filterCases = []struct{ filter, want string }{
	{"", "fmn"},
	{" \t\n ", "fmn"},

	// States.
	{"state = RUNNING", "f"},
	{"state = STATE_RUNNING", "f"},
	{`state = "RUNNING"`, "f"},
	{"state='STATE_RUNNING'", "f"},
	{"state != RUNNING", "mn"},
	{"state:STOPPED", "m"},
	{"state = UNSPECIFIED", "n"},
	{"state:*", "fm"},
	{"NOT state:*", "n"},

	// Logic.
	{"state = RUNNING OR state = STOPPED", "fm"},
	{"state = RUNNING AND state = STOPPED", ""},
	{"state = RUNNING state = STOPPED", ""},
	{"state = RUNNING cloud = coreshub-a", "f"},
	{"NOT state = RUNNING", "mn"},
	{"-state = RUNNING", "mn"},
	{"NOT (state = RUNNING)", "mn"},
	{"NOT(state = RUNNING)", "mn"},
	{"-(state = RUNNING OR state = STOPPED)", "n"},
	{"( state = RUNNING )", "f"},
	{"((((state = RUNNING))))", "f"},
	{"(state = RUNNING)AND(cloud = coreshub-a)", "f"},
	{"(state = RUNNING)(cloud = scnet)", ""},
	// OR binds tighter than AND.
	{"cloud = scnet AND state = RUNNING OR state = STOPPED", "m"},
	{"state = RUNNING OR cloud = scnet AND state = STOPPED", "m"},
	{"state = RUNNING OR (cloud = scnet AND state = STOPPED)", "fm"},
	{"cloud = scnet state = RUNNING OR state = STOPPED", "m"},
	{"NOT state = RUNNING OR state = RUNNING", "fmn"},
	{"NOT state = RUNNING AND NOT state = STOPPED", "n"},
	{"NOT (NOT state = RUNNING)", "f"},
	{"-(-(-state = RUNNING))", "mn"},
	{"state\n=\tRUNNING\r\nOR  state  =  STOPPED", "fm"},

	// Names and what is read from them.
	{"name = clouds/scnet/locations/11250/notebooks/m", "m"},
	{`name = "clouds/scnet/*"`, "mn"},
	{"name = clouds/*/locations/*/notebooks/n*", "fn"},
	{"cloud = scnet", "mn"},
	{"cloud != scnet", "f"},
	{"cloud = coreshub-a", "f"},
	{"cloud = sc*", "mn"},
	{"cloud:CORES", "f"},
	{"location = 11250", "mn"},
	{"location = xb3", "f"},
	{"location = 112", ""},
	{"location:*", "fmn"},

	// Texts.
	{`display_name = "Train PyTorch"`, "f"},
	{`displayName = "Train PyTorch"`, "f"},
	{`"display_name" = "Train PyTorch"`, "f"},
	{`display_name = "train pytorch"`, ""},
	{`display_name = "*PyTorch*"`, "f"},
	{"display_name = *PyTorch", "f"},
	{"display_name = Train*", "f"},
	{"display_name = T*P*h", "f"},
	{"display_name = T*P*x*h", ""},
	{"display_name = **", "fmn"},
	{"display_name = Train*Train*", ""},
	{"display_name:pytorch", "f"},
	{"display_name:TRAIN*TORCH", "f"},
	{"display_name:torch*train", ""},
	{`display_name = ""`, "mn"},
	{`display_name != ""`, "f"},
	{`display_name:""`, "fmn"},
	{"display_name:*", "f"},
	{`display_name < "U"`, "fmn"},
	{`display_name >= "Train PyTorch"`, "f"},
	{`display_name > "Train PyTorch"`, ""},
	{`display_name <= "T*"`, "mn"}, // no wildcard here: * sorts before r
	{"cloud_state = Running", "f"},
	{`state_message = "a \"quoted\" word, (and) a *"`, "f"},
	{`state_message:'"QUOTED"'`, "f"},
	{`state_message:"\u0028and\x29"`, "f"},
	{"server_type=jupyter namespace=ns-1 owner_id=u-7 root_owner_id=acc-1 etag=e1", "f"},

	// Texts of messages: unset where the message is.
	{"image.uri = hub.example.com:5000/ml/pytorch:2.1-cuda12", "f"},
	{`image.uri = "*pytorch*"`, "f"},
	{"image.uri:PyTorch", "f"},
	{"image.uri:2.1", "f"},
	{"image.displayName = PyTorch*", "f"},
	{"image.type != official", "mn"},
	{"NOT image.type = official", "mn"},
	{`image.uri = ""`, "m"},
	{`image.uri != ""`, "fn"},
	{`image.uri < "z"`, "fm"},
	{"image.uri:*", "f"},
	{"image:*", "fm"},
	{"NOT image:*", "n"},
	{"resources.accelerator:* resources:*", "fm"},
	{"endpoints.service_ip = 10.0.0.1", "f"},
	{"endpoints.serviceUrl:example.com endpoints.ssh_url:2222 mirrors.pip:pip mirrors.conda=c mirrors.apt=a", "f"},
	{"resource_group.code = 4090x", "f"},
	{"resourceGroup.id = rg-1", "f"},
	{"resources.accelerator.model = *4090", "f"},
	{`resources.accelerator.type = "gpu" OR resources.accelerator.type = "dcu"`, "fm"},

	// Numbers.
	{"resources.accelerator.count >= 1", "f"},
	{"resources.accelerator.count>=4", "f"},
	{"resources.accelerator.count > 4", ""},
	{"resources.accelerator.count < 1", "m"},
	{"resources.accelerator.count = 0", "m"},
	{"resources.accelerator.count != 0", "fn"},
	{"resources.accelerator.count > -1", "fm"},
	{"resources.accelerator.count = 4.0", "f"},
	{"resources.accelerator.count > 3.5", "f"},
	{"resources.accelerator.count < 4.5", "fm"},
	{`resources.accelerator.count = "4"`, "f"},
	{"resources.accelerator.count:4", "f"},
	{"resources.accelerator.count:*", "f"},
	{"resources.accelerator.count < 1e300", "fm"},
	{"resources.accelerator.count > -1e300", "fm"},
	{"resources.accelerator.availableCount = 0", "f"},
	{"resources.accelerator.available_count:*", "f"},
	{"resources.accelerator.available_count != 0", "mn"},
	{"resources.accelerator.max_count >= 8", "f"},
	{"resources.cpu_cores = 7.5", "f"},
	{"resources.cpuCores > 7", "f"},
	{"resources.cpu_cores < .5", "m"},
	{"resources.memory_bytes >= 68719476736", "f"},
	{"resources.memory_bytes >= 6e10", "f"},
	{"image.size_bytes = 1152921504606846976", "f"},
	{"image.size_bytes > 1152921504606846975", "f"},
	{"image.size_bytes = 1152921504606846977", ""},
	{"image.size_bytes < 9223372036854775808", "fm"},
	{"image.size_bytes > -9223372036854775809", "fm"},
	{"endpoints.custom_port = 8080", "f"},
	{"progress > 50", "f"},
	{"progress = 0", "m"},
	{"progress:*", "fm"},
	{"progress != 0", "fn"},
	{"NOT progress < 50", "fn"},

	// Times.
	{"create_time = 2026-01-31T08:00:00Z", "f"},
	{`create_time = "2026-01-31T16:00:00+08:00"`, "f"},
	{"createTime:2026-01-31T16:00:00+08:00", "f"},
	{"create_time > 2026-01-31T07:59:59.999999999Z", "f"},
	{"create_time > 2026-01-31T08:00:00Z", ""},
	{"create_time >= 2026-01-31T08:00:00Z", "f"},
	{"create_time < 2026-01-31T08:00:00Z", "m"},
	{"create_time <= 2026-01-31T08:00:00Z", "fm"},
	{"create_time != 2026-01-31T08:00:00Z", "mn"},
	{"NOT create_time < 2026-01-31T08:00:00Z", "fn"},
	{"create_time:*", "fm"},
	{"-create_time:*", "n"},
	{"update_time = 2026-02-01T00:00:00.5Z observe_time:* stop_time:* expire_time < 2026-04-02T00:00:00Z", "f"},
	{"(create_time<2026-01-01T00:00:00Z)", "m"},

	// Lists and maps.
	{"env_names:HF_HOME", "f"},
	{"envNames:HF_*", "f"},
	{"env_names:hf_home", ""},
	{"env_names:*", "f"},
	{"NOT env_names:*", "mn"},
	{"attributes:charge_mode", "fm"},
	{"attributes:*", "fm"},
	{"attributes:key.with.dots", "f"},
	{"attributes.charge_mode = monthly", "f"},
	{"attributes.charge_mode != monthly", "mn"},
	{"attributes.charge_mode:HOUR", "m"},
	{"attributes.charge_mode < i", "m"},
	{"attributes.charge_mode:*", "fm"},
	{`attributes."key.with.dots" = x`, "f"},
	{"attributes.key.with.dots = x", "f"},
	{"attributes.kebab-key = yes", "f"},
	{"attributes.AND = odd", "f"},
	{`attributes."größe" = 9`, "f"},
	{"attributes.größe = 9", "f"},
	{`attributes.empty = ""`, "f"},
	{"attributes.empty:*", "f"},
	{"attributes.none:*", ""},
	{`attributes.none = ""`, ""},
	{`attributes.none != ""`, "fmn"},
	{"attributes.chargeMode:*", ""}, // keys are the cloud's, not ours

	// Texts that stand alone.
	{"pytorch", "f"},
	{`"train pytorch"`, "f"},
	{"2.1-cuda12", "f"},
	{"2.1", "f"},
	{"-2.1", "mn"},
	{"4090", ""},
	{"hub.example.com", "f"},
	{"train pytorch xb3", "f"},
	{"train -pytorch", ""},
	{"scnet NOT notebooks/n", "m"},
	{"torch*cuda", "f"},
	{"\ufffd", ""},
	{"state", ""},
	{`"and"`, ""},
	{`"AND"`, ""},
	{`""`, "fmn"},
}

func TestFilterMatch(t *testing.T) {
	notebooks := filterNotebooks()
	for _, c := range filterCases {
		f, err := parseFilter(c.filter)
		if err != nil {
			t.Errorf("parse %q: %v", c.filter, err)
			continue
		}
		got := ""
		for _, letter := range []string{"f", "m", "n"} {
			if f.match(notebooks[letter]) {
				got += letter
			}
		}
		if got != c.want {
			t.Errorf("%q matches %q, want %q", c.filter, got, c.want)
		}
		checkKey(t, f)
	}
}

// checkKey checks that the key of a filter is a filter with the same key that
// matches the same.
func checkKey(tb testing.TB, f *filter[*notebookv1.Notebook]) {
	tb.Helper()
	again, err := parseFilter(f.key())
	if err != nil {
		if strings.Contains(err.Error(), "too long") || strings.Contains(err.Error(), "more than") {
			return // a key has more parentheses and escapes than what it was made of
		}
		tb.Errorf("key %q: %v", f.key(), err)
		return
	}
	if again.key() != f.key() {
		tb.Errorf("key %q has the key %q", f.key(), again.key())
	}
	for letter, n := range filterNotebooks() {
		if f.match(n) != again.match(n) {
			tb.Errorf("key %q matches %s otherwise", f.key(), letter)
		}
	}
}

func TestFilterTotal(t *testing.T) {
	for _, c := range filterCases {
		f, err := parseFilter(c.filter)
		if err != nil || c.filter == "" || strings.TrimSpace(c.filter) == "" {
			continue
		}
		opposite, err := parseFilter("NOT (" + c.filter + ")")
		if err != nil {
			t.Errorf("NOT (%s): %v", c.filter, err)
			continue
		}
		for letter, n := range filterNotebooks() {
			if f.match(n) == opposite.match(n) {
				t.Errorf("%q and its opposite are the same for %s", c.filter, letter)
			}
		}
		f.match(nil)
		f.match(&notebookv1.Notebook{Name: "odd", Progress: proto.Float64(math.NaN()), CreateTime: &timestamppb.Timestamp{Seconds: math.MinInt64, Nanos: -1}})
	}
	var none *filter[*notebookv1.Notebook]
	if !none.match(nil) || none.key() != "" {
		t.Error("no filter does not match all")
	}
	nan := &notebookv1.Notebook{Progress: proto.Float64(math.NaN())}
	for text, want := range map[string]bool{"progress < 1": false, "progress >= 1": false, "progress != 1": true, "progress:*": false} {
		if f, err := parseFilter(text); err != nil || f.match(nan) != want {
			t.Errorf("%q of NaN is not %v (%v)", text, want, err)
		}
	}
}

func TestFilterKey(t *testing.T) {
	for _, same := range [][]string{
		{"", " ", "\n"},
		{"state = RUNNING", "state=RUNNING", " ( state\t= 'RUNNING' ) "},
		{`display_name = "a b"`, `displayName='a b'`, `((displayName = "a\x20b"))`},
		{"a AND b c", "a b c", "(a) b AND c", "a\nb\tc"},
		{"a OR b AND c", "(a OR b) c"},
		{"-a", "NOT a", "NOT(a)"},
		{"attributes.a.b = c", `attributes."a.b" = "c"`},
		{"state = RUNNING", "state = STATE_RUNNING", `state = "STATE_RUNNING"`},
		{"NOT state:STATE_STOPPED", "-state:STOPPED"},
	} {
		var want string
		for i, text := range same {
			f, err := parseFilter(text)
			if err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			if i == 0 {
				want = f.key()
			} else if f.key() != want {
				t.Errorf("%q has the key %q, want %q", text, f.key(), want)
			}
		}
	}
	seen := map[string]string{}
	for _, text := range []string{
		"", "a", "a b", "a OR b", "NOT a", `"a b"`, "NOT a b", "NOT (a b)", "a (b OR c)", "(a b) OR c", `attributes.a = "b"`, `attributes."a = \"b" = ""`,
		"state = RUNNING", "state != RUNNING", "state:RUNNING", "name:a", `name = "a"`, `"name = \"a\""`,
	} {
		f, err := parseFilter(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if before, ok := seen[f.key()]; ok {
			t.Errorf("%q and %q have the same key %q", before, text, f.key())
		}
		seen[f.key()] = text
	}
}

func TestFilterErrors(t *testing.T) {
	for _, c := range []struct {
		filter   string
		position int
		field    string
		problem  string // a part of it
	}{
		{"state = RUNS", 8, "state", `"RUNS" is none of STATE_UNSPECIFIED, STATE_CREATING, STATE_STARTING, STATE_RUNNING`},
		{"state = running", 8, "state", "is none of"},
		{"state = 3", 8, "state", "is none of"},
		{"state < RUNNING", 6, "state", "cannot be compared by <, it takes = != :"},
		{"  ståte = RUNNING", 2, "ståte", "no such field"},
		{"ü AND stat = RUNNING", 7, "stat", "the fields are attributes, cloud, cloud_state, create_time"},
		{"image.url = x", 0, "image.url", "image has display_name, size_bytes, type, uri"},
		{"a AND resources.accelerator.cnt = 1", 6, "resources.accelerator.cnt", "resources.accelerator has available_count, count"},
		{"name.x = 1", 0, "name.x", "no such field"},
		{"PYTORCH:2.1", 0, "PYTORCH", "quote a text that holds a comparator"},
		{"image = x", 6, "image", "it takes :* for whether it is set"},
		{"image:uri", 6, "image", "takes only :*"},
		{"env_names = A", 10, "env_names", "it takes : for whether"},
		{"attributes = A", 11, "attributes", "attributes:KEY"},
		{"create_time > yesterday", 14, "create_time", `"yesterday" is not a time like 2026-01-31T08:00:00Z`},
		{"create_time > 2026-01-31", 14, "create_time", "is not a time"},
		{"createTime>2026-01-31T25:00:00Z", 11, "create_time", "is not a time"},
		{"resources.accelerator.count > many", 30, "resources.accelerator.count", `"many" is not a number`},
		{"progress > Inf", 11, "progress", "is not a number"},
		{"progress > 0x1p4", 11, "progress", "is not a number"},
		{"progress > 1e999", 11, "progress", "is not a number"},
		{"resources.cpu_cores = *", 22, "resources.cpu_cores", "is not a number"},

		{"state =", 7, "", "a value is expected, not the end"},
		{"state = = RUNNING", 8, "", `a value is expected, not "="`},
		{"state == RUNNING", 7, "", "a value is expected"},
		{"state = OR", 8, "", "quote the word"},
		{"state = - x", 8, "", "a value is expected"},
		{"state = (RUNNING OR STOPPED)", 8, "", "repeat the comparison"},
		{"name = a=b", 8, "", "quote a text that holds it"},
		{"name = a,b", 8, "", "quote a text that holds it"},
		{"name = 'a'b", 10, "", "white space is expected"},
		{"name::x", 5, "", "a value is expected"},
		{"= x", 0, "", "a field, a text or ( is expected"},
		{"a AND", 5, "", "not the end"},
		{"a OR", 4, "", "not the end"},
		{"AND a", 0, "", `not "AND"`},
		{"a AND AND b", 6, "", `not "AND"`},
		{"NOT", 3, "", "not the end"},
		{"NOT NOT a", 4, "", `not "NOT"`},
		{"NOT -a", 4, "", `not "-"`},
		{"--a", 1, "", `not "-"`},
		{"- a", 0, "", "has to follow at once"},
		{"NOT.a", 3, "", "white space is missing after NOT"},
		{"()", 1, "", `not ")"`},
		{"(a", 0, "", "is not closed"},
		{"a AND (b OR (c)", 6, "", "is not closed"},
		{"(a))", 3, "", "closes nothing"},
		{"a)", 1, "", "closes nothing"},
		{")", 0, "", `not ")"`},
		{"a.", 2, "", "is expected, not the end"},
		{"a. b", 3, "", "right after the dot"},
		{"a.=b", 2, "", "is expected"},
		{"timestamp(\"x\")", 9, "", "there are no functions"},
		{"a and b", 2, "", "written in capitals"},
		{"a || b", 2, "", "written in capitals"},
		{"a ! b", 2, "", `not "!"`},
		{`name = "a`, 7, "", "is not closed"},
		{"name = 'a", 7, "", "is not closed"},
		{`name = "\q"`, 7, "", "no escape"},
		{`"\q"`, 0, "", "no escape"},
		{"name = \"a\xffb\"", 9, "", "not valid UTF-8"},
		{"\xff", 0, "", "not valid UTF-8"},
		{"\ufffd\xff", 3, "", "not valid UTF-8"},
		{strings.Repeat("(", maxFilterDepth+1) + "a", maxFilterDepth, "", "more than 100 parentheses"},
		{strings.Repeat("a ", maxFilterTerms+1), 2 * maxFilterTerms, "", "more than 200 terms"},
		{strings.Repeat("a", maxFilterBytes+1), 0, "", "too long"},
		{"state = " + strings.Repeat("x", 1000), 8, "state", strings.Repeat("x", 40) + `…"`},
		{"image" + strings.Repeat(".a", 8000) + " = x", 0, "image" + strings.Repeat(".a", 17) + ".…", "image has"},
		{strings.Repeat("ü", 1000) + " = x", 0, strings.Repeat("ü", 40) + "…", "no such field"},
	} {
		_, err := parseFilter(c.filter)
		var got *filterError
		if !errors.As(err, &got) {
			t.Errorf("parse %.60q: %v", c.filter, err)
			continue
		}
		if got.Position != c.position || got.Field != c.field || !strings.Contains(got.Problem, c.problem) {
			t.Errorf("parse %.60q: %#v, want position %d, field %q, problem with %q", c.filter, got, c.position, c.field, c.problem)
		}
		if !strings.Contains(got.Error(), "at position "+strconv.Itoa(c.position)) {
			t.Errorf("%q does not name the position", got.Error())
		}
		inChinese(t, got.Error())
	}
}

// inChinese checks that there is Chinese for a fault, all of it.
func inChinese(t *testing.T, fault string) {
	t.Helper()
	zh, ok := sentences.Chinese(fault)
	plain := regexp.MustCompile(`"(?:[^"\\\\]|\\\\.)*"`).ReplaceAllString(zh, "")
	if !ok || regexp.MustCompile(`[a-z] (?:is|are|not|the|of|for|has|may) `).MatchString(plain) {
		t.Errorf("%.200q is %.200q in Chinese", fault, zh)
	}
}

// TestFilterLimits checks that what is just within the bounds is understood.
func TestFilterLimits(t *testing.T) {
	for _, text := range []string{
		strings.Repeat("(", maxFilterDepth) + "a" + strings.Repeat(")", maxFilterDepth),
		strings.Repeat("NOT (", maxFilterDepth) + "a" + strings.Repeat(")", maxFilterDepth),
		strings.Repeat("(a) ", maxFilterTerms),
		"a" + strings.Repeat(" OR a", maxFilterTerms-1),
		"attributes" + strings.Repeat(".a", 2000) + " = x",
		"name = " + strings.Repeat("*a", 2000),
		strings.Repeat("𝄞", 4096),
	} {
		if _, err := parseFilter(text); err != nil {
			t.Errorf("parse %.60q: %v", text, err)
		}
	}
}

// TestFilterFields checks the table of fields against the contract: each field
// of Notebook is there, under both spellings, and reads what it says.
func TestFilterFields(t *testing.T) {
	checkFields(t, &notebookSchema, func() *notebookv1.Notebook { return &notebookv1.Notebook{} }, nil)
}

// TestFilterFieldsOfImageChange checks the same of ImageChange. A new field has
// to be given to the filter, or named here.
func TestFilterFieldsOfImageChange(t *testing.T) {
	checkFields(t, &imageChangeSchema, func() *notebookv1.ImageChange { return &notebookv1.ImageChange{} }, []string{
		"steps",    // sentences for people
		"warnings", // sentences too; those that were accepted are in acknowledged
	})
}

// checkFields checks that a schema has all fields of a message but those that
// are left out, the fields of messages in it, cloud and location, and no others.
func checkFields[T proto.Message](t *testing.T, schema *filterSchema[T], empty func() T, leftOut []string) {
	t.Helper()
	paths := []string{"cloud", "location"}
	check := func(text string, m T, want bool) {
		t.Helper()
		f, err := schema.parse(text)
		switch {
		case err != nil:
			t.Errorf("%s: %v", text, err)
		case f.match(m) != want:
			t.Errorf("%s: %v", text, !want)
		}
	}
	var walk func(d protoreflect.MessageDescriptor, path, jsonPath string, in func(T) protoreflect.Message)
	walk = func(d protoreflect.MessageDescriptor, path, jsonPath string, in func(T) protoreflect.Message) {
		for i := range d.Fields().Len() {
			fd := d.Fields().Get(i)
			p, j := path+string(fd.Name()), jsonPath+fd.JSONName()
			if slices.Contains(leftOut, p) {
				leftOut = slices.DeleteFunc(slices.Clone(leftOut), func(out string) bool { return out == p })
				continue
			}
			paths = append(paths, p)
			m := empty()
			check(p+":*", m, false)
			parent := in(m)
			value := ""
			switch {
			case fd.IsMap():
				parent.Mutable(fd).Map().Set(protoreflect.ValueOfString("k").MapKey(), protoreflect.ValueOfString("v"))
			case fd.IsList() && fd.Kind() == protoreflect.StringKind:
				parent.Mutable(fd).List().Append(protoreflect.ValueOfString("v"))
				check(p+":v", m, true)
				check(p+":w", m, false)
			case fd.IsList():
				t.Errorf("%s: a kind of list that the test does not know", p)
			case fd.Kind() == protoreflect.MessageKind && fd.Message().FullName() == "google.protobuf.Timestamp":
				parent.Set(fd, protoreflect.ValueOfMessage(at("2026-01-01T00:00:00Z").ProtoReflect()))
				value = "2026-01-01T00:00:00Z"
			case fd.Kind() == protoreflect.MessageKind:
				parent.Mutable(fd)
				walk(fd.Message(), p+".", j+".", func(m T) protoreflect.Message { return in(m).Mutable(fd).Message() })
			case fd.Kind() == protoreflect.StringKind:
				parent.Set(fd, protoreflect.ValueOfString("v"))
				value = "v"
			case fd.Kind() == protoreflect.BoolKind:
				parent.Set(fd, protoreflect.ValueOfBool(true))
				value = "true"
			case fd.Kind() == protoreflect.EnumKind:
				parent.Set(fd, protoreflect.ValueOfEnum(1))
				value = string(fd.Enum().Values().Get(1).Name())
				check(p+" = "+strings.TrimPrefix(value, strings.TrimSuffix(string(fd.Enum().Values().Get(0).Name()), "UNSPECIFIED")), m, true)
			case fd.Kind() == protoreflect.DoubleKind:
				parent.Set(fd, protoreflect.ValueOfFloat64(7))
				value = "7"
			case fd.Kind() == protoreflect.Int32Kind:
				parent.Set(fd, protoreflect.ValueOfInt32(7))
				value = "7"
			case fd.Kind() == protoreflect.Int64Kind:
				parent.Set(fd, protoreflect.ValueOfInt64(7))
				value = "7"
			default:
				t.Errorf("%s: a kind of field that the test does not know", p)
			}
			check(p+":*", m, true)
			check(j+":*", m, true)
			if value != "" {
				check(p+" = "+value, m, true)
				check(j+" = "+value, m, true)
				check(p+" != "+value, m, false)
				check(p+" = "+value, empty(), false)
				check(p+" != "+value, empty(), true)
			}
		}
	}
	walk(empty().ProtoReflect().Descriptor(), "", "", func(m T) protoreflect.Message { return m.ProtoReflect() })
	if len(leftOut) > 0 {
		t.Errorf("there are no fields %q to leave out", leftOut)
	}
	var known []string
	for path := range schema.fields {
		known = append(known, path)
	}
	slices.Sort(paths)
	slices.Sort(known)
	if diff := cmp.Diff(paths, known); diff != "" {
		t.Errorf("fields (-contract +filter):\n%s", diff)
	}
}

// filterChanges are what filters of image changes are matched with, by a
// letter: one that was made, one that failed, and one with nothing.
func filterChanges() map[string]*notebookv1.ImageChange {
	return map[string]*notebookv1.ImageChange{
		"s": {
			Name: "imageChanges/0190", Notebook: "clouds/scnet/locations/11250/notebooks/a", NewNotebook: "clouds/scnet/locations/11250/notebooks/b",
			FromImage: "hub/old:1", ToImage: "hub/PyTorch:2", ImageType: "custom", Phase: notebookv1.ImageChange_PHASE_SUCCEEDED,
			Principal: "10.0.0.1", Reason: "CUDA 12", RequestId: "1f0e", CloudRequestId: "cr-1", Sent: true,
			CreateTime: at("2026-01-31T08:00:00Z"), UpdateTime: at("2026-01-31T08:01:00Z"),
			Acknowledged: []string{"NOTEBOOK_REPLACED", "NOTEBOOK_RUNNING"},
			Warnings:     []*notebookv1.ImageChange_Warning{{Code: "NOTEBOOK_RUNNING", Message: "unsearched"}}, Steps: []string{"unsearched"},
		},
		"f": {
			Name: "imageChanges/0191", Notebook: "clouds/coreshub-a/locations/xb3/notebooks/a", ToImage: "hub/none", Phase: notebookv1.ImageChange_PHASE_FAILED,
			Principal: "10.0.0.2", CreateTime: at("2026-02-01T08:00:00Z"), Failure: &notebookv1.ImageChange_Failure{
				Reason: notebookv1.ErrorReason_ERROR_REASON_CLOUD_REJECTED, Message: "the cloud refused it", CloudCode: "1400",
			},
		},
		"e": {},
	}
}

func TestFilterImageChanges(t *testing.T) {
	changes := filterChanges()
	for _, c := range []struct{ filter, want string }{
		{"", "sfe"},
		{"phase = SUCCEEDED", "s"},
		{"phase = PHASE_SUCCEEDED", "s"},
		{"phase = SUCCEEDED OR phase = FAILED", "sf"},
		{"phase != SUCCEEDED", "fe"},
		{"NOT phase:*", "e"},
		{"sent = true", "s"},
		{`sent = "false"`, "fe"},
		{"sent != true", "fe"},
		{"sent != false", "s"},
		{"sent:true", "s"},
		{"sent:*", "s"},
		{"-sent:*", "fe"},
		{"cloud = scnet", "s"},
		{"location = xb3", "f"},
		{"cloud:*", "sf"},
		{"notebook = clouds/scnet/locations/*", "s"},
		{"newNotebook:*", "s"},
		{"from_image = hub/old:1 to_image:pytorch image_type = custom request_id = 1f0e cloudRequestId = cr-1", "s"},
		{"principal = 10.0.0.*", "sf"},
		{`reason = "CUDA 12"`, "s"},
		{"create_time >= 2026-02-01T00:00:00Z", "f"},
		{"update_time < 2026-02-01T00:00:00Z", "s"},
		{"acknowledged:NOTEBOOK_REPLACED", "s"},
		{"acknowledged:NOTEBOOK_*", "s"},
		{"failure:*", "f"},
		{"failure.reason = CLOUD_REJECTED", "f"},
		{"failure.reason = ERROR_REASON_CLOUD_REJECTED", "f"},
		{"failure.reason != CLOUD_REJECTED", "se"},
		{"failure.reason = UNSPECIFIED", ""}, // there is no failure that has none
		{"failure.reason != UNSPECIFIED", "sfe"},
		{"failure.reason:*", "f"},
		{"failure.message:REFUSED", "f"},
		{"failure.cloudCode = 1400", "f"},

		// A text alone.
		{"pytorch", "s"},
		{"hub", "sf"},
		{"cuda", "s"},
		{"10.0.0.2", "f"},
		{"notebooks/b", "s"},
		{"old", "s"},
		{"coreshub", "f"},
		{"unsearched", ""},
		{"refused", ""},
		{"0190", ""},
	} {
		f, err := imageChangeSchema.parse(c.filter)
		if err != nil {
			t.Errorf("parse %q: %v", c.filter, err)
			continue
		}
		again, err := imageChangeSchema.parse(f.key())
		if err != nil || again.key() != f.key() {
			t.Errorf("key %q of %q is read as %q, %v", f.key(), c.filter, again.key(), err)
			continue
		}
		got := ""
		for _, letter := range []string{"s", "f", "e"} {
			if f.match(changes[letter]) {
				got += letter
			}
			if f.match(changes[letter]) != again.match(changes[letter]) {
				t.Errorf("key %q matches %s otherwise", f.key(), letter)
			}
		}
		if got != c.want {
			t.Errorf("%q matches %q, want %q", c.filter, got, c.want)
		}
		f.match(nil)
	}
	for _, same := range [][2]string{
		{"phase = FAILED", "phase=PHASE_FAILED"},
		{"failure.reason = CLOUD_REJECTED", "failure.reason = 'ERROR_REASON_CLOUD_REJECTED'"},
		{"new_notebook:*", "newNotebook:*"},
	} {
		a, errA := imageChangeSchema.parse(same[0])
		b, errB := imageChangeSchema.parse(same[1])
		if errA != nil || errB != nil || a.key() != b.key() {
			t.Errorf("%q and %q have the keys %q and %q (%v, %v)", same[0], same[1], a.key(), b.key(), errA, errB)
		}
	}
	for _, c := range []struct {
		filter, field string
		position      int
		problem       string
	}{
		{"state = RUNNING", "state", 0, "the fields are acknowledged, cloud, cloud_request_id, create_time"},
		{"steps:stop", "steps", 0, "no such field"},
		{"attributes.a = b", "attributes.a", 0, "no such field"},
		{"failure.code = 1", "failure.code", 0, "failure has cloud_code, message, reason"},
		{"failure = x", "failure", 8, "it takes :* for whether it is set"},
		{"phase = DONE", "phase", 8, `"DONE" is none of PHASE_UNSPECIFIED, PHASE_PLANNED`},
		{"phase = ERROR_REASON_INTERNAL", "phase", 8, "PHASE_ may be left out"},
		{"failure.reason = NONE", "failure.reason", 17, "ERROR_REASON_ may be left out"},
		{"sent = yes", "sent", 7, `"yes" is neither true nor false`},
		{"sent = *", "sent", 7, "neither true nor false"},
		{"sent > false", "sent", 5, "it takes = != :"},
		{"acknowledged = A", "acknowledged", 13, "it takes : for whether"},
	} {
		_, err := imageChangeSchema.parse(c.filter)
		var got *filterError
		if !errors.As(err, &got) || got.Field != c.field || got.Position != c.position || !strings.Contains(got.Problem, c.problem) {
			t.Errorf("parse %q: %#v, want position %d, field %q, problem with %q", c.filter, err, c.position, c.field, c.problem)
		}
	}
}

// TestFilterGrammar checks the grammar against the parser of the library, which
// knows AND, OR, NOT and precedence, with random filters that both understand.
func TestFilterGrammar(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var expression func(depth int) string
	simple := func(depth int) string {
		if depth > 0 && r.IntN(3) == 0 {
			return "(" + expression(depth-1) + ")"
		}
		return fmt.Sprintf("display_name:x%d", r.IntN(6))
	}
	term := func(depth int) string { return []string{"", "", "NOT ", "-"}[r.IntN(4)] + simple(depth) }
	expression = func(depth int) string {
		text := term(depth)
		for r.IntN(2) == 0 {
			text += []string{" AND ", " OR ", " "}[r.IntN(3)] + term(depth)
		}
		return text
	}
	var eval func(e *expr.Expr, n *notebookv1.Notebook) bool
	eval = func(e *expr.Expr, n *notebookv1.Notebook) bool {
		args := e.GetCallExpr().GetArgs()
		switch e.GetCallExpr().GetFunction() {
		case filtering.FunctionAnd, filtering.FunctionFuzzyAnd:
			return eval(args[0], n) && eval(args[1], n)
		case filtering.FunctionOr:
			return eval(args[0], n) || eval(args[1], n)
		case filtering.FunctionNot:
			return !eval(args[0], n)
		case filtering.FunctionHas:
			return strings.Contains(n.GetDisplayName(), args[1].GetConstExpr().GetStringValue())
		}
		t.Fatalf("what is %v?", e)
		return false
	}
	for range 500 {
		text := expression(4)
		f, err := parseFilter(text)
		if err != nil && strings.Contains(err.Error(), "more than") {
			continue
		}
		var parser filtering.Parser
		parser.Init(text)
		parsed, libErr := parser.Parse()
		if err != nil || libErr != nil {
			t.Fatalf("%q: %v, library: %v", text, err, libErr)
		}
		for range 10 {
			n := &notebookv1.Notebook{}
			for i := range 6 {
				if r.IntN(2) == 0 {
					n.DisplayName += fmt.Sprintf(" x%d", i)
				}
			}
			if got, want := f.match(n), eval(parsed.GetExpr(), n); got != want {
				t.Fatalf("%q is %v of %q, the library has %v", text, got, n.GetDisplayName(), want)
			}
		}
	}
}

// TestFilterConcurrent lets the race detector see one filter used by many.
func TestFilterConcurrent(t *testing.T) {
	f, err := parseFilter(`pytorch AND (attributes:* OR env_names:X) NOT image.uri = "*x*y" display_name:T*`)
	if err != nil {
		t.Fatal(err)
	}
	notebooks := filterNotebooks()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				if !f.match(notebooks["f"]) || f.match(notebooks["n"]) {
					t.Error("another answer")
				}
			}
		})
	}
	wg.Wait()
}

func FuzzFilter(f *testing.F) {
	for _, c := range filterCases {
		f.Add(c.filter)
	}
	for _, text := range []string{
		strings.Repeat("(", 4096), strings.Repeat("NOT ", 1024), strings.Repeat("-", 4096), strings.Repeat("a(", 2048), strings.Repeat("f((x ", 800),
		strings.Repeat("\x00", 100), "\xff\xfe", "name = \"\x00\"", strings.Repeat(".", 4096), strings.Repeat("a.", 2048), strings.Repeat("a OR ", 800),
		"name = " + strings.Repeat("*a", 2000), "'", `"\`, `'\'`, "�", "0x", "4٣ = ٣", "a:b:c", "NOT", "name=-", strings.Repeat("a:", 2000),
	} {
		f.Add(text)
	}
	notebooks := filterNotebooks()
	f.Fuzz(func(t *testing.T, text string) {
		start := time.Now()
		parsed, err := parseFilter(text)
		if took := time.Since(start); took > time.Second {
			t.Errorf("parsing took %v", took)
		}
		if err != nil {
			var problem *filterError
			if !errors.As(err, &problem) {
				t.Fatalf("%T: %v", err, err)
			}
			if problem.Position < 0 || problem.Position > len(text) || problem.Problem == "" || len(problem.Error()) > 1000 || !utf8.ValidString(problem.Error()) {
				t.Fatalf("%#v", problem)
			}
			return
		}
		for _, n := range notebooks {
			parsed.match(n)
		}
		parsed.match(nil)
		checkKey(t, parsed)
	})
}

func BenchmarkFilterMatch(b *testing.B) {
	notebooks := filterNotebooks()
	for _, text := range []string{
		"state = RUNNING AND resources.accelerator.count >= 1",
		"pytorch",
		`image.uri = "*pytorch*"`,
		"create_time > 2026-01-01T00:00:00Z AND cloud = coreshub-a",
		"attributes.charge_mode = monthly",
	} {
		b.Run(text, func(b *testing.B) {
			f, err := parseFilter(text)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if !f.match(notebooks["f"]) {
					b.Fatal("no match")
				}
			}
		})
	}
}

func BenchmarkFilterParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseFilter("state = RUNNING AND resources.accelerator.count >= 1"); err != nil {
			b.Fatal(err)
		}
	}
}
