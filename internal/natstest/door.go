package natstest

import "testing"

// Door is the way of one client to all nodes of a cluster, which can be cut
// without a harm to others.
type Door struct {
	passages []*passage // one for each node
}

// Door opens a way of its own to the nodes. It closes when tb ends.
func (c *Cluster) Door(tb testing.TB) *Door {
	tb.Helper()
	d := new(Door)
	for _, n := range c.nodes {
		d.passages = append(d.passages, openPassage(tb, loopback(n.clientPort)))
	}
	return d
}

// URLs are the addresses of the nodes by way of this door, in the order of the
// nodes.
func (d *Door) URLs() []string {
	urls := make([]string, len(d.passages))
	for i, p := range d.passages {
		urls[i] = "nats://" + p.address()
	}
	return urls
}

// Cut makes the door a black hole. Nothing comes through any more, in either
// direction, and neither side hears of it. New connections get no answer: TCP
// opens them, but NATS never says its first word.
func (d *Door) Cut() {
	for _, p := range d.passages {
		p.cut()
	}
}

// Mend ends a cut. Connections that were open during the cut are closed, as what
// they lost is gone.
func (d *Door) Mend() {
	for _, p := range d.passages {
		p.mend()
	}
}
