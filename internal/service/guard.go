package service

import (
	"context"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
)

// WatchLimits keeps watches within bounds. Zero fields have the documented
// default.
type WatchLimits struct {
	// MaxPerCaller is how many watches one caller may have open. Default 1000.
	MaxPerCaller int
	// MaxLifetime is after what time a watch is told to come again, ±10 %.
	// Default 1 h.
	MaxLifetime time.Duration
	// SlowReader is for how long a reader may not take a frame. Default 30 s.
	SlowReader time.Duration
}

func (l WatchLimits) withDefaults() WatchLimits {
	if l.MaxPerCaller == 0 {
		l.MaxPerCaller = 1000
	}
	if l.MaxLifetime == 0 {
		l.MaxLifetime = time.Hour
	}
	if l.SlowReader == 0 {
		l.SlowReader = 30 * time.Second
	}
	return l
}

// guarded runs a watch and ends it when its reader has not taken a frame for
// too long. A send that blocks cannot be given up by the one who sends, so the
// watch has a goroutine of its own; it ends at the latest with its stream, which
// is when guarded returns, and Wait waits for it.
func (s *Service) guarded(send sendFunc, watch func(sendFunc) error) error {
	stuck := make(chan struct{}) // closed by the timer, once
	limit := s.watchLimits.SlowReader
	timer := time.AfterFunc(limit, sync.OnceFunc(func() { close(stuck) }))
	timer.Stop() // it runs only while a frame is being sent
	ended := make(chan error, 1)
	panicked := make(chan any, 1)
	s.watches.Go(func() {
		defer timer.Stop()
		defer func() {
			if p := recover(); p != nil {
				panicked <- p // for the interceptor that knows what to do
			}
		}()
		ended <- watch(func(frame *notebookv1.WatchResponse) error {
			timer.Reset(limit)
			err := send(frame)
			timer.Stop()
			return err
		})
	})
	select {
	case err := <-ended:
		return err
	case p := <-panicked:
		panic(p)
	case <-stuck:
		return Error(codes.ResourceExhausted, notebookv1.ErrorReason_ERROR_REASON_SLOW_READER,
			"no frame was taken for "+limit.String()+"; the last resume token that was received stays valid")
	}
}

// Wait returns once every watch has ended. It is for after the server stopped.
func (s *Service) Wait() { s.watches.Wait() }

// callers counts the watches that each caller has open.
type callers struct {
	mu   sync.Mutex // guards open
	open map[string]int
}

// enter counts a watch of a caller in; leave counts it out.
func (c *callers) enter(caller string, limit int) (leave func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[caller] >= limit {
		return nil, Error(codes.ResourceExhausted, notebookv1.ErrorReason_ERROR_REASON_TOO_MANY_WATCHES,
			"too many watches are open from here; close one, or share one")
	}
	if c.open == nil {
		c.open = map[string]int{}
	}
	c.open[caller]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.open[caller]--; c.open[caller] == 0 {
			delete(c.open, caller)
		}
	}, nil
}

// peerHost is the caller when nobody says better: the host of the other end.
func peerHost(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		return p.Addr.String()
	}
	return host
}
