package service

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"go.einride.tech/aip/ordering"
	"google.golang.org/protobuf/types/known/timestamppb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// order is a parsed order_by, in the form of AIP-132. It is total: its last key
// is always the name, which no two notebooks share. It is immutable.
type order []orderKey

type orderKey struct {
	path string
	desc bool
	orderField
}

// orderField is a field that notebooks can be ordered by. Its functions treat
// one value: compare two, append one to a position, and take one from the front
// of a position into a notebook.
type orderField struct {
	compare func(a, b *notebookv1.Notebook) int
	put     func(to []byte, n *notebookv1.Notebook) []byte
	take    func(from []byte, n *notebookv1.Notebook) (rest []byte, ok bool)
}

// orderFields are the fields by their paths.
var orderFields = map[string]orderField{
	pathName: {
		compare: func(a, b *notebookv1.Notebook) int { return strings.Compare(a.GetName(), b.GetName()) },
		// It comes last, so it needs no length, and a position by name alone is
		// the name.
		put: func(to []byte, n *notebookv1.Notebook) []byte { return append(to, n.GetName()...) },
		take: func(from []byte, n *notebookv1.Notebook) ([]byte, bool) {
			n.Name = string(from)
			return nil, len(from) > 0
		},
	},
	"display_name": {
		compare: func(a, b *notebookv1.Notebook) int {
			return strings.Compare(clip(a.GetDisplayName()), clip(b.GetDisplayName()))
		},
		put: func(to []byte, n *notebookv1.Notebook) []byte {
			text := clip(n.GetDisplayName())
			return append(binary.AppendUvarint(to, uint64(len(text))), text...)
		},
		take: func(from []byte, n *notebookv1.Notebook) ([]byte, bool) {
			length, size := binary.Uvarint(from)
			if size <= 0 || length > uint64(len(from)-size) {
				return nil, false
			}
			end := size + int(length)
			n.DisplayName = string(from[size:end])
			return from[end:], true
		},
	},
	"state": {
		compare: func(a, b *notebookv1.Notebook) int { return cmp.Compare(a.GetState(), b.GetState()) },
		put: func(to []byte, n *notebookv1.Notebook) []byte {
			return binary.AppendVarint(to, int64(n.GetState()))
		},
		take: func(from []byte, n *notebookv1.Notebook) ([]byte, bool) {
			state, rest, ok := takeInt32(from)
			n.State = notebookv1.Notebook_State(state)
			return rest, ok
		},
	},
	"create_time": timeOrder((*notebookv1.Notebook).GetCreateTime,
		func(n *notebookv1.Notebook, t *timestamppb.Timestamp) { n.CreateTime = t }),
	"update_time": timeOrder((*notebookv1.Notebook).GetUpdateTime,
		func(n *notebookv1.Notebook, t *timestamppb.Timestamp) { n.UpdateTime = t }),
	"expire_time": timeOrder((*notebookv1.Notebook).GetExpireTime,
		func(n *notebookv1.Notebook, t *timestamppb.Timestamp) { n.ExpireTime = t }),
}

const pathName = "name"

// timeOrder orders by a time. One that is unset comes first, so last in
// descending order.
func timeOrder(get func(*notebookv1.Notebook) *timestamppb.Timestamp, set func(*notebookv1.Notebook, *timestamppb.Timestamp)) orderField {
	return orderField{
		compare: func(a, b *notebookv1.Notebook) int { return compareTimes(get(a), get(b)) },
		put: func(to []byte, n *notebookv1.Notebook) []byte {
			t := get(n)
			if t == nil {
				return append(to, 0)
			}
			return binary.AppendVarint(binary.AppendVarint(append(to, 1), t.GetSeconds()), int64(t.GetNanos()))
		},
		take: func(from []byte, n *notebookv1.Notebook) ([]byte, bool) {
			if len(from) == 0 || from[0] > 1 {
				return nil, false
			}
			set(n, nil)
			if from[0] == 0 {
				return from[1:], true
			}
			from = from[1:]
			seconds, size := binary.Varint(from)
			if size <= 0 {
				return nil, false
			}
			nanos, rest, ok := takeInt32(from[size:])
			set(n, &timestamppb.Timestamp{Seconds: seconds, Nanos: nanos})
			return rest, ok
		},
	}
}

func takeInt32(from []byte) (v int32, rest []byte, ok bool) {
	wide, size := binary.Varint(from)
	if size <= 0 || wide < math.MinInt32 || wide > math.MaxInt32 {
		return 0, nil, false
	}
	return int32(wide), from[size:], true
}

// maxOrderText is how much of a display name takes part in the order. A cloud
// may allow any length, but a page token, which holds it, may have 4096
// characters.
const maxOrderText = 512

func clip(text string) string { return text[:min(len(text), maxOrderText)] }

// orderError says what is wrong with an order_by.
type orderError struct {
	// Field is the field that it is about; empty for errors of syntax.
	Field string
	// Problem says what is wrong and what is allowed.
	Problem string
}

// Error implements error.
func (e *orderError) Error() string {
	if e.Field == "" {
		return e.Problem
	}
	return e.Field + ": " + e.Problem
}

// parseOrder parses an order_by; an empty one orders by name. Its errors are
// *orderError.
func parseOrder(text string) (order, error) {
	var parsed ordering.OrderBy
	if strings.TrimSpace(text) != "" {
		if err := parsed.UnmarshalString(text); err != nil { // its words repeat all of the text
			return nil, &orderError{Problem: fmt.Sprintf("%s is not a list of fields, separated by commas, each alone or with asc or desc after it", echo(text))}
		}
	}
	var o order
	seen := map[string]bool{}
	for _, f := range parsed.Fields {
		path := snake(f.Path)
		by, ok := orderFields[path]
		switch {
		case !ok:
			return nil, &orderError{Field: excerpt(f.Path), Problem: "it cannot be ordered by this; the fields are " + strings.Join(orderable(), ", ")}
		case seen[path]:
			return nil, &orderError{Field: path, Problem: "it is named twice"}
		}
		if !seen[pathName] { // names are unique, so what comes after one orders nothing
			o = append(o, orderKey{path: path, desc: f.Desc, orderField: by})
		}
		seen[path] = true
	}
	if !seen[pathName] {
		o = append(o, orderKey{path: pathName, orderField: orderFields[pathName]})
	}
	return o, nil
}

func orderable() []string {
	var paths []string
	for path := range orderFields {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths
}

// compare compares two notebooks. Only the same notebook compares as 0.
func (o order) compare(a, b *notebookv1.Notebook) int {
	for _, k := range o {
		c := k.compare(a, b)
		if c == 0 {
			continue
		}
		if k.desc {
			return -c
		}
		return c
	}
	return 0
}

// isName tells whether the order is that of the inventory.
func (o order) isName() bool { return len(o) == 1 && !o[0].desc }

// key is the order in one spelling, for binding tokens.
func (o order) key() string {
	keys := make([]string, 0, len(o))
	for _, k := range o {
		if k.desc {
			keys = append(keys, k.path+" desc")
		} else {
			keys = append(keys, k.path)
		}
	}
	return strings.Join(keys, ",")
}

// position is the place of a notebook in the order: its sort values, as bytes
// that only after reads, under the same order. By name alone it is the name.
func (o order) position(n *notebookv1.Notebook) string {
	var b []byte
	for _, k := range o {
		b = k.put(b, n)
	}
	return string(b)
}

var errPosition = errors.New("not a position of this order")

// after returns whether a notebook comes after a position; all do when it is
// empty. A page that begins after the position of the last notebook before it
// needs no memory of that notebook, which may be gone: what exists throughout
// with the same sort values comes exactly once.
func (o order) after(position string) (func(*notebookv1.Notebook) bool, error) {
	if position == "" {
		return func(*notebookv1.Notebook) bool { return true }, nil
	}
	at := &notebookv1.Notebook{}
	from := []byte(position)
	for _, k := range o {
		rest, ok := k.take(from, at)
		if !ok {
			return nil, errPosition
		}
		from = rest
	}
	return func(n *notebookv1.Notebook) bool { return o.compare(n, at) > 0 }, nil
}
