package upstream

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestMemo: what was kept is unchanged, once the listing it was in is the last one.
func TestMemo(t *testing.T) {
	free, most := int32(3), int32(8)
	notebooks := map[string]Notebook{
		"a": {
			ID: "a", DisplayName: "A", State: StateStarting, UpdateTime: time.Unix(1, 5).UTC(), ResourceGroup: ResourceGroup{ID: "g", Code: "c"},
			Resources: Resources{CPUCores: 4, Accelerator: Accelerator{Type: "gpu", Model: "M", Count: 1, Available: &free, Max: &most}},
		},
		"b": {ID: "b", DisplayName: "B"},
		"c": {ID: "c", DisplayName: "C", ExpireTime: time.Unix(9, 0)}, // told by a countdown
	}
	unchanged := map[string]Notebook{
		"a": {
			ID: "a", State: StateStarting, UpdateTime: time.Unix(1, 5).UTC(), ResourceGroup: ResourceGroup{ID: "g", Code: "c"}, Unchanged: true,
			Resources: Resources{Accelerator: Accelerator{Type: "gpu", Available: &free, Max: &most}},
		},
		"b": {ID: "b", Unchanged: true},
		"c": notebooks["c"],
	}
	m := NewMemo()
	list := func(m *Memo, want map[string]Notebook, ids ...string) []Notebook {
		t.Helper()
		var out []Notebook
		for _, id := range ids {
			n, ok := m.Decode([]byte("sent for "+id), func() (Notebook, bool, bool) { return notebooks[id], id != "c", true })
			got := n
			got.Sent = Sent{}
			if diff := cmp.Diff(want[id], got); diff != "" || !ok {
				t.Errorf("%s: %v (-want +got):\n%s", id, ok, diff)
			}
			if (n.Sent == Sent{}) != (id == "c" || m == nil) {
				t.Errorf("%s: sent %v", id, n.Sent)
			}
			out = append(out, n)
		}
		return out
	}
	list(nil, notebooks, "a", "b", "c")
	list(m, notebooks, "a", "b", "c")
	m.Keep(list(m, notebooks, "a", "b", "c", "a")[1:]) // of two that are told for one id, the last
	if m.Len() != 2 {
		t.Errorf("%d are known", m.Len())
	}
	list(m, unchanged, "a", "b", "c")
	m.Keep(list(m, unchanged, "a", "c"))
	list(m, unchanged, "a")
	list(m, notebooks, "b") // it was not in the last one
	m.Forget()
	list(m, notebooks, "a", "b", "c")
	if (*Memo)(nil).Len() != 0 {
		t.Error("nothing knows something")
	}
	if _, ok := m.Decode([]byte("x"), func() (Notebook, bool, bool) { return Notebook{}, true, false }); ok {
		t.Error("what cannot be decoded is there")
	}
}

// TestFound: an id is there once, in its first place, with what was put last.
func TestFound(t *testing.T) {
	f := NewFound(0)
	if f.Notebooks() == nil || f.Get("a") != nil {
		t.Error("what nothing was put into")
	}
	for _, n := range []Notebook{{ID: "a"}, {ID: "b"}, {ID: "a", DisplayName: "again"}} {
		f.Put(n)
	}
	if diff := cmp.Diff([]Notebook{{ID: "a", DisplayName: "again"}, {ID: "b"}}, f.Notebooks()); diff != "" || f.Len() != 2 || f.Get("a").DisplayName != "again" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestMembersAndElements: the parts of JSON as they stand in it, or nothing.
func TestMembersAndElements(t *testing.T) {
	for text, want := range map[string][]string{
		`{"a": 1 , "b" :[ 1, {"c":"]}"} ],"a":"\u0061","":null}`: {"a", "1", "b", `[ 1, {"c":"]}"} ]`, "a", `"\u0061"`, "", "null"},
		" {} \n":           {},
		"{\"a\":\"\xff\"}": {"a", "\"\xff\""},
		`{"\u0061":{}}`:    {"a", "{}"},
		``:                 nil, `null`: nil, `[]`: nil, `{`: nil, `{"a"`: nil, `{"a":1,}`: nil, `{"a":1}x`: nil, `{"a":1}{}`: nil, `{"a":01}`: nil, `{a:1}`: nil, `{"a":[1}`: nil,
	} {
		got := []string{}
		err := Members([]byte(text), func(name string, value json.RawMessage) { got = append(got, name, string(value)) })
		if (err == nil) != (want != nil) || err == nil && !cmp.Equal(want, got) {
			t.Errorf("members of %s: %v %q, want %q", text, err, got, want)
		}
		var v map[string]any
		if good := json.Unmarshal([]byte(text), &v) == nil && v != nil; good != (err == nil) {
			t.Errorf("members of %s: %v, but encoding/json says %v", text, err, good)
		}
	}
	for text, want := range map[string][]string{
		`[]`: {}, ` [ 1 ,"a,]", {"b":[ ]} ] `: {"1", `"a,]"`, `{"b":[ ]}`}, `[null]`: {"null"}, `null`: nil,
	} {
		got, err := Elements([]byte(text))
		if err != nil || (got == nil) != (want == nil) || len(got) != len(want) {
			t.Errorf("elements of %s: %q, %v", text, got, err)
			continue
		}
		for i := range got {
			if string(got[i]) != want[i] || cap(got[i]) != len(got[i]) {
				t.Errorf("elements of %s: %q, want %q", text, got, want)
			}
		}
	}
	for _, text := range []string{``, `{}`, `1`, `"a"`, `[`, `[1`, `[1,]`, `[1]]`, `[1] 2`, `null 1`, `nul`, `[1 2]`, `[{"a":}]`} {
		if got, err := Elements([]byte(text)); err == nil || got != nil {
			t.Errorf("elements of %s: %q, %v", text, got, err)
		}
	}
}

// FuzzMembersAndElements: what they accept is what encoding/json accepts.
func FuzzMembersAndElements(f *testing.F) {
	for _, text := range []string{`{"a":1}`, `[1,{"a":"\ud800"}]`, `null`, `{"a":[}`, "[\"\xff\"]"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var object map[string]json.RawMessage
		err := Members(raw, func(_ string, value json.RawMessage) {
			if !json.Valid(value) && json.Valid(raw) {
				t.Errorf("a value %q of %q", value, raw)
			}
		})
		if want := json.Unmarshal(raw, &object) == nil && object != nil; want != (err == nil) {
			t.Errorf("members of %q: %v, encoding/json %v", raw, err, want)
		}
		var list []json.RawMessage
		want := json.Unmarshal(raw, &list)
		got, err := Elements(raw)
		if (want == nil) != (err == nil) || err == nil && (got == nil) != (list == nil) {
			t.Fatalf("elements of %q: %q, %v, encoding/json %q, %v", raw, got, err, list, want)
		}
		for i := range got {
			if string(got[i]) != string(list[i]) {
				t.Errorf("element %d of %q: %q, encoding/json %q", i, raw, got[i], list[i])
			}
		}
	})
}
