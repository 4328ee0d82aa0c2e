package inventory

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unique"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/upstream"
)

// Row is one version of one notebook. It is immutable, as is everything that
// it points to: snapshots share it.
type Row struct {
	Name     string // resource name
	Location string // resource name of its location
	Cloud    string // the bare name of its cloud
	Revision uint64
	// Deleted marks a tombstone: Notebook is the last known version.
	Deleted  bool
	Time     time.Time // when this version entered the log
	Notebook *notebookv1.Notebook
	// Encoded is Notebook in the wire format, as it stands in the log, in the form of
	// field 1 of another message. That is what it is in a ListResponse.
	Encoded []byte

	key     rowKey
	created uint64            // revision at which it appeared
	earlier life              // of a notebook with the same name that went before
	changed map[string]uint64 // path of a field → revision of its last change

	json     atomic.Pointer[[]byte] // see JSON
	attached atomic.Pointer[attachment]
}

// JSON returns Notebook as protojson. It is made when it is first asked for, and
// then kept: most rows are asked for again and again, or never.
func (r *Row) JSON() ([]byte, error) {
	if text := r.json.Load(); text != nil {
		return *text, nil
	}
	text, err := protojson.Marshal(r.Notebook)
	if err != nil {
		return nil, fmt.Errorf("inventory: %w", err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil { // of the spaces that protojson puts in at whim
		return nil, fmt.Errorf("inventory: %w", err)
	}
	text = bytes.Clone(compact.Bytes()) // without the room behind it
	r.json.Store(&text)
	return text, nil
}

// give gives a row the revision that it was stored at, which it was read without.
func (r *Row) give(revision uint64) {
	r.Revision = revision
	if r.created == 0 {
		r.created = revision
	}
	for path, at := range r.changed {
		if at == 0 {
			r.changed[path] = revision
		}
	}
}

// payload returns Notebook in the wire format.
func (r *Row) payload() []byte {
	_, _, tag := protowire.ConsumeTag(r.Encoded)
	payload, _ := protowire.ConsumeBytes(r.Encoded[tag:])
	return payload
}

// AppendField appends Notebook in the wire format as a field of another message.
func (r *Row) AppendField(out []byte, number protowire.Number) []byte {
	_, _, tag := protowire.ConsumeTag(r.Encoded)
	return append(protowire.AppendTag(out, number, protowire.BytesType), r.Encoded[tag:]...)
}

// attachment is what somebody keeps with a row.
type attachment struct{ key, value any }

// Attach keeps something with the row for all who come after: the last one that was
// attached. Rows are shared, and so are what is made of them and what is attached.
func (r *Row) Attach(key, value any) { r.attached.Store(&attachment{key, value}) }

// Attached returns what was attached last, if it was with this key, else nil.
func (r *Row) Attached(key any) any {
	if a := r.attached.Load(); a != nil && a.key == key {
		return a.value
	}
	return nil
}

// life is from when to when a notebook existed, in revisions. The zero life is
// none. Of several it spans all: what came and went in between may be taken for
// known by somebody who never saw it, which does no harm.
type life struct{ from, to uint64 }

// Known reports whether the notebook existed at any revision from base to at,
// under the name that may have stood for another one then. A caller that was cut
// more than once may have heard of it at any of them.
func (r *Row) Known(base, at uint64) bool {
	return r.created <= at || r.earlier.from <= at && base < r.earlier.to
}

// ChangedSince returns the sorted paths of the fields that changed after a
// revision.
func (r *Row) ChangedSince(revision uint64) []string {
	var paths []string
	for path, at := range r.changed {
		if at > revision {
			paths = append(paths, path)
		}
	}
	sort.Strings(paths)
	return paths
}

// CloudName returns the resource name of a cloud.
func CloudName(cloud string) string { return "clouds/" + cloud }

// LocationName returns the resource name of a location.
func LocationName(cloud, location string) string {
	return CloudName(cloud) + "/locations/" + location
}

func (k rowKey) locationName() string { return LocationName(k.cloud, k.location) }

func (k rowKey) name() string { return k.locationName() + "/notebooks/" + k.id }

var states = map[upstream.State]notebookv1.Notebook_State{
	upstream.StateCreating: notebookv1.Notebook_STATE_CREATING,
	upstream.StateStarting: notebookv1.Notebook_STATE_STARTING,
	upstream.StateRunning:  notebookv1.Notebook_STATE_RUNNING,
	upstream.StateStopping: notebookv1.Notebook_STATE_STOPPING,
	upstream.StateStopped:  notebookv1.Notebook_STATE_STOPPED,
	upstream.StateFailed:   notebookv1.Notebook_STATE_FAILED,
}

// toContract is the only place where a cloud's notebook becomes the contract's.
// Text that is not UTF-8 is repaired, since protobuf would refuse to encode it.
func toContract(key rowKey, n *upstream.Notebook, observed time.Time) *notebookv1.Notebook {
	out := &notebookv1.Notebook{
		Name:         key.name(),
		DisplayName:  valid(n.DisplayName),
		State:        states[n.State],
		CloudState:   valid(n.CloudState),
		StateMessage: valid(n.StateMessage),
		ServerType:   valid(n.ServerType),
		Namespace:    valid(n.Namespace),
		OwnerId:      valid(n.OwnerID),
		RootOwnerId:  valid(n.RootOwnerID),
		CreateTime:   timestamp(n.CreateTime),
		UpdateTime:   timestamp(n.UpdateTime),
		ObserveTime:  timestamp(observed),
		StopTime:     timestamp(n.StopTime),
		ExpireTime:   timestamp(n.ExpireTime),
		Progress:     n.Progress,
	}
	if n.Image != (upstream.Image{}) {
		out.Image = &notebookv1.Image{
			Uri: valid(n.Image.URI), DisplayName: valid(n.Image.DisplayName), Type: valid(n.Image.Type), SizeBytes: n.Image.SizeBytes,
		}
	}
	if n.Resources != (upstream.Resources{}) {
		out.Resources = &notebookv1.Resources{CpuCores: n.Resources.CPUCores, MemoryBytes: n.Resources.MemoryBytes}
		if a := n.Resources.Accelerator; a != (upstream.Accelerator{}) {
			out.Resources.Accelerator = &notebookv1.Accelerator{
				Type: valid(a.Type), Model: valid(a.Model), Count: a.Count, AvailableCount: a.Available, MaxCount: a.Max,
			}
		}
	}
	if n.ResourceGroup != (upstream.ResourceGroup{}) {
		out.ResourceGroup = &notebookv1.ResourceGroup{Id: valid(n.ResourceGroup.ID), Code: valid(n.ResourceGroup.Code)}
	}
	if n.Endpoints != (upstream.Endpoints{}) {
		out.Endpoints = &notebookv1.Endpoints{
			ServiceIp: valid(n.Endpoints.ServiceIP), ServiceUrl: valid(n.Endpoints.ServiceURL),
			SshUrl: valid(n.Endpoints.SSHURL), CustomPort: n.Endpoints.CustomPort,
		}
	}
	if n.Mirrors != (upstream.Mirrors{}) {
		out.Mirrors = &notebookv1.Mirrors{Pip: valid(n.Mirrors.Pip), Conda: valid(n.Mirrors.Conda), Apt: valid(n.Mirrors.APT)}
	}
	for _, name := range n.EnvNames {
		out.EnvNames = append(out.EnvNames, valid(name))
	}
	slices.Sort(out.GetEnvNames())
	for key, value := range n.Attributes {
		if out.Attributes == nil {
			out.Attributes = make(map[string]string, len(n.Attributes))
		}
		out.Attributes[valid(key)] = valid(value)
	}
	return out
}

// intern lets a notebook share with others the strings that many have: those of the
// words, kinds and owners that an account has few of. Names, addresses and ids, of
// which each has its own, are left alone.
func intern(n *notebookv1.Notebook) {
	share := func(texts ...*string) {
		for _, text := range texts {
			if *text != "" {
				*text = unique.Make(*text).Value()
			}
		}
	}
	share(&n.CloudState, &n.StateMessage, &n.ServerType, &n.Namespace, &n.OwnerId, &n.RootOwnerId)
	if i := n.GetImage(); i != nil {
		share(&i.Uri, &i.DisplayName, &i.Type)
	}
	if a := n.GetResources().GetAccelerator(); a != nil {
		share(&a.Type, &a.Model)
	}
	if g := n.GetResourceGroup(); g != nil {
		share(&g.Id, &g.Code)
	}
	if m := n.GetMirrors(); m != nil {
		share(&m.Pip, &m.Conda, &m.Apt)
	}
	for i := range n.GetEnvNames() {
		share(&n.EnvNames[i])
	}
	if len(n.GetAttributes()) > 0 {
		attributes := make(map[string]string, len(n.GetAttributes()))
		for key, value := range n.GetAttributes() {
			share(&key)
			if len(value) <= maxShared {
				share(&value)
			}
			attributes[key] = value
		}
		n.Attributes = attributes
	}
}

// maxShared is the longest value of an attribute that is likely to be that of many.
const maxShared = 16

func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	ts := timestamppb.New(t)
	if ts.CheckValid() != nil { // a year that protobuf cannot hold
		return nil
	}
	return ts
}

// etag names the content of a version. It changes n while it looks at it, so nobody
// else may have n yet.
func etag(n *notebookv1.Notebook) (string, error) {
	observed, updated, own := n.GetObserveTime(), n.GetUpdateTime(), n.GetEtag()
	n.ObserveTime, n.UpdateTime, n.Etag = nil, nil, ""
	a := n.GetResources().GetAccelerator()
	var available *int32
	if a != nil {
		available, a.AvailableCount = a.AvailableCount, nil
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(n)
	n.ObserveTime, n.UpdateTime, n.Etag = observed, updated, own
	if a != nil {
		a.AvailableCount = available
	}
	if err != nil {
		return "", fmt.Errorf("encode %s: %w", n.GetName(), err)
	}
	sum := sha256.Sum256(data)
	return base64.RawURLEncoding.EncodeToString(sum[:12]), nil
}

// expireTolerance is how far a release time may move without being news: one
// that is made from a countdown in minutes moves by itself.
const expireTolerance = 2 * time.Minute

// changedPaths returns the paths of the fields in which two versions differ,
// leaving out what is volatile: when it was observed and updated, how many cards
// are free, a release time that moved a little, and the attributes named. Both
// versions come with their encodings: a field of which both have the same bytes is
// not looked at, which is far cheaper than looking.
func changedPaths(before, after *notebookv1.Notebook, encodedBefore, encodedAfter []byte, volatileAttributes []string) []string {
	var paths []string
	var was, is wireFields
	read := was.read(encodedBefore) && is.read(encodedAfter)
	fields := before.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		n := field.Number()
		if volatileFields[n] || read && n < maxWireFields && bytes.Equal(was[n], is[n]) {
			continue
		}
		compareField("", field, before.ProtoReflect(), after.ProtoReflect(), &paths)
	}
	return slices.DeleteFunc(paths, func(path string) bool {
		switch path {
		case "resources.accelerator.available_count":
			return true
		case "expire_time":
			b, a := before.GetExpireTime(), after.GetExpireTime()
			return b != nil && a != nil && b.AsTime().Sub(a.AsTime()).Abs() <= expireTolerance
		}
		attribute, ok := strings.CutPrefix(path, "attributes.")
		return ok && slices.Contains(volatileAttributes, attribute)
	})
}

// volatileFields are those of a notebook that are never news, by their numbers in the
// contract: etag, observe_time and update_time.
var volatileFields = func() map[protowire.Number]bool {
	numbers := map[protowire.Number]bool{}
	fields := (&notebookv1.Notebook{}).ProtoReflect().Descriptor().Fields()
	for _, name := range []protoreflect.Name{"etag", "observe_time", "update_time"} {
		numbers[fields.ByName(name).Number()] = true
	}
	return numbers
}()

// wireFields are the encoded fields of a message, by number, each with its tag. Of a
// repeated field it is all that is in one piece, which is how they are encoded here.
type wireFields [maxWireFields][]byte

// maxWireFields is above the numbers of the fields of a notebook. Fields with others
// are compared in another way.
const maxWireFields = 64

// read reports whether there was something that could be read.
func (w *wireFields) read(encoded []byte) bool {
	for rest := encoded; len(rest) > 0; {
		number, _, n := protowire.ConsumeField(rest)
		if n < 0 {
			return false
		}
		at := len(encoded) - len(rest)
		if number < maxWireFields {
			if start := len(w[number]); start > 0 && &encoded[at-start] == &w[number][0] {
				w[number] = encoded[at-start : at+n]
			} else {
				w[number] = rest[:n]
			}
		}
		rest = rest[n:]
	}
	return len(encoded) > 0
}

// compare collects the paths of the fields in which two messages differ. It
// descends into the contract's own messages and into maps.
func compare(prefix string, a, b protoreflect.Message, paths *[]string) {
	fields := a.Descriptor().Fields()
	for i := range fields.Len() {
		compareField(prefix, fields.Get(i), a, b, paths)
	}
}

func compareField(prefix string, field protoreflect.FieldDescriptor, a, b protoreflect.Message, paths *[]string) {
	path := prefix + string(field.Name())
	va, vb := a.Get(field), b.Get(field)
	if a.Has(field) == b.Has(field) && va.Equal(vb) {
		return
	}
	switch {
	case field.IsMap():
		keys := map[string]bool{}
		note := func(k protoreflect.MapKey, _ protoreflect.Value) bool { keys[k.String()] = true; return true }
		va.Map().Range(note)
		vb.Map().Range(note)
		for _, key := range slices.Sorted(mapKeys(keys)) {
			k := protoreflect.ValueOfString(key).MapKey()
			if va.Map().Has(k) != vb.Map().Has(k) || !va.Map().Get(k).Equal(vb.Map().Get(k)) {
				*paths = append(*paths, path+"."+key)
			}
		}
	case field.Message() != nil && !field.IsList() && field.Message().ParentFile().Package() == "notebook.v1":
		compare(path+".", va.Message(), vb.Message(), paths)
	default:
		*paths = append(*paths, path)
	}
}

func mapKeys(m map[string]bool) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for key := range m {
			if !yield(key) {
				return
			}
		}
	}
}

// encodeChanged writes path=revision pairs for a header. Attribute names come
// from a cloud and may hold anything, so paths are quoted.
func encodeChanged(changed map[string]uint64) string {
	parts := make([]string, 0, len(changed))
	for path, revision := range changed {
		parts = append(parts, strconv.QuoteToASCII(path)+"="+strconv.FormatUint(revision, 10))
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}

// decodeChanged is the inverse of encodeChanged; own stands in for revision 0.
func decodeChanged(text string, own uint64) map[string]uint64 {
	if text == "" {
		return nil
	}
	changed := map[string]uint64{}
	for text != "" {
		quoted, err := strconv.QuotedPrefix(text)
		if err != nil {
			return changed
		}
		path, _ := strconv.Unquote(quoted) // QuotedPrefix has checked it
		text = strings.TrimPrefix(text[len(quoted):], "=")
		digits, rest, _ := strings.Cut(text, " ")
		text = rest
		revision, err := strconv.ParseUint(digits, 10, 64)
		if err != nil {
			return changed
		}
		changed[path] = cmp.Or(revision, own)
	}
	return changed
}

// usage sums up the accelerator pools that a listing speaks of.
func usage(notebooks []upstream.Notebook) []*notebookv1.ResourceGroupUsage {
	type pool struct{ group, kind string }
	seen := map[pool]*notebookv1.ResourceGroupUsage{}
	for i := range notebooks {
		n := &notebooks[i]
		a := &n.Resources.Accelerator
		if n.ResourceGroup == (upstream.ResourceGroup{}) || a.Available == nil {
			continue
		}
		p := pool{cmp.Or(n.ResourceGroup.Code, n.ResourceGroup.ID), a.Type}
		if _, ok := seen[p]; ok {
			continue
		}
		u := &notebookv1.ResourceGroupUsage{
			Id: valid(n.ResourceGroup.ID), Code: valid(n.ResourceGroup.Code), Accelerator: valid(a.Type), Free: *a.Available,
		}
		if a.Max != nil {
			u.Max = *a.Max
		}
		seen[p] = u
	}
	out := make([]*notebookv1.ResourceGroupUsage, 0, len(seen))
	for _, u := range seen {
		out = append(out, u)
	}
	slices.SortFunc(out, func(a, b *notebookv1.ResourceGroupUsage) int {
		return cmp.Or(cmp.Compare(a.GetCode(), b.GetCode()), cmp.Compare(a.GetId(), b.GetId()), cmp.Compare(a.GetAccelerator(), b.GetAccelerator()))
	})
	return out
}

// Address returns the cloud's own ids of the notebook's location and of the
// notebook.
func (r *Row) Address() (location, id string) { return r.key.location, r.key.id }
