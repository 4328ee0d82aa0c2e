package upstream

import (
	"context"
	"hash/maphash"
	"time"
)

// Relister is a Provider that need not read again what a cloud sends again.
type Relister interface {
	Provider
	// Relist is List with the memo of the listing of the same location before. Of
	// what is known there it returns notebooks that are Unchanged. A nil Memo knows
	// nothing.
	Relist(ctx context.Context, location string, memo *Memo) ([]Notebook, error)
}

// Memo knows the notebooks of one location's last listing by what the cloud sent for
// each, byte by byte. Decoding is most of what a listing costs, and from one to the
// next little changes. Whoever lists calls Keep when the listing has been taken in,
// and Forget when a part of it may have been. A Memo is not safe for concurrent use.
type Memo struct {
	seeds      [2]maphash.Seed
	last, next map[Sent]remembered // next is for Keep, and empty otherwise
	pools      map[pool]*pool
}

// Sent stands for what a cloud has sent for a notebook: 128 bits of a hash, so that
// another text has practically never the same. It means something to one Memo only.
type Sent [2]uint64

// remembered is what is known of a notebook, in little room: an account may have
// very many.
type remembered struct {
	id      string
	pool    *pool
	updated int64 // Unix ns; 0 for none
	state   State
}

// pool is the part of a notebook that tells about the accelerators that it shares
// with others. A pointer to a nil Available would not compare, so has tells.
type pool struct {
	group          ResourceGroup
	kind           string
	available, max int32
	hasAvailable   bool
	hasMax         bool
}

// NewMemo returns a Memo that knows nothing.
func NewMemo() *Memo {
	return &Memo{
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		last:  map[Sent]remembered{}, next: map[Sent]remembered{}, pools: map[pool]*pool{},
	}
}

// Len is how many notebooks the last listing had.
func (m *Memo) Len() int {
	if m == nil {
		return 0
	}
	return len(m.last)
}

// Decode returns the notebook that was sent as raw: as one that is Unchanged, or as
// decode reads it. It reports what decode does. lasting says whether the same text
// means the same later; times that are told by a countdown do not.
func (m *Memo) Decode(raw []byte, decode func() (n Notebook, lasting, ok bool)) (Notebook, bool) {
	if m == nil {
		n, _, ok := decode()
		return n, ok
	}
	sent := Sent{maphash.Bytes(m.seeds[0], raw), maphash.Bytes(m.seeds[1], raw)}
	if known, ok := m.last[sent]; ok {
		n := known.notebook()
		n.Sent = sent
		return n, true
	}
	n, lasting, ok := decode()
	if ok && lasting {
		n.Sent = sent
	}
	return n, ok
}

// Keep says that the notebooks of a listing, each id once, are known from now on.
// Those of the one before are not any more.
func (m *Memo) Keep(listing []Notebook) {
	for i := range listing {
		n := &listing[i]
		if n.Sent == (Sent{}) {
			continue
		}
		known, ok := m.last[n.Sent]
		if !ok {
			known = m.remember(n)
		}
		m.next[n.Sent] = known
	}
	m.last, m.next = m.next, m.last
	clear(m.next)
	clear(m.pools) // those in use stay with who uses them
}

// Forget forgets everything.
func (m *Memo) Forget() { clear(m.last) }

func (m *Memo) remember(n *Notebook) remembered {
	a := n.Resources.Accelerator
	p := pool{group: n.ResourceGroup, kind: a.Type, hasAvailable: a.Available != nil, hasMax: a.Max != nil}
	if p.hasAvailable {
		p.available = *a.Available
	}
	if p.hasMax {
		p.max = *a.Max
	}
	shared, ok := m.pools[p]
	if !ok {
		shared = &p
		m.pools[p] = shared
	}
	out := remembered{id: n.ID, pool: shared, state: n.State}
	if !n.UpdateTime.IsZero() {
		out.updated = n.UpdateTime.UnixNano()
	}
	return out
}

func (r remembered) notebook() Notebook {
	n := Notebook{Unchanged: true, ID: r.id, State: r.state, ResourceGroup: r.pool.group}
	n.Resources.Accelerator.Type = r.pool.kind
	if r.pool.hasAvailable {
		n.Resources.Accelerator.Available = &r.pool.available
	}
	if r.pool.hasMax {
		n.Resources.Accelerator.Max = &r.pool.max
	}
	if r.updated != 0 {
		n.UpdateTime = time.Unix(0, r.updated).UTC()
	}
	return n
}
