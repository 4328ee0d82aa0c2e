package access

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Role is what a grant gives. Each includes those before it.
type Role string

// The roles, least first.
const (
	Viewer   Role = "viewer"   // sees notebooks
	Operator Role = "operator" // changes them
	Admin    Role = "admin"    // is told how the server itself does
)

var roles = []Role{Viewer, Operator, Admin}

// Everyone is, as a subject of a [Grant], every caller who was authenticated.
const Everyone = "*"

// Grant gives a role to some callers. It applies to a caller who is one of Subjects
// or in one of Groups, and has all Claims.
type Grant struct {
	// Role is what is given: viewer sees notebooks, operator changes them too, and admin
	// is also told how the server itself does. Needed.
	Role Role `yaml:"role"`
	// Subjects are the callers that have it; `*` is every caller who was authenticated.
	// Needed, unless groups are given.
	Subjects []string `yaml:"subjects"`
	// Groups are those whose members have it. Needed, unless subjects are given.
	Groups []string `yaml:"groups"`
	// Claims are values that claims of the caller's JWT must have, or hold, beside that.
	// They are what the issuer says, without a prefix: the claim iss says which issuer.
	// Default: none.
	Claims map[string]string `yaml:"claims"`
	// Clouds are where the role is given, by name. Default: everywhere, unless locations
	// are given.
	Clouds []string `yaml:"clouds"`
	// Locations narrow it to some, as cloud/location. They do not go together with
	// clouds. Default: every location of clouds.
	Locations []string `yaml:"locations"`
}

// place is a location of a cloud.
type place struct{ cloud, location string }

// scope is where a role is had. It does not change once made.
type scope struct {
	all       bool
	clouds    map[string]bool // all of their locations
	locations map[place]bool  // of other clouds
	partly    map[string]bool // clouds of locations
}

func (s *scope) has(cloud, location string) bool {
	return s.all || s.clouds[cloud] || s.locations[place{cloud, location}]
}

// add widens a scope that is being made.
func (s *scope) add(g *Grant) {
	if len(g.Clouds) == 0 && len(g.Locations) == 0 {
		s.all = true
	}
	for _, cloud := range g.Clouds {
		s.clouds[cloud] = true
	}
	for _, name := range g.Locations {
		cloud, location, _ := strings.Cut(name, "/")
		s.locations[place{cloud, location}] = true
	}
}

// normalize forgets what is included in something else, so that scopes are the same
// when they have the same.
func (s *scope) normalize() {
	if s.all {
		clear(s.clouds)
	}
	for p := range s.locations {
		if s.all || s.clouds[p.cloud] {
			delete(s.locations, p)
			continue
		}
		s.partly[p.cloud] = true
	}
}

// key is the same for the same scopes, and for no others. Names hold no comma, and
// that of a cloud no slash.
func (s *scope) key() string {
	if s.all {
		return ""
	}
	if len(s.clouds) == 0 && len(s.locations) == 0 {
		return "-" // no cloud has that name
	}
	parts := slices.Collect(maps.Keys(s.clouds))
	for p := range s.locations {
		parts = append(parts, p.cloud+"/"+p.location)
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

// Rights are what somebody may do, and where. They do not change. A nil *Rights
// gives none.
type Rights struct {
	scopes [3]scope // by the index of roles
	sees   string   // key of the first scope
	all    string   // keys of all scopes
}

var noRights = newRights(nil)

var unrestricted = newRights([]*Grant{{Role: Admin}})

// Unrestricted are all rights everywhere.
func Unrestricted() *Rights { return unrestricted }

func newRights(grants []*Grant) *Rights {
	r := &Rights{}
	for i := range r.scopes {
		s := &r.scopes[i]
		s.clouds, s.locations, s.partly = map[string]bool{}, map[place]bool{}, map[string]bool{}
		for _, g := range grants {
			if slices.Index(roles, g.Role) >= i {
				s.add(g)
			}
		}
		s.normalize()
	}
	r.sees = r.scopes[0].key()
	r.all = r.sees + ";" + r.scopes[1].key() + ";" + r.scopes[2].key()
	return r
}

func (r *Rights) scope(role Role) *scope {
	if i := slices.Index(roles, role); r != nil && i >= 0 {
		return &r.scopes[i]
	}
	return &scope{}
}

// May reports whether the role is had in a location, or in all of a cloud when
// location is empty.
func (r *Rights) May(role Role, cloud, location string) bool {
	return r.scope(role).has(cloud, location)
}

// Everywhere reports whether the role is had in all clouds, those included that may
// be added.
func (r *Rights) Everywhere(role Role) bool { return r.scope(role).all }

// Sees reports whether what is in a location may be seen.
func (r *Rights) Sees(cloud, location string) bool { return r.May(Viewer, cloud, location) }

// SeesCloud reports whether any location of a cloud may be seen, if it has one.
func (r *Rights) SeesCloud(cloud string) bool {
	s := r.scope(Viewer)
	return s.has(cloud, "") || s.partly[cloud]
}

// SeesAll reports whether everything may be seen.
func (r *Rights) SeesAll() bool { return r.Everywhere(Viewer) }

// Held is a role and where it is had: in a location, in all of a cloud when Location
// is empty, or everywhere when Cloud is empty too.
type Held struct {
	Role            Role
	Cloud, Location string
}

// Held lists what the rights consist of, ordered by place. It leaves out what
// something else in it includes, so that each place is there once at most.
func (r *Rights) Held() []Held {
	if r == nil {
		return nil
	}
	var out []Held
	for i, role := range roles {
		s, stronger := &r.scopes[i], &scope{}
		if i+1 < len(roles) {
			stronger = &r.scopes[i+1]
		}
		if s.all && !stronger.all {
			out = append(out, Held{Role: role})
		}
		for cloud := range s.clouds {
			if !stronger.has(cloud, "") {
				out = append(out, Held{Role: role, Cloud: cloud})
			}
		}
		for p := range s.locations {
			if !stronger.has(p.cloud, p.location) {
				out = append(out, Held{Role: role, Cloud: p.cloud, Location: p.location})
			}
		}
	}
	slices.SortFunc(out, func(a, b Held) int {
		return cmp.Or(strings.Compare(a.Cloud, b.Cloud), strings.Compare(a.Location, b.Location))
	})
	return out
}

// Nothing reports whether nothing may be seen, and so nothing be done.
func (r *Rights) Nothing() bool { return r.Key() == noRights.sees }

// Key is equal for those who see the same, whoever they are and whatever else they
// may do, and differs for others: who sees the same can share what is made for
// them. It is empty when everything is seen, and the same after a restart.
func (r *Rights) Key() string {
	if r == nil {
		return noRights.sees
	}
	return r.sees
}

// Equal reports whether both give the same.
func (r *Rights) Equal(other *Rights) bool {
	if r == nil {
		r = noRights
	}
	if other == nil {
		other = noRights
	}
	return r == other || r.all == other.all
}

// maxRights bounds how many different rights are remembered. They are as many as
// there are sets of grants that apply to somebody, so mostly few.
const maxRights = 1024

// policy knows what is granted to whom. It does not change.
type policy struct {
	grants   []Grant
	everyone []int            // grants to everyone
	subjects map[string][]int // grants to each
	groups   map[string][]int
	known    *memo[string, *Rights] // by the set of grants that apply
}

func newPolicy(grants []Grant) *policy {
	p := &policy{
		grants: slices.Clone(grants), subjects: map[string][]int{}, groups: map[string][]int{},
		known: newMemo[string, *Rights](maxRights),
	}
	for i, g := range p.grants {
		for _, s := range g.Subjects {
			if s == Everyone {
				p.everyone = append(p.everyone, i)
			} else {
				p.subjects[s] = append(p.subjects[s], i)
			}
		}
		for _, name := range g.Groups {
			p.groups[name] = append(p.groups[name], i)
		}
	}
	return p
}

func (p *policy) rights(id Identity) *Rights {
	switch id.Method {
	case MethodToken, MethodOIDC, MethodCertificate:
	default:
		return noRights // nobody was authenticated
	}
	set := make([]byte, (len(p.grants)+7)/8) // a bit for each grant that applies
	p.mark(set, p.everyone, id)
	p.mark(set, p.subjects[id.Subject], id)
	for _, name := range id.Groups {
		p.mark(set, p.groups[name], id)
	}
	key := string(set)
	if r, ok := p.known.get(key); ok {
		return r
	}
	var apply []*Grant
	for i := range p.grants {
		if set[i/8]&(1<<(i%8)) != 0 {
			apply = append(apply, &p.grants[i])
		}
	}
	r := newRights(apply)
	p.known.put(key, r)
	return r
}

func (p *policy) mark(set []byte, grants []int, id Identity) {
	for _, i := range grants {
		if claims(id, p.grants[i].Claims) {
			set[i/8] |= 1 << (i % 8)
		}
	}
}

func claims(id Identity, want map[string]string) bool {
	for name, value := range want {
		if !slices.Contains(id.Claims[name], value) {
			return false
		}
	}
	return true
}
