package service

import (
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

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
	limit := s.limits().SlowReader
	var frames atomic.Int64 // that were begun to be sent, and those that were: odd while one is
	ended := make(chan error, 1)
	panicked := make(chan any, 1)
	s.watches.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				panicked <- p // for the interceptor that knows what to do
			}
		}()
		ended <- watch(func(frame *Frame) error {
			frames.Add(1)
			err := send(frame)
			frames.Add(1)
			return err
		})
	})
	// A look now and then costs less than a timer for each frame.
	look := time.NewTicker(max(limit/guardLooks, time.Millisecond))
	defer look.Stop()
	seen, same := int64(0), 0 // since how many looks the same frame is being sent
	for {
		select {
		case err := <-ended:
			return err
		case p := <-panicked:
			panic(p)
		case <-look.C:
			switch now := frames.Load(); {
			case now%2 == 0 || now != seen:
				seen, same = now, 0
			default:
				if same++; same >= guardLooks {
					return s.errSlowReader()
				}
			}
		}
	}
}

// guardLooks is how often guarded looks within the limit of a slow reader.
const guardLooks = 4

func (s *Service) errSlowReader() error {
	return Error(codes.ResourceExhausted, notebookv1.ErrorReason_ERROR_REASON_SLOW_READER,
		"no frame was taken for "+s.limits().SlowReader.String()+"; the last resume token that was received stays valid")
}

// SlowReader is for how long a reader may not take a frame.
func (s *Service) SlowReader() time.Duration { return s.limits().SlowReader }

// Wait returns once every watch has ended, and lets none begin any more. It is
// for after the server stopped.
func (s *Service) Wait() {
	s.callers.close()
	s.watches.Wait()
}

// callers counts the watches that each caller has open.
type callers struct {
	mu     sync.Mutex // guards what is below
	open   map[string]int
	closed bool
}

func (c *callers) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

// enter counts a watch of a caller in, also in all; leave counts it out.
func (c *callers) enter(caller string, limit int, all *sync.WaitGroup) (leave func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errDraining()
	}
	if c.open[caller] >= limit {
		return nil, Error(codes.ResourceExhausted, notebookv1.ErrorReason_ERROR_REASON_TOO_MANY_WATCHES,
			"too many watches are open from here; close one, or share one")
	}
	if c.open == nil {
		c.open = map[string]int{}
	}
	c.open[caller]++
	all.Add(1)
	return func() {
		defer all.Done()
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.open[caller]--; c.open[caller] == 0 {
			delete(c.open, caller)
		}
	}, nil
}
