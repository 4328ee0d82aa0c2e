package service

import (
	"strings"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/inventory"
)

// scope is what a List or Watch selects: a parsed parent, of which an empty part
// stands for any, and a filter.
type scope struct {
	cloud, location string
	filter          *filter[*notebookv1.Notebook]
}

// newScope parses a parent and a filter.
func newScope(parent, filter string) (scope, error) {
	f, err := parseFilter(filter)
	if err != nil {
		return scope{}, err
	}
	sc := parseScope(parent)
	sc.filter = f
	return sc, nil
}

// parseScope parses a parent whose form the contract's rules have checked.
func parseScope(parent string) scope {
	parts := strings.Split(parent, "/")
	var sc scope
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

func (sc scope) hasCloud(name string) bool { return sc.cloud == "" || sc.cloud == name }

func (sc scope) has(l *inventory.Location) bool {
	return sc.hasCloud(l.Cloud) && (sc.location == "" || sc.location == l.ID)
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
