package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/notebookd/notebookd/client"
	"github.com/notebookd/notebookd/cmd/notebookctl/internal/table"
	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// errSpan ends what --for has bounded.
var errSpan = errors.New("the time of --for is over")

// bounded ends what is done with ctx after a span, if there is one. It is no deadline:
// a server that is told one ends the call itself, a moment earlier, and that would
// look like an interruption.
func bounded(ctx context.Context, span time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if span <= 0 {
		return ctx, func() { cancel(nil) }
	}
	timer := time.AfterFunc(span, func() { cancel(errSpan) })
	return ctx, func() {
		timer.Stop()
		cancel(nil)
	}
}

// follow tells every change of notebooks after a state, until ctx ends.
func (a *app) follow(ctx context.Context, parent string, f *listFlags, from client.State, listing *listing) error {
	s, err := a.services()
	if err != nil {
		return err
	}
	tap := &tap{NotebookServiceClient: s.notebooks, a: a}
	w := client.NewWatcher(ctx, tap, client.Config{Parent: parent, Filter: f.filter, From: from, Logger: slog.New(tap)})
	defer w.Close()
	for change, err := range w.Changes(ctx) {
		if err != nil {
			if ctx.Err() != nil { // ctrl-C, or --for
				return nil
			}
			return err
		}
		if err := a.tellChange(listing.out, f, change); err != nil {
			return err
		}
		if err := listing.out.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// tellChange tells one change.
func (a *app) tellChange(out io.Writer, f *listFlags, change client.Change) error {
	if change.Location != nil {
		// The first are those that the list told of already.
		if change.Initial && isTable(f.output) {
			return nil
		}
		if !change.Initial {
			a.tellLocation(change)
		}
		if !isTable(f.output) && f.output != asName {
			return writeEvent(out, f.output, &notebookv1.WatchResponse{ResumeToken: change.Token, Event: &notebookv1.WatchResponse_Location{Location: change.Location}})
		}
		return nil
	}
	switch {
	case f.output == asName:
		_, err := io.WriteString(out, change.Name+"\n")
		return err
	case !isTable(f.output):
		event := &notebookv1.NotebookEvent{
			Type: notebookv1.NotebookEvent_Type(notebookv1.NotebookEvent_Type_value["TYPE_"+change.Type.String()]), Notebook: change.Notebook,
		}
		if change.Type == client.Modified {
			event.ChangedFields = changedPaths(change.Before, change.Notebook)
		}
		return writeEvent(out, f.output, &notebookv1.WatchResponse{ResumeToken: change.Token, Event: &notebookv1.WatchResponse_Notebook{Notebook: event}})
	}
	_, err := io.WriteString(out, a.changeLine(change)+"\n")
	return err
}

// changeWord is the type of a change for people.
func (a *app) changeWord(t client.Type) (string, table.Style) {
	switch t {
	case client.Added:
		return a.l.T("ADDED"), table.Green
	case client.Modified:
		return a.l.T("MODIFIED"), table.Yellow
	case client.Deleted:
		return a.l.T("DELETED"), table.Red
	case client.LeftFilter:
		return a.l.T("LEFT_FILTER"), table.Dim
	default:
		return t.String(), table.Plain
	}
}

// changeLine is a change in a line. On a terminal that is too narrow for it, it says
// less: what happened to which notebook comes first.
func (a *app) changeLine(change client.Change) string {
	n := change.Notebook
	word, style := a.changeWord(change.Type)
	colours, width := a.colours(), a.width()
	line := ""
	for _, little := range []bool{false, true} {
		said, state := n.GetImage().GetUri(), a.l.State(n.GetState())
		if change.Type == client.Modified {
			said = a.changedWords(change.Before, n, little)
		}
		parts := []string{a.clock(), table.Pad(word, table.Width(a.l.T("LEFT_FILTER"))), short(change.Name)}
		if !little {
			parts = append(parts, table.Clean(n.GetDisplayName()))
		}
		if change.Type != client.Modified || change.Before.GetState() == n.GetState() {
			parts = append(parts, state)
		}
		line = strings.Join(append(parts, table.Clean(said)), "  ")
		if width == 0 || table.Width(line) <= width {
			break
		}
	}
	// The colour comes after the cutting, which must not count it.
	before, after, _ := strings.Cut(table.Fit(line, width), word)
	return before + style.Paint(word, colours) + after
}

// tellLocation tells what became of a location, on standard error.
func (a *app) tellLocation(change client.Change) {
	if change.Type == client.Deleted {
		a.say("%s", a.l.T("%s  location %s is gone from the server", a.clock(), change.Name))
		return
	}
	l := change.Location
	text := a.l.T("%s  location %s is %s", a.clock(), l.GetName(), a.l.LocationState(l.GetState()))
	if why := a.locationReason(l.GetReason(), l.GetMessage()); why != "" && l.GetState() != notebookv1.Location_STATE_LIVE {
		text += a.l.Pick(": ", "：") + why
	}
	a.say("%s", text)
}

// locationReason says why a location is not live: in the server's words, which are more
// exact.
func (a *app) locationReason(r notebookv1.ErrorReason, message string) string {
	means, _ := a.l.Reason(r)
	return a.l.Why(means, table.Clean(message))
}

// tap sees what a watch tells beside the changes of notebooks: resets, image
// changes, and that it is connected again. It is also the log of the Watcher, which
// knows when the connection breaks.
type tap struct {
	notebookv1.NotebookServiceClient
	a *app

	mu     sync.Mutex // guards what is below
	broken bool
}

// Watch implements notebookv1.NotebookServiceClient.
func (t *tap) Watch(ctx context.Context, req *notebookv1.WatchRequest, opts ...grpc.CallOption) (grpc.ServerStreamingClient[notebookv1.WatchResponse], error) {
	stream, err := t.NotebookServiceClient.Watch(ctx, req, opts...)
	if err != nil {
		return nil, err
	}
	return &tapped{stream, t}, nil
}

type tapped struct {
	grpc.ServerStreamingClient[notebookv1.WatchResponse]
	t *tap
}

// Recv implements grpc.ServerStreamingClient.
func (s *tapped) Recv() (*notebookv1.WatchResponse, error) {
	frame, err := s.ServerStreamingClient.Recv()
	if err == nil {
		s.t.saw(frame)
	}
	return frame, err
}

// saw takes notice of a frame.
func (t *tap) saw(frame *notebookv1.WatchResponse) {
	a := t.a
	t.mu.Lock()
	again := t.broken
	t.broken = false
	t.mu.Unlock()
	if again {
		a.say("%s", a.l.T("%s  connected again", a.clock()))
	}
	switch event := frame.GetEvent().(type) {
	case *notebookv1.WatchResponse_ImageChange:
		a.say("%s", a.l.T("%s  image change %s of %s: %s", a.clock(), event.ImageChange.GetName(), short(event.ImageChange.GetNotebook()), a.l.Phase(event.ImageChange.GetPhase())))
	case *notebookv1.WatchResponse_Reset_:
		a.say("%s", a.l.T("%s  the server tells everything anew (%s); only what differs is shown", a.clock(), table.Clean(event.Reset_.GetReason())))
	default:
	}
}

// Enabled implements slog.Handler.
func (t *tap) Enabled(context.Context, slog.Level) bool { return true }

// WithAttrs implements slog.Handler.
func (t *tap) WithAttrs([]slog.Attr) slog.Handler { return t }

// WithGroup implements slog.Handler.
func (t *tap) WithGroup(string) slog.Handler { return t }

// Handle implements slog.Handler. A record with a pause is an interruption, a warning
// with an error a token that the server does not take; what else the Watcher logs is
// told elsewhere.
func (t *tap) Handle(_ context.Context, record slog.Record) error {
	var pause time.Duration
	var cause error
	record.Attrs(func(attr slog.Attr) bool {
		switch value := attr.Value.Any().(type) {
		case time.Duration:
			pause = value
		case error:
			cause = value
		}
		return true
	})
	if pause == 0 {
		if reason := reasonOf(cause); reason != "" && record.Level == slog.LevelWarn { // the token is refused
			t.a.say("%s", t.a.l.T("%s  the server tells everything anew (%s); only what differs is shown", t.a.clock(), reason))
		}
		return nil
	}
	t.mu.Lock()
	first := !t.broken
	t.broken = true
	t.mu.Unlock()
	if !first {
		return nil // once is enough, until it is back
	}
	a, why := t.a, ""
	if p := problemOf(cause); p != nil {
		lines, _ := a.explain(p, cause)
		why = lines[0]
	} else if cause != nil {
		why = table.Clean(cause.Error())
	}
	a.say("%s", a.l.T("%s  the connection is interrupted: %s It is tried again.", a.clock(), a.l.Sentence(why, "")))
	return nil
}
