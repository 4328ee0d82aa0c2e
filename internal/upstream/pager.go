package upstream

import "fmt"

const (
	// PagerOverlap is how many rows of a page are asked for again with the next
	// one, at first. That many, less one, may vanish between two pages at no
	// cost.
	PagerOverlap = 4
	// maxOverlap bounds how far it grows in a list that moves faster.
	maxOverlap = 64
	// maxRetreats bounds how often one listing goes back. As each retreat in a
	// row is twice as far, ten reach the start of the longest list.
	maxRetreats = 16
)

// Pager finds the way through a list that is addressed by offset and moves
// while it is read. A Pager with its exported fields set is ready for use.
//
// Rows keep their order, but rows that vanish shift those behind them to lower
// offsets. If each page simply started where the last one ended, the shifted
// ones would be skipped. So each page starts some rows earlier and has to show
// at least one row that is known already: a page is a stretch without gaps,
// hence nothing lies between the known rows and the new ones. A page without a
// known row may have skipped some: it is not built upon, and reading goes back,
// at worst to the start, before which there is nothing. From then on more rows
// are read twice.
type Pager struct {
	Limit    int // rows of a full page; above 64
	MaxPages int // bounds the requests of one listing

	offset   int             // where the next page starts, or a little earlier
	known    map[string]bool // ids of all rows up to the furthest one read without a gap
	overlap  int
	pages    int
	retreats int
	back     int // how far the last retreat went; zero once there were new rows again
	done     bool
}

// Offset is where the next page has to start, or earlier.
func (p *Pager) Offset() int { return p.offset }

// Done reports whether the list was read to its end.
func (p *Pager) Done() bool { return p.done }

// Take judges the page that was read from offset on and decides what comes
// next. last says that the list has no further rows after this page, should it
// join the known ones. It returns what is wrong with the listing, or nothing.
func (p *Pager) Take(offset int, ids []string, last bool) (problem string) {
	if p.known == nil {
		p.known, p.overlap = map[string]bool{}, PagerOverlap
	}
	p.pages++
	seen, fresh := 0, 0
	for _, id := range ids {
		if p.known[id] {
			seen++
		} else {
			fresh++
		}
	}
	if offset > 0 && seen == 0 {
		if p.retreats++; p.retreats > maxRetreats {
			return "the list changes faster than it can be read"
		}
		p.back = max(2*p.back, p.Limit-p.overlap)
		p.overlap = min(2*p.overlap, maxOverlap)
		p.offset = max(offset-p.back, 0)
		return p.bounded()
	}
	for _, id := range ids {
		p.known[id] = true
	}
	switch {
	case last:
		p.done = true
	case fresh == 0 && p.back == 0:
		// What was asked for is beyond what is known: the cloud ignores the
		// offset, and whatever is behind this page cannot be read.
		return "a further page has only rows of earlier ones"
	default:
		if fresh > 0 {
			p.back = 0
		}
		p.offset = max(offset+len(ids)-p.overlap, offset+1)
	}
	return p.bounded()
}

func (p *Pager) bounded() string {
	if !p.done && p.pages >= p.MaxPages {
		return fmt.Sprintf("the list has no end within %d pages", p.MaxPages)
	}
	return ""
}
