// Package imagechange changes the image of a notebook: it plans, asks the cloud
// once, and reads back what became of it.
//
// It never sends a change twice, and it keeps no registry password beyond the
// one call that needs it.
package imagechange

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/inventory"
	"github.com/notebookd/notebookd/internal/upstream"
)

// WarningNotebookRunning is the code of the warning that the notebook is not
// stopped.
const WarningNotebookRunning = "NOTEBOOK_RUNNING"

// The refusals that are not a cloud's.
var (
	ErrNotFound     = errors.New("no such notebook")
	ErrEtag         = errors.New("the notebook is not at the version that the etag names")
	ErrInProgress   = errors.New("another image change of the notebook is under way")
	ErrNotSupported = errors.New("the cloud cannot change the image of a notebook")
)

// FieldError is a request that does not fit the cloud.
type FieldError struct{ Field, Problem string }

// Error implements error.
func (e *FieldError) Error() string { return e.Field + ": " + e.Problem }

// WarningsError lists the consequences that were not acknowledged.
type WarningsError struct {
	Warnings []*notebookv1.ImageChange_Warning
}

// Error implements error.
func (e *WarningsError) Error() string {
	codes := make([]string, 0, len(e.Warnings))
	for _, w := range e.Warnings {
		codes = append(codes, w.GetCode())
	}
	return "not acknowledged: " + strings.Join(codes, ", ")
}

// OutcomeUnknownError is a change that was sent and whose answer was lost.
type OutcomeUnknownError struct{ Err error }

// Error implements error.
func (e *OutcomeUnknownError) Error() string { return "outcome unknown: " + e.Err.Error() }

// Unwrap returns what happened to the answer.
func (e *OutcomeUnknownError) Unwrap() error { return e.Err }

// Request asks for one change.
type Request struct {
	Notebook     string // resource name
	Image        string
	ImageType    string
	Credential   *upstream.RegistryCredential
	Etag         string
	ValidateOnly bool
	Acknowledge  []string
}

// Changer changes images. It is safe for concurrent use.
type Changer struct {
	inventory *inventory.Inventory
	log       *slog.Logger

	mu       sync.Mutex
	inFlight map[string]bool // by notebook, guarded by mu
}

// New returns a Changer. logger may be nil.
func New(inv *inventory.Inventory, logger *slog.Logger) *Changer {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Changer{inventory: inv, log: logger, inFlight: map[string]bool{}}
}

const (
	// readBackFor bounds how long a change waits to be seen in the cloud.
	readBackFor = 10 * time.Second
	// answerMargin is kept of the caller's deadline for the answer's way home:
	// a quarter of the time left, within these bounds.
	minAnswerMargin = 250 * time.Millisecond
	maxAnswerMargin = 2 * time.Second
)

// Change makes one change, or plans it. Its errors are those of this package,
// an *upstream.Error, or the context's before anything was sent.
func (c *Changer) Change(ctx context.Context, req Request) (*notebookv1.ImageChange, *notebookv1.Notebook, error) {
	row, ok := c.inventory.Snapshot().Get(req.Notebook)
	if !ok {
		return nil, nil, ErrNotFound
	}
	source, ok := c.inventory.Source(row.Cloud)
	if !ok {
		return nil, nil, ErrNotFound
	}
	can := source.Provider.Capabilities()
	if err := fits(req, can); err != nil {
		return nil, nil, err
	}
	if !c.begin(req.Notebook) {
		return nil, nil, ErrInProgress
	}
	defer c.end(req.Notebook)
	// Read again: until now another change may have been under way.
	if row, ok = c.inventory.Snapshot().Get(req.Notebook); !ok {
		return nil, nil, ErrNotFound
	}
	if req.Etag != "" && req.Etag != row.Notebook.GetEtag() {
		return nil, nil, ErrEtag
	}

	change := &notebookv1.ImageChange{
		Notebook:   req.Notebook,
		FromImage:  row.Notebook.GetImage().GetUri(),
		ToImage:    req.Image,
		CreateTime: timestamppb.Now(),
		Warnings:   warnings(row.Notebook),
	}
	if hasImage(row.Notebook, req) && req.Credential == nil {
		change.Warnings = nil
		return in(change, notebookv1.ImageChange_PHASE_UNCHANGED), row.Notebook, nil
	}
	if req.ValidateOnly {
		return in(change, notebookv1.ImageChange_PHASE_PLANNED), row.Notebook, nil
	}
	if open := slices.DeleteFunc(slices.Clone(change.GetWarnings()), func(w *notebookv1.ImageChange_Warning) bool {
		return slices.Contains(req.Acknowledge, w.GetCode())
	}); len(open) > 0 {
		return nil, nil, &WarningsError{Warnings: open}
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	return c.send(ctx, source, row, req, change)
}

// fits checks a request against what the cloud can do.
func fits(req Request, can upstream.Capabilities) error {
	if can.ChangeImage == upstream.ChangeImageUnsupported {
		return ErrNotSupported
	}
	switch {
	case len(can.ImageTypes) == 0 && req.ImageType != "":
		return &FieldError{"image_type", "this cloud takes none"}
	case len(can.ImageTypes) > 0 && !slices.Contains(can.ImageTypes, req.ImageType):
		return &FieldError{"image_type", "must be one of " + strings.Join(can.ImageTypes, ", ")}
	case req.Credential != nil && !can.RegistryCredential:
		return &FieldError{"registry_credential", "this cloud takes none"}
	}
	return nil
}

func warnings(n *notebookv1.Notebook) []*notebookv1.ImageChange_Warning {
	if n.GetState() == notebookv1.Notebook_STATE_STOPPED {
		return nil
	}
	return []*notebookv1.ImageChange_Warning{{
		Code:    WarningNotebookRunning,
		Message: "The notebook is not stopped. The cloud may refuse, or unsaved work in it may be lost. Stop it first, or acknowledge.",
	}}
}

// send asks the cloud once and reads back.
func (c *Changer) send(
	ctx context.Context, source inventory.Source, row *inventory.Row, req Request, change *notebookv1.ImageChange,
) (*notebookv1.ImageChange, *notebookv1.Notebook, error) {
	location, id := row.Address()
	log := c.log.With("cloud", source.Name, "location", location, "notebook", id)
	// Whoever asked may leave, but a write that is under way is not torn off:
	// the client's own deadline ends it.
	_, err := source.Provider.ChangeImage(context.WithoutCancel(ctx), upstream.ImageRequest{
		Location: location, NotebookID: id, Namespace: row.Notebook.GetNamespace(),
		Image: req.Image, ImageType: req.ImageType, Credential: req.Credential,
	})
	change.Sent = err == nil || upstream.MaySent(err)
	switch {
	case err == nil:
		log.Info("image change accepted", "from", change.GetFromImage(), "to", change.GetToImage())
	case change.GetSent() && lost(err):
		log.Warn("image change: answer lost, reading back", "to", change.GetToImage(), "error", err)
	default:
		log.Warn("image change refused", "to", change.GetToImage(), "error", err)
		return nil, nil, err
	}

	notebook, seen := c.readBack(ctx, row, req)
	switch {
	case seen:
		log.Info("image change seen", "to", change.GetToImage())
		return in(change, notebookv1.ImageChange_PHASE_SUCCEEDED), notebook, nil
	case err == nil:
		return in(change, notebookv1.ImageChange_PHASE_VERIFYING), notebook, nil
	default:
		return nil, nil, &OutcomeUnknownError{Err: err}
	}
}

// lost reports whether an error leaves open what the cloud did.
func lost(err error) bool {
	if upstream.IsContext(err) {
		return true
	}
	return upstream.KindOf(err).TripsBreaker()
}

// readBack polls the notebook's location until it has the image, within the
// caller's deadline.
func (c *Changer) readBack(ctx context.Context, row *inventory.Row, req Request) (n *notebookv1.Notebook, seen bool) {
	limit := readBackFor
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		limit = min(limit, left-min(max(left/4, minAnswerMargin), maxAnswerMargin))
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for pause := 250 * time.Millisecond; ; pause *= 2 {
		err := c.inventory.Refresh(ctx, row.Location)
		if current, ok := c.inventory.Snapshot().Get(req.Notebook); ok {
			n = current.Notebook
			if err == nil && hasImage(n, req) {
				return n, true
			}
		}
		select {
		case <-time.After(pause): // a cloud may show the change late
		case <-ctx.Done():
			return n, false
		}
	}
}

// hasImage reports whether a notebook has the image asked for.
func hasImage(n *notebookv1.Notebook, req Request) bool {
	return n.GetImage().GetUri() == req.Image && (req.ImageType == "" || n.GetImage().GetType() == req.ImageType)
}

func in(change *notebookv1.ImageChange, phase notebookv1.ImageChange_Phase) *notebookv1.ImageChange {
	change.Phase, change.UpdateTime = phase, timestamppb.Now()
	return change
}

func (c *Changer) begin(notebook string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inFlight[notebook] {
		return false
	}
	c.inFlight[notebook] = true
	return true
}

func (c *Changer) end(notebook string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.inFlight, notebook)
}
