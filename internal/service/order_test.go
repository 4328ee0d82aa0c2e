package service

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

func TestParseOrder(t *testing.T) {
	for _, c := range []struct {
		text, key string
		isName    bool
	}{
		{"", "name", true},
		{"  ", "name", true},
		{"name", "name", true},
		{"name asc", "name", true},
		{"name desc", "name desc", false},
		{"state", "state,name", false},
		{" state  desc ,display_name ", "state desc,display_name,name", false},
		{"displayName,createTime desc,updateTime,expireTime,state", "display_name,create_time desc,update_time,expire_time,state,name", false},
		{"create_time desc,name desc", "create_time desc,name desc", false},
		{"name,state desc", "name", true}, // nothing is left to order by state
	} {
		o, err := parseOrder(c.text)
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		if o.key() != c.key || o.isName() != c.isName {
			t.Errorf("%q: key %q, by name %v; want %q, %v", c.text, o.key(), o.isName(), c.key, c.isName)
		}
	}
}

func TestOrderErrors(t *testing.T) {
	for _, c := range []struct{ text, field, problem string }{
		{"stat", "stat", "the fields are create_time, display_name, expire_time, name, state, update_time"},
		{"state,image.uri", "image.uri", "cannot be ordered by"},
		{"etag desc", "etag", "cannot be ordered by"},
		{"state,state", "state", "named twice"},
		{"create_time,createTime desc", "create_time", "named twice"},
		{"name,state,name", "name", "named twice"},
		{"name,foo", "foo", "cannot be ordered by"},
		{"state,", "", `"state," is not a list of fields`},
		{",", "", "is not a list of fields"},
		{"state DESC", "", "asc or desc"},
		{"state desc desc", "", "asc or desc"},
		{"state; drop", "", "is not a list of fields"},
		{"\xff", "", "is not a list of fields"},
		{strings.Repeat("x", 100), strings.Repeat("x", 40) + "…", "cannot be ordered by"},
		{strings.Repeat("x,", 100) + ",", "", strings.Repeat("x,", 20) + `…"`},
	} {
		_, err := parseOrder(c.text)
		var got *orderError
		if !errors.As(err, &got) {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		if got.Field != c.field || !strings.Contains(got.Problem, c.problem) || !strings.Contains(got.Error(), c.field) {
			t.Errorf("%q: %#v, want field %q, problem with %q", c.text, got, c.field, c.problem)
		}
		inChinese(t, got.Error())
	}
}

func TestOrderCompare(t *testing.T) {
	rows := []*notebookv1.Notebook{
		{Name: "a", DisplayName: "y", State: notebookv1.Notebook_STATE_STOPPED, CreateTime: at("2026-01-02T00:00:00Z")},
		{Name: "b", DisplayName: "x", State: notebookv1.Notebook_STATE_RUNNING},
		{Name: "c", DisplayName: "Y", State: notebookv1.Notebook_STATE_RUNNING, CreateTime: at("2026-01-02T00:00:00.000000001Z")},
		{Name: "d", DisplayName: "", CreateTime: &timestamppb.Timestamp{}},
		{Name: "e", DisplayName: "x", State: notebookv1.Notebook_STATE_FAILED, ExpireTime: at("2026-01-02T00:00:00Z"), UpdateTime: at("1960-01-02T00:00:00Z")},
	}
	for text, want := range map[string]string{
		"":                              "abcde",
		"name desc":                     "edcba",
		"display_name":                  "dcbea",
		"display_name desc":             "abecd",
		"display_name desc,name desc":   "aebcd",
		"state":                         "dbcae",
		"state desc":                    "eabcd",
		"create_time":                   "bedac",
		"create_time desc":              "cadbe",
		"create_time desc,name desc":    "cadeb",
		"update_time":                   "abcde",
		"expire_time desc":              "eabcd",
		"state desc, display_name":      "eacbd",
		"display_name, create_time":     "dcbea",
		"display_name,state desc, name": "dceba",
	} {
		o, err := parseOrder(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		sorted := slices.Clone(rows)
		slices.Reverse(sorted)
		slices.SortFunc(sorted, o.compare)
		got := ""
		for _, n := range sorted {
			got += n.GetName()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestOrderPosition(t *testing.T) {
	byName, _ := parseOrder("")
	if got := byName.position(&notebookv1.Notebook{Name: "clouds/a/locations/b/notebooks/c"}); got != "clouds/a/locations/b/notebooks/c" {
		t.Errorf("the position by name is %q", got)
	}
	if after, err := byName.after(""); err != nil || !after(&notebookv1.Notebook{}) {
		t.Errorf("not all come after the beginning (%v)", err)
	}
	// A page token may have 4096 characters.
	longest, _ := parseOrder("display_name,state,create_time,update_time,expire_time")
	huge := &notebookv1.Notebook{Name: strings.Repeat("n", 512), DisplayName: strings.Repeat("é", 10000), CreateTime: at("9999-12-31T23:59:59.999999999Z")}
	if got := len(longest.position(huge)); got > 2048 {
		t.Errorf("a position of %d bytes", got)
	}
	byTime, _ := parseOrder("state,create_time,display_name")
	for _, bad := range []string{"\x00", "\xff", "\x00\x02", "\x00\x01\x00", "\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\x00\x00\x05abc", "\x00\x00\x00", strings.Repeat("\xff", 20)} {
		if _, err := byTime.after(bad); !errors.Is(err, errPosition) {
			t.Errorf("position %q: %v", bad, err)
		}
	}
}

// everyOrder returns every list of up to two fields, in each direction.
func everyOrder(tb testing.TB) []order {
	tb.Helper()
	texts := []string{""}
	for _, a := range orderable() {
		for _, da := range []string{"", " desc"} {
			texts = append(texts, a+da)
			for _, b := range orderable() {
				if b != a {
					texts = append(texts, a+da+","+b, a+da+","+b+" desc")
				}
			}
		}
	}
	orders := make([]order, 0, len(texts))
	for _, text := range texts {
		o, err := parseOrder(text)
		if err != nil {
			tb.Fatal(err)
		}
		orders = append(orders, o)
	}
	return orders
}

// randomNotebook has values from small sets, so that many are equal.
func randomNotebook(r *rand.Rand, name string) *notebookv1.Notebook {
	when := func() *timestamppb.Timestamp {
		if r.IntN(3) == 0 {
			return nil
		}
		return &timestamppb.Timestamp{Seconds: int64(r.IntN(5) - 2), Nanos: int32(r.IntN(2))}
	}
	return &notebookv1.Notebook{
		Name:        name,
		DisplayName: []string{"", "a", "b", "B", "é", strings.Repeat("z", 600), strings.Repeat("z", 600) + "a"}[r.IntN(7)],
		State:       notebookv1.Notebook_State(r.IntN(7)),
		CreateTime:  when(), UpdateTime: when(), ExpireTime: when(),
	}
}

// TestOrderPages reads pages while other rows come, go and change, and checks
// that each row that stays as it is comes exactly once, in order.
func TestOrderPages(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, o := range everyOrder(t) {
		for range 5 {
			stay := map[string]*notebookv1.Notebook{}
			others := map[string]*notebookv1.Notebook{}
			fill := func() {
				for range r.IntN(10) {
					name := fmt.Sprintf("other-%02d", r.IntN(40))
					if r.IntN(2) == 0 {
						delete(others, name)
					} else {
						others[name] = randomNotebook(r, name)
					}
				}
			}
			for range r.IntN(40) {
				name := fmt.Sprintf("%c-%02d", 'a'+rune(r.IntN(26)), r.IntN(40))
				stay[name] = randomNotebook(r, name)
			}
			var got []string
			var last *notebookv1.Notebook
			position := ""
			for {
				fill()
				after, err := o.after(position)
				if err != nil {
					t.Fatal(err)
				}
				var page []*notebookv1.Notebook
				for _, rows := range []map[string]*notebookv1.Notebook{stay, others} {
					for _, n := range rows {
						if after(n) {
							page = append(page, n)
						}
					}
				}
				slices.SortFunc(page, o.compare)
				page = page[:min(len(page), 1+r.IntN(6))]
				if len(page) == 0 {
					break
				}
				for _, n := range page {
					if last != nil && o.compare(last, n) >= 0 {
						t.Fatalf("%s: %v came after %v", o.key(), n, last)
					}
					last = n
					if _, ok := stay[n.GetName()]; ok {
						got = append(got, n.GetName())
					}
				}
				position = o.position(last)
			}
			var want []*notebookv1.Notebook
			for _, n := range stay {
				want = append(want, n)
			}
			slices.SortFunc(want, o.compare)
			var names []string
			for _, n := range want {
				names = append(names, n.GetName())
			}
			if diff := cmp.Diff(names, got); diff != "" {
				t.Fatalf("%s (-want +got):\n%s", o.key(), diff)
			}
		}
	}
}

func FuzzOrder(f *testing.F) {
	for _, text := range []string{"", "name", "state desc,createTime", "display_name,update_time desc,expire_time", ",", "a b c", "\xff"} {
		f.Add(text, "", uint64(1))
		f.Add(text, "\x00\x01\x02\x03abc", uint64(2))
	}
	f.Fuzz(func(t *testing.T, text, position string, seed uint64) {
		o, err := parseOrder(text)
		if err != nil {
			var problem *orderError
			if !errors.As(err, &problem) || len(problem.Error()) > 600 {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		again, err := parseOrder(o.key())
		if err != nil || again.key() != o.key() {
			t.Fatalf("key %q: %v", o.key(), err)
		}
		r := rand.New(rand.NewPCG(seed, 0))
		a, b := randomNotebook(r, "a"), randomNotebook(r, "b")
		if o.compare(a, b) != -o.compare(b, a) || o.compare(a, b) == 0 || o.compare(a, a) != 0 {
			t.Fatalf("%s does not order %v and %v", o.key(), a, b)
		}
		after, err := o.after(o.position(a))
		if err != nil {
			t.Fatal(err)
		}
		if after(a) || after(b) != (o.compare(b, a) > 0) {
			t.Fatalf("%s: position %q of %v is not its place", o.key(), o.position(a), a)
		}
		if after, err := o.after(position); err == nil {
			after(a)
		}
	})
}

func BenchmarkOrderAfter(b *testing.B) {
	o, err := parseOrder("create_time desc,display_name")
	if err != nil {
		b.Fatal(err)
	}
	notebooks := filterNotebooks()
	after, err := o.after(o.position(notebooks["m"]))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		after(notebooks["f"])
	}
}
