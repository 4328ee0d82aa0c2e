package access

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestRights(t *testing.T) {
	grants := []Grant{
		{Role: Viewer, Subjects: []string{Everyone}, Clouds: []string{"a"}},
		{Role: Operator, Groups: []string{"ops"}, Locations: []string{"b/x", "a/x"}},
		{Role: Admin, Subjects: []string{"root"}},
		{Role: Viewer, Groups: []string{"auditors"}, Subjects: []string{"eve"}, Claims: map[string]string{"iss": "i", "dept": "d"}},
	}
	p := newPolicy(grants)
	for _, tt := range []struct {
		name   string
		id     Identity
		sees   string // places of a and b, and a cloud that is not named
		may    string // is operator of
		admin  bool
		key    string
		clouds string
	}{
		{"anybody", Identity{Subject: "x", Method: MethodToken}, "a/x a/y", "", false, "a", "a"},
		{"operator", Identity{Subject: "x", Groups: []string{"z", "ops"}, Method: MethodOIDC}, "a/x a/y b/x", "a/x b/x", false, "a,b/x", "a b"},
		{"admin", Identity{Subject: "root", Method: MethodCertificate}, "a/x a/y b/x b/y c/x", "a/x a/y b/x b/y c/x", true, "", "a b c"},
		{"auditor", Identity{Groups: []string{"auditors"}, Claims: map[string][]string{"iss": {"i"}, "dept": {"c", "d"}}, Method: MethodOIDC}, "a/x a/y b/x b/y c/x", "", false, "", "a b c"},
		{"auditor by name", Identity{Subject: "eve", Claims: map[string][]string{"iss": {"i"}, "dept": {"d"}}, Method: MethodOIDC}, "a/x a/y b/x b/y c/x", "", false, "", "a b c"},
		{"a claim is wrong", Identity{Subject: "eve", Claims: map[string][]string{"iss": {"i"}, "dept": {"dd"}}, Method: MethodOIDC}, "a/x a/y", "", false, "a", "a"},
		{"a claim lacks", Identity{Subject: "eve", Claims: map[string][]string{"dept": {"d"}}, Method: MethodOIDC}, "a/x a/y", "", false, "a", "a"},
		{"group as subject", Identity{Subject: "ops", Groups: []string{"root"}, Method: MethodToken}, "a/x a/y", "", false, "a", "a"},
		{"named *", Identity{Subject: Everyone, Groups: []string{Everyone}, Method: MethodToken}, "a/x a/y", "", false, "a", "a"},
		{"nobody", Identity{Subject: "root"}, "", "", false, "-", ""},
		{"anonymous", Anonymous(), "", "", false, "-", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := p.rights(tt.id)
			var sees, may, clouds []string
			for _, cloud := range []string{"a", "b", "c"} {
				if r.SeesCloud(cloud) {
					clouds = append(clouds, cloud)
				}
				for _, location := range []string{"x", "y"} {
					if cloud == "c" && location == "y" {
						continue
					}
					if r.Sees(cloud, location) != r.May(Viewer, cloud, location) {
						t.Error("to see is to be a viewer")
					}
					if r.Sees(cloud, location) {
						sees = append(sees, cloud+"/"+location)
					}
					if r.May(Operator, cloud, location) {
						may = append(may, cloud+"/"+location)
					}
				}
			}
			if got := strings.Join(sees, " "); got != tt.sees {
				t.Errorf("sees %q, want %q", got, tt.sees)
			}
			if got := strings.Join(may, " "); got != tt.may {
				t.Errorf("operates %q, want %q", got, tt.may)
			}
			if got := strings.Join(clouds, " "); got != tt.clouds {
				t.Errorf("sees clouds %q, want %q", got, tt.clouds)
			}
			if r.Everywhere(Admin) != tt.admin || r.May(Admin, "c", "x") != tt.admin || r.May(Admin, "", "") != tt.admin {
				t.Errorf("admin: %v", r.Everywhere(Admin))
			}
			if r.Key() != tt.key || r.SeesAll() != (tt.key == "") || r.Nothing() != (tt.sees == "") {
				t.Errorf("key %q, sees all %v, nothing %v", r.Key(), r.SeesAll(), r.Nothing())
			}
			if r.May("", "a", "x") || r.May("root", "a", "x") || r.Everywhere("root") {
				t.Error("an unknown role is had")
			}
			if again := p.rights(tt.id); again != r {
				t.Error("rights are made twice")
			}
		})
	}
}

func TestRightsOfNil(t *testing.T) {
	var r *Rights
	if r.May(Viewer, "a", "x") || r.Sees("a", "x") || r.SeesCloud("a") || r.SeesAll() || !r.Nothing() || r.Key() != "-" || !r.Equal(noRights) || r.Equal(Unrestricted()) {
		t.Error("nil gives rights")
	}
}

func TestOpenGate(t *testing.T) {
	g, err := New(Config{}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	for _, c := range []Credentials{{}, {Bearer: "x"}} {
		id, err := g.Authenticate(t.Context(), c)
		if err != nil || id.Method != MethodNone || id.Subject != "anonymous" || !g.Rights(id).Everywhere(Admin) {
			t.Errorf("%+v, %v", id, err)
		}
	}
	if !g.Open() || len(g.Files()) != 0 {
		t.Error("the gate is not open")
	}
	if newGate(t, Config{Certificates: &CertificateConfig{}}, Options{}).Open() {
		t.Error("a gate that asks for certificates is open")
	}
}

// Over random grants: keys are equal exactly for those who see the same, in a small
// world that has a cloud and locations which no grant names; whatever is had of a
// role is had of those below; and rights are what the grants say one by one.
func TestKeyIsVisibility(t *testing.T) {
	clouds, locations := []string{"a", "b", "unnamed"}, []string{"x", "y", "unnamed"}
	random := rand.New(rand.NewPCG(1, 2))
	some := func(from []string) []string {
		var out []string
		for _, s := range from {
			if random.IntN(3) == 0 {
				out = append(out, s)
			}
		}
		return out
	}
	type made struct {
		rights *Rights
		sees   string
		may    string // all roles
	}
	byKey := map[string]made{}
	bySees := map[string]made{}
	byMay := map[string]made{}
	for range 20000 {
		var grants []Grant
		var apply []*Grant
		for range random.IntN(4) {
			g := Grant{Role: roles[random.IntN(len(roles))], Subjects: []string{"s"}}
			switch random.IntN(5) {
			case 0: // everywhere
			case 1, 2:
				g.Clouds = []string{clouds[random.IntN(2)]}
			default:
				places := []string{"a/x", "a/y", "b/x", "b/y"}
				g.Locations = append(some(places), places[random.IntN(len(places))])
				random.Shuffle(len(g.Locations), func(i, j int) { g.Locations[i], g.Locations[j] = g.Locations[j], g.Locations[i] })
			}
			if random.IntN(4) == 0 {
				g.Subjects = []string{"else"}
			} else {
				apply = append(apply, &g)
			}
			grants = append(grants, g)
		}
		r := newPolicy(grants).rights(Identity{Subject: "s", Method: MethodToken})
		var sees, may strings.Builder
		for _, cloud := range clouds {
			part := false
			for _, location := range locations {
				above := true
				for i, role := range slices.Backward(roles) {
					want := slices.ContainsFunc(apply, func(g *Grant) bool {
						return slices.Index(roles, g.Role) >= i && (len(g.Clouds)+len(g.Locations) == 0 ||
							slices.Contains(g.Clouds, cloud) || slices.Contains(g.Locations, cloud+"/"+location))
					})
					got := r.May(role, cloud, location)
					if got != want {
						t.Fatalf("%+v: may %s in %s/%s: %v", grants, role, cloud, location, got)
					}
					if i < len(roles)-1 && above && !got {
						t.Fatalf("%+v: less than %s in %s/%s", grants, role, cloud, location)
					}
					above = got
					fmt.Fprint(&may, got)
				}
				part = part || r.Sees(cloud, location)
				fmt.Fprint(&sees, r.Sees(cloud, location))
			}
			if r.SeesCloud(cloud) != part {
				t.Fatalf("%+v: sees cloud %s: %v", grants, cloud, !part)
			}
		}
		checkHeld(t, r)
		m := made{r, sees.String(), may.String()}
		if other, ok := byKey[r.Key()]; ok && other.sees != m.sees {
			t.Fatalf("%q is the key of two views", r.Key())
		}
		if other, ok := bySees[m.sees]; ok && other.rights.Key() != r.Key() {
			t.Fatalf("one view has keys %q and %q", other.rights.Key(), r.Key())
		}
		if other, ok := byMay[m.may]; ok && !other.rights.Equal(r) {
			t.Fatalf("the same is not equal: %q, %q", other.rights.all, r.all)
		}
		for _, other := range byMay {
			if other.rights.Equal(r) != (other.may == m.may) {
				t.Fatalf("equal: %q, %q", other.rights.all, r.all)
			}
		}
		byKey[r.Key()], bySees[m.sees], byMay[m.may] = m, m, m
	}
	// Of each cloud nothing, x, y, both or all; or everything.
	if len(byKey) != 5*5+1 || len(byMay) < 300 {
		t.Errorf("%d keys of %d rights were seen", len(byKey), len(byMay))
	}
}

// checkHeld: what rights are said to consist of gives just these rights, in order, and
// nothing of it could be left out.
func checkHeld(t *testing.T, r *Rights) {
	t.Helper()
	held := r.Held()
	given := func(without int) *Rights {
		var grants []*Grant
		for i, h := range held {
			g := &Grant{Role: h.Role}
			switch {
			case i == without:
				continue
			case h.Location != "":
				g.Locations = []string{h.Cloud + "/" + h.Location}
			case h.Cloud != "":
				g.Clouds = []string{h.Cloud}
			}
			grants = append(grants, g)
		}
		return newRights(grants)
	}
	if !given(-1).Equal(r) {
		t.Fatalf("%v is held of %q", held, r.all)
	}
	for i, h := range held {
		if given(i).Equal(r) {
			t.Fatalf("%v: %v is in it though it adds nothing", held, h)
		}
		if i > 0 && cmp.Or(strings.Compare(held[i-1].Cloud, h.Cloud), strings.Compare(held[i-1].Location, h.Location)) >= 0 {
			t.Fatalf("%v: %v is not in its place", held, h)
		}
	}
}

func TestHeld(t *testing.T) {
	for _, tt := range []struct {
		grants []*Grant
		want   []Held
	}{
		{nil, nil},
		{[]*Grant{{Role: Admin}, {Role: Viewer}, {Role: Operator, Clouds: []string{"a"}}}, []Held{{Role: Admin}}},
		{[]*Grant{{Role: Viewer}, {Role: Operator, Locations: []string{"a/x"}}}, []Held{{Role: Viewer}, {Operator, "a", "x"}}},
		{
			[]*Grant{{Role: Viewer, Clouds: []string{"b", "a"}}, {Role: Operator, Clouds: []string{"a"}}, {Role: Admin, Locations: []string{"a/x", "c/z"}}},
			[]Held{{Operator, "a", ""}, {Admin, "a", "x"}, {Viewer, "b", ""}, {Admin, "c", "z"}},
		},
	} {
		if got := newRights(tt.grants).Held(); !slices.Equal(got, tt.want) {
			t.Errorf("%v, want %v", got, tt.want)
		}
	}
	if got := Unrestricted().Held(); !slices.Equal(got, []Held{{Role: Admin}}) {
		t.Errorf("all rights are %v", got)
	}
	if got := (*Rights)(nil).Held(); got != nil {
		t.Errorf("no rights are %v", got)
	}
}

func TestMemoIsBounded(t *testing.T) {
	m := newMemo[int, int](100)
	for i := range 10000 {
		m.put(i, i)
		if v, ok := m.get(0); !ok || v != 0 {
			t.Fatalf("what is asked for is forgotten after %d", i)
		}
		if v, ok := m.get(i); !ok || v != i {
			t.Fatalf("%d is forgotten at once", i)
		}
		if m.len() > 100 {
			t.Fatalf("%d are remembered", m.len())
		}
	}
	if _, ok := m.get(1); ok {
		t.Error("nothing is forgotten")
	}
}
