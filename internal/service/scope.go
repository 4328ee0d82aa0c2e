package service

import (
	"hash/fnv"
	"io"
	"slices"
	"strings"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/inventory"
)

// scope is what a List or Watch selects: a parsed parent, of which an empty part
// stands for any, and a filter.
//
// It selects nothing that the caller may not see.
type scope struct {
	cloud, location string
	filter          *filter[*notebookv1.Notebook]
	rights          Rights
}

// newScope parses a parent and a filter. It fails when the parent names what the
// caller may not see.
func newScope(parent, filter string, rights Rights) (scope, error) {
	f, err := parseFilter(filter)
	if err != nil {
		return scope{}, err
	}
	sc := parseScope(parent)
	sc.filter, sc.rights = f, rights
	if rights.Nothing() || sc.cloud != "" && !rights.SeesCloud(sc.cloud) || sc.cloud != "" && sc.location != "" && !rights.Sees(sc.cloud, sc.location) {
		return scope{}, errDenied(sc.metadata())
	}
	return sc, nil
}

// parseScope parses a parent whose form the contract's rules have checked.
func parseScope(parent string) scope {
	parts := strings.Split(parent, "/")
	sc := scope{rights: everything{}}
	if len(parts) >= 2 && parts[1] != "-" {
		sc.cloud = parts[1]
	}
	if len(parts) >= 4 && parts[3] != "-" {
		sc.location = parts[3]
	}
	return sc
}

// key binds tokens to the scope. Two spellings of one parent or filter have one
// key.
func (sc scope) key() string {
	key := sc.cloud + "/" + sc.location
	if f := sc.filter.key(); f != "" {
		key += "?" + f
	}
	return key
}

// shared is the key of what those have in common who ask for the same and may see
// the same.
func (sc scope) shared() string {
	if key := sc.rights.Key(); key != "" {
		return sc.key() + "\n" + key
	}
	return sc.key()
}

// view stands for what the scope could select at a moment, whatever is there: the
// configured clouds that the caller may see. Whoever knows what was in one view does
// not know what is in another.
func (sc scope) view(snapshot *inventory.Snapshot) uint32 {
	hash := fnv.New32a()
	_, _ = io.WriteString(hash, sc.rights.Key())
	for _, c := range snapshot.Clouds() {
		if sc.hasCloud(c.Name) {
			_, _ = io.WriteString(hash, "\n"+c.Name)
		}
	}
	return hash.Sum32()
}

// goesOn reports whether whoever knows what the scope selects at one moment has to
// be told only what has changed since to know what it selects at another one. That
// is not so when a cloud is gone, or has come with rows that are older.
func (sc scope) goesOn(from, to *inventory.Snapshot) bool {
	known := map[string]bool{}
	for _, c := range from.Clouds() {
		known[c.Name] = true
	}
	for _, c := range to.Clouds() {
		if !known[c.Name] && sc.hasCloud(c.Name) && slices.ContainsFunc(to.Locations(), func(l *inventory.Location) bool {
			return l.Cloud == c.Name && sc.has(l) && to.Count(l.Name) > 0
		}) {
			return false
		}
		delete(known, c.Name)
	}
	for name := range known {
		if sc.hasCloud(name) {
			return false
		}
	}
	return true
}

func (sc scope) hasCloud(name string) bool {
	return (sc.cloud == "" || sc.cloud == name) && sc.rights.SeesCloud(name)
}

func (sc scope) has(l *inventory.Location) bool { return sc.hasLocation(l.Cloud, l.ID) }

func (sc scope) hasLocation(cloud, location string) bool {
	return (sc.cloud == "" || sc.cloud == cloud) && (sc.location == "" || sc.location == location) && sc.rights.Sees(cloud, location)
}

// selected returns the scope's locations, and the clouds of which no location
// is known. It fails when the scope names something that is not configured.
func (sc scope) selected(snapshot *inventory.Snapshot) (locations []*inventory.Location, unknown []*inventory.Cloud, err error) {
	for _, l := range snapshot.Locations() {
		if sc.has(l) {
			locations = append(locations, l)
		}
	}
	found, undiscovered := false, false
	for _, c := range snapshot.Clouds() {
		if !sc.hasCloud(c.Name) {
			continue
		}
		found = true
		if !c.Discovered {
			undiscovered = true
			unknown = append(unknown, c)
		}
	}
	if !found {
		return nil, nil, notFound(notebookv1.ErrorReason_ERROR_REASON_CLOUD_NOT_FOUND, "no such cloud is configured", sc.metadata())
	}
	if sc.location != "" && len(locations) == 0 && !undiscovered {
		return nil, nil, notFound(notebookv1.ErrorReason_ERROR_REASON_CLOUD_NOT_FOUND, "the cloud has no such location", sc.metadata())
	}
	return locations, unknown, nil
}

func (sc scope) metadata() map[string]string {
	m := map[string]string{}
	if sc.cloud != "" {
		m["cloud"] = sc.cloud
	}
	if sc.location != "" {
		m["location"] = sc.location
	}
	return m
}
