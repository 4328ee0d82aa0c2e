package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/notebookd/notebookd/cmd/notebookctl/internal/table"
	"github.com/notebookd/notebookd/cmd/notebookctl/internal/words"
	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// segment returns a segment of a resource name, or nothing.
func segment(name string, i int) string {
	parts := strings.Split(name, "/")
	if i >= len(parts) {
		return ""
	}
	return parts[i]
}

// The parts of the name of a notebook, location or cloud.
func cloudOf(name string) string    { return segment(name, 1) }
func locationOf(name string) string { return segment(name, 3) }
func idOf(name string) string       { return segment(name, 5) }

// short is a resource name without its fixed words.
func short(name string) string {
	parts := []string{cloudOf(name)}
	for _, part := range []string{locationOf(name), idOf(name)} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "/")
}

// ago is how long ago a moment was, for tables.
func (a *app) ago(at *timestamppb.Timestamp) string {
	if at == nil {
		return ""
	}
	return words.Age(a.now().Sub(at.AsTime()))
}

// until is how long it is until a moment, for tables.
func (a *app) until(at *timestamppb.Timestamp) string {
	if at == nil {
		return ""
	}
	return words.Age(at.AsTime().Sub(a.now()))
}

// when is a moment in words.
func (a *app) when(at *timestamppb.Timestamp) string {
	if at == nil {
		return ""
	}
	return a.l.When(at.AsTime(), a.now())
}

// clock is the time of day at which something was told.
func (a *app) clock() string { return a.now().Format("15:04:05") }

// cards is what a notebook has of accelerators.
func cards(r *notebookv1.Resources) string {
	acc := r.GetAccelerator()
	if acc == nil || acc.GetCount() == 0 && acc.GetModel() == "" {
		return ""
	}
	return fmt.Sprintf("%d× %s", acc.GetCount(), cmp.Or(acc.GetModel(), strings.ToUpper(acc.GetType())))
}

// size is a number of bytes, in the units that clouds use for memory.
func size(bytes int64) string {
	const gib = 1 << 30
	switch {
	case bytes == 0:
		return ""
	case bytes%gib == 0:
		return fmt.Sprintf("%d GiB", bytes/gib)
	default:
		return fmt.Sprintf("%.1f GiB", float64(bytes)/gib)
	}
}

func number(v float64) string {
	if v == 0 {
		return ""
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// stateCell is the state of a notebook.
func (a *app) stateCell(s notebookv1.Notebook_State) table.Cell {
	style := table.Plain
	switch s {
	case notebookv1.Notebook_STATE_RUNNING:
		style = table.Green
	case notebookv1.Notebook_STATE_CREATING, notebookv1.Notebook_STATE_STARTING, notebookv1.Notebook_STATE_STOPPING:
		style = table.Yellow
	case notebookv1.Notebook_STATE_FAILED:
		style = table.Red
	case notebookv1.Notebook_STATE_STOPPED:
		style = table.Dim
	default:
	}
	return table.Cell{Text: a.l.State(s), Style: style}
}

// locationCell is the state of a location.
func (a *app) locationCell(s notebookv1.Location_State) table.Cell {
	style := table.Plain
	switch s {
	case notebookv1.Location_STATE_LIVE:
		style = table.Green
	case notebookv1.Location_STATE_STALE:
		style = table.Yellow
	case notebookv1.Location_STATE_UNREACHABLE:
		style = table.Red
	case notebookv1.Location_STATE_DISABLED:
		style = table.Dim
	default:
	}
	return table.Cell{Text: a.l.LocationState(s), Style: style}
}

// phaseCell is how far a change has come.
func (a *app) phaseCell(p notebookv1.ImageChange_Phase) table.Cell {
	style := table.Yellow
	switch p {
	case notebookv1.ImageChange_PHASE_SUCCEEDED:
		style = table.Green
	case notebookv1.ImageChange_PHASE_FAILED, notebookv1.ImageChange_PHASE_OUTCOME_UNKNOWN:
		style = table.Red
	case notebookv1.ImageChange_PHASE_UNCHANGED, notebookv1.ImageChange_PHASE_PLANNED:
		style = table.Plain
	default:
	}
	return table.Cell{Text: a.l.Phase(p), Style: style}
}

// changedPaths returns the paths of the fields that two versions of a notebook
// differ in, as NotebookEvent.changed_fields has them. Times that change with every
// poll are no news.
func changedPaths(before, after *notebookv1.Notebook) []string {
	var paths []string
	compareMessages("", before.ProtoReflect(), after.ProtoReflect(), &paths)
	paths = slices.DeleteFunc(paths, func(path string) bool {
		return slices.Contains([]string{"etag", "observe_time", "update_time", "resources.accelerator.available_count"}, path)
	})
	slices.Sort(paths)
	return paths
}

func compareMessages(prefix string, before, after protoreflect.Message, paths *[]string) {
	fields := before.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		path := prefix + string(field.Name())
		if before.Get(field).Equal(after.Get(field)) && before.Has(field) == after.Has(field) {
			continue
		}
		switch {
		case field.IsMap():
			b, c := before.Get(field).Map(), after.Get(field).Map()
			b.Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
				if !c.Has(key) || !c.Get(key).Equal(value) {
					*paths = append(*paths, path+"."+key.String())
				}
				return true
			})
			c.Range(func(key protoreflect.MapKey, _ protoreflect.Value) bool {
				if !b.Has(key) {
					*paths = append(*paths, path+"."+key.String())
				}
				return true
			})
		case field.Message() != nil && field.Message().ParentFile().Package() == "notebook.v1":
			compareMessages(path+".", before.Get(field).Message(), after.Get(field).Message(), paths)
		default:
			*paths = append(*paths, path)
		}
	}
}

// changedWords tells what is another in a notebook: what people look for with its
// values, and of the rest the names. Where there is little room, images are told by
// their last segments.
func (a *app) changedWords(before, after *notebookv1.Notebook, little bool) string {
	var told, rest []string
	for _, path := range changedPaths(before, after) {
		var from, to string
		switch path {
		case "state":
			from, to = a.l.State(before.GetState()), a.l.State(after.GetState())
		case "display_name":
			from, to = before.GetDisplayName(), after.GetDisplayName()
		case "image.uri":
			from, to = before.GetImage().GetUri(), after.GetImage().GetUri()
			if little {
				from, to = from[strings.LastIndex(from, "/")+1:], to[strings.LastIndex(to, "/")+1:]
			}
		case "cloud_state", "state_message": // the cloud's words for state
			if before.GetState() != after.GetState() {
				continue
			}
			rest = append(rest, path)
			continue
		default:
			rest = append(rest, path)
			continue
		}
		told = append(told, fmt.Sprintf("%s: %s → %s", path, cmp.Or(from, "-"), cmp.Or(to, "-")))
	}
	if len(rest) > 0 {
		told = append(told, a.l.Join(rest))
	}
	return table.Clean(strings.Join(told, a.l.Pick("; ", "；")))
}

// fieldsOf returns the paths of the fields of a message that a filter may name.
func fieldsOf(d protoreflect.MessageDescriptor, without ...string) []string {
	paths := []string{"cloud", "location"}
	var walk func(prefix string, d protoreflect.MessageDescriptor)
	walk = func(prefix string, d protoreflect.MessageDescriptor) {
		for i := range d.Fields().Len() {
			field := d.Fields().Get(i)
			path := prefix + string(field.Name())
			if slices.Contains(without, path) {
				continue
			}
			paths = append(paths, path)
			if field.Message() != nil && !field.IsMap() && field.Message().ParentFile().Package() == d.ParentFile().Package() {
				walk(path+".", field.Message())
			}
		}
	}
	walk("", d)
	return paths
}
