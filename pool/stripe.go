package pool

import (
	"slices"
	"sync"
	"time"
)

// A stripe holds the connections with a number that is the stripe's own modulo
// stripeCount, so that connections that come and go at the same time seldom take the same
// lock (h1-newconn with 2 processors).
type stripe struct {
	mu    sync.Mutex // guards conns and what a ledger keeps for the stripe
	conns map[*Conn]struct{}
	_     [cacheLine - 16]byte
}

const (
	// stripeCount is small because the smaller the maps are, the more of their room is empty.
	stripeCount = 16
	cacheLine   = 128 // in bytes, because Intel's processors fetch lines in pairs
)

func (s *Set) stripeOf(c *Conn) *stripe { return &s.stripes[c.stripe()] }

// lockStripes locks all stripes, and returns what unlocks them.
func (s *Set) lockStripes() (unlock func()) {
	for i := range s.stripes {
		s.stripes[i].mu.Lock()
	}
	return func() {
		for i := range s.stripes {
			s.stripes[i].mu.Unlock()
		}
	}
}

// kept is what remains in a pool of the connections of a stripe.
type kept struct {
	// past is what they have moved in the pool, without the counters of the live ones. A
	// connection that leaves with r bytes adds r here and subtracts r from its next pool,
	// so bytes count in the pool that moved them. past alone may be below zero (it wraps
	// around); past and the live connections together never are.
	past    traffic
	reasons map[string]uint64 // of the closes
}

// close books a connection that is closed.
func (k *kept) close(c *Conn, reason string) {
	k.past.add(c.traffic(), 1)
	if k.reasons == nil {
		k.reasons = make(map[string]uint64)
	}
	k.reasons[reason]++
}

// closeReasons returns the reasons of all closes in the pool. The caller holds the stripes.
func (l *ledger) closeReasons() map[string]uint64 {
	all := make(map[string]uint64)
	for i := range l.kept {
		for reason, count := range l.kept[i].reasons {
			all[reason] += count
		}
	}
	return all
}

// enter puts c into its first pool.
func (s *Set) enter(c *Conn, a *account) {
	stripe := s.stripeOf(c)
	stripe.mu.Lock()
	defer stripe.mu.Unlock()
	if stripe.conns == nil {
		stripe.conns = make(map[*Conn]struct{})
	}
	stripe.conns[c] = struct{}{}
	a.places.Add(1)
	a.active.Add(1)
	a.accepted.Add(1)
	c.account.Store(a)
}

// exit takes c out of its pool, which it returns, and how many connections are left there.
func (s *Set) exit(c *Conn, reason string) (a *account, left int64) {
	stripe := s.stripeOf(c)
	stripe.mu.Lock()
	defer stripe.mu.Unlock()
	a = c.account.Load()
	for !c.account.CompareAndSwap(a, a.closed) {
		a = c.account.Load() // It has left the pool Sniffing.
	}
	delete(stripe.conns, c)
	s.retakePlace(c, a)
	a.places.Add(-1)
	left = a.active.Add(-1)
	a.closings.Add(1)
	a.kept[c.stripe()].close(c, reason)
	a.lifetimes.Record(time.Duration(a.now() - c.opened))
	if c.status.Load()&exemptBit == 0 {
		s.taken.Add(-1)
	}
	if c.status.Load()&innerBit != 0 {
		s.inner.Add(-1)
	}
	s.all.active.Add(-1)
	return a, left
}

// swap moves c from one pool to another, and reports false where it has left the first.
// Where there is traffic to book, nobody must look in between.
func (s *Set) swap(c *Conn, from, to *account) bool {
	if from.tag != Sniffing {
		s.mu.Lock()
		defer s.mu.Unlock()
		stripe := s.stripeOf(c)
		stripe.mu.Lock()
		defer stripe.mu.Unlock()
	}
	if !c.account.CompareAndSwap(from, to) {
		return false
	}
	if from.tag != Sniffing {
		moved := c.traffic()
		from.kept[c.stripe()].past.add(moved, 1)
		to.kept[c.stripe()].past.add(moved, -1)
		s.retakePlace(c, from)
	}
	to.accepted.Add(1)
	from.moved.Add(1)
	return true
}

// appendTo appends the stripe's connections in the pools named, or all.
func (s *stripe) appendTo(conns []*Conn, tags []Tag) []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if len(tags) == 0 || slices.Contains(tags, c.account.Load().tag) {
			conns = append(conns, c)
		}
	}
	return conns
}
