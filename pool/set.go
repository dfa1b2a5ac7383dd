// Package pool accounts for live connections.
//
// A [Set] knows every connection that a server has accepted and not yet closed. Each is
// wrapped in a [Conn] that counts its bytes, and is in exactly one pool at a time: the
// one its [Tag] names. A connection starts in the pool [Sniffing]. It is moved when its
// protocol is known, and again when it changes protocol, as HTTP/1.1 does to WebSocket.
//
// One goroutine visits all connections, instead of a timer for each ([Set.Sweep]).
// Observers are told what happens ([Set.Observe]). The package knows no protocol: a tag
// is a name that the caller chooses.
package pool

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/pool/requests"
)

// Tag names the pool that a connection is in: by convention the name of its protocol.
type Tag string

// Sniffing is the tag of a connection whose protocol is not known yet.
const Sniffing Tag = "sniffing"

// Stats are the totals of one pool since its Set was made.
type Stats struct {
	Active        int64  `json:"active"`         // connections in the pool now
	Accepted      uint64 `json:"accepted"`       // connections that ever came into it
	Closed        uint64 `json:"closed"`         // of those, the ones that were closed in it
	Moved         uint64 `json:"moved"`          // of those, the ones that left for another pool
	BytesReceived uint64 `json:"bytes_received"` // from the peers
	BytesSent     uint64 `json:"bytes_sent"`     // to the peers

	// What [Conn.CountMessages] was told of connections while they were in the pool.
	MessagesReceived uint64 `json:"messages_received"`
	MessagesSent     uint64 `json:"messages_sent"`

	AcceptedPerSecond float64 `json:"accepted_per_second"` // in the last full second
	AcceptedPerMinute float64 `json:"accepted_per_minute"` // over the last 60, or since the Set was first used

	Rejected map[string]uint64 `json:"-"` // refused or given up, by the reason of [Set.Reject]
	Reasons  map[string]uint64 `json:"-"` // closed in the pool, by [Conn.CloseReason]
	// Lifetimes of the closed connections, in buckets from a second to a day.
	Lifetimes requests.DurationTotals `json:"-"`
}

// Set is the set of all live connections, divided into pools by tag. The zero value is
// ready to use. All methods may be called concurrently.
//
// A connection that is moved once takes the Set's lock twice: in Add and in Close. A read
// or a write never takes it. Methods that return figures do.
type Set struct {
	// What reads, writes and moves look at, which seldom changes. What a pointer points to
	// is never changed: it is replaced by a copy, with mu held.
	clock     atomic.Uint32 // steps of clockStep since began
	waiters   atomic.Int32  // calls of wait
	taken     atomic.Int64  // places of all connections; changed with mu held
	accounts  atomic.Pointer[map[Tag]*account]
	rules     atomic.Pointer[rules]
	observers atomic.Pointer[[]*observer] // nil while there are none
	timeouts  []string                    // see SetTimeouts
	armLocks  [64]sync.Mutex              // see Conn.rearm

	nextID  atomic.Uint64
	lastSeq atomic.Uint64 // of the events

	// mu guards all that follows, and the fields of Conn and ledger that say so.
	mu      sync.Mutex
	conns   map[*Conn]struct{}
	began   time.Time              // when the Set was first used
	second  uint64                 // since then, of the last advance
	books   map[Tag]*requests.Book // never changed, but replaced by a copy
	health  Health                 // of all pools together
	ticking bool                   // the clock runs
	exempt  int                    // live connections that take no place
	yielded int                    // of those, the ones that have given it up by Yield
	// While clients are limited: how many connections each has, and the client of each.
	clients   map[netip.Addr]int
	addresses map[*Conn]netip.Addr
	wake      chan struct{} // closed to have the calls of wait look again; nil while there is none
}

// Add wraps raw in c and puts c into the pool Sniffing. The caller closes c. The owner is
// what [Conn.Owner] returns.
//
// The client of a bare TCP or Unix socket is its peer. For any other connection the
// caller names the client by [Set.Identify].
//
// The result is empty, or the reason for which a limit refuses the connection. c is in
// the pool even then, because a polite refusal takes a moment.
func (s *Set) Add(c *Conn, raw net.Conn, owner any) (refuse string) {
	c.raw, c.owner = raw, owner
	c.id = s.nextID.Add(1)
	var events step
	s.mu.Lock()
	defer s.unlock(&events)
	a := s.openAccount(Sniffing)
	c.opened = a.now()
	s.wind(c.opened)
	c.last.Store(s.clock.Load())
	if r := s.ruled(); r.OnLimit != Wait && r.MaxConnections > 0 && s.counted() >= r.MaxConnections {
		refuse = ReasonLimit
	}
	s.conns[c] = struct{}{}
	s.taken.Store(int64(s.counted()))
	s.note(&events, Event{Kind: EventAdded, Conn: c, Tag: Sniffing})
	a.places.Add(1)
	a.active.Add(1)
	a.accepted.Add(1)
	c.account.Store(a)
	s.judge(a, &events)
	s.judgeTotal(&events)
	if refuse != "" {
		s.note(&events, Event{Kind: EventLimitReached, Conn: c, Tag: Sniffing, Reason: refuse})
		s.exemptConn(c)
	}
	switch raw.(type) {
	case *net.TCPConn, *net.UnixConn:
		c.status.Or(lazyBit)
		if reason := s.identify(c, raw.RemoteAddr(), &events); reason != "" {
			refuse = reason
		}
	}
	return refuse
}

// Move puts c into the pool named tag. It reports false, and does nothing, for a closed
// connection and for the pool Sniffing, which no connection comes back to.
func (s *Set) Move(c *Conn, tag Tag) bool {
	if moved, settled := c.account.Load().isIn(tag); settled {
		return moved
	}
	s.account(tag).places.Add(1)
	return s.MoveReserved(c, tag)
}

// isIn reports whether a connection with this account cannot move to tag, and what Move
// returns then.
func (a *account) isIn(tag Tag) (moved, settled bool) {
	switch {
	case a == nil || a.closed == nil:
		return false, true
	case a.tag == tag:
		return true, true
	default:
		return false, tag == Sniffing
	}
}

// MoveReserved is [Set.Move] into a place that Reserve has taken. The place is used up
// even if c is not moved.
//
// A compare-and-swap decides between several moves and a close. Leaving the pool
// Sniffing takes no lock, because no traffic is booked there.
func (s *Set) MoveReserved(c *Conn, tag Tag) bool {
	to := s.account(tag)
	to.active.Add(1) // Before the connection leaves its pool, so that it is always in one.
	for {
		from := c.account.Load()
		if moved, settled := from.isIn(tag); settled {
			s.leave(to)
			s.judgeAlone(to)
			return moved
		}
		e := Event{Kind: EventRetagged, Conn: c, Tag: tag, From: from.tag}
		observed := s.number(&e) // What happens to c after the swap gets a higher number.
		booked := from.tag != Sniffing
		if booked {
			s.mu.Lock()
		}
		swapped := c.account.CompareAndSwap(from, to)
		if booked {
			if swapped {
				moved := c.traffic()
				from.past.add(moved, 1)
				to.past.add(moved, -1)
				s.takePlace(c, from)
			}
			s.mu.Unlock()
		}
		if !swapped {
			continue // It has left from meanwhile.
		}
		to.accepted.Add(1)
		from.moved.Add(1)
		s.leave(from)
		if observed {
			s.tell(&e)
		}
		s.judgeAlone(from)
		s.judgeAlone(to)
		return true
	}
}

// leave takes a connection out of a pool.
func (s *Set) leave(a *account) {
	a.places.Add(-1)
	if a.active.Add(-1) == 0 && s.waiters.Load() > 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.wakeAll()
	}
}

// Tag returns the name of the pool that c is in, or was in when it was closed.
func (s *Set) Tag(c *Conn) Tag {
	if a := c.account.Load(); a != nil {
		return a.tag
	}
	return ""
}

// Reject counts a connection that was refused or given up, by its pool and a reason.
func (s *Set) Reject(tag Tag, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.openAccount(tag)
	if a.rejected == nil {
		a.rejected = make(map[string]uint64)
	}
	a.rejected[reason]++
}

// remove takes a closed connection out; the caller calls it once.
func (s *Set) remove(c *Conn) {
	var events step
	s.mu.Lock()
	defer s.unlock(&events)
	a := c.account.Load()
	for !c.account.CompareAndSwap(a, a.closed) {
		a = c.account.Load()
	}
	reason := c.CloseReason()
	if reason == reasonTimeout || slices.Contains(s.timeouts, reason) {
		s.note(&events, Event{Kind: EventTimeout, Conn: c, Tag: a.tag, Reason: reason})
	} else if reason == reasonReset {
		s.note(&events, Event{Kind: EventError, Conn: c, Tag: a.tag, Reason: reason, Err: errReset})
	}
	s.note(&events, Event{Kind: EventRemoved, Conn: c, Tag: a.tag, Reason: reason})
	s.takePlace(c, a)
	a.places.Add(-1)
	left := a.active.Add(-1)
	a.closings.Add(1)
	a.reasons[reason]++
	a.past.add(c.traffic(), 1)
	a.lifetimes.Record(time.Duration(a.now() - c.opened))
	delete(s.conns, c)
	if c.status.Load()&exemptBit != 0 {
		s.exempt--
	}
	s.judge(a, &events)
	s.judgeTotal(&events)
	s.forget(c)
	s.taken.Store(int64(s.counted()))
	if left == 0 || len(s.conns) == 0 || s.counted() == s.ruled().MaxConnections-1 {
		s.wakeAll()
	}
}

func (s *Set) wakeAll() {
	if s.wake != nil {
		close(s.wake)
		s.wake = nil
	}
}

// Len returns the number of live connections in the pools named, or in all of them.
func (s *Set) Len(tags ...Tag) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.length(tags)
}

func (s *Set) length(tags []Tag) int {
	if len(tags) == 0 {
		return len(s.conns)
	}
	// A connection that leaves the pool Sniffing is in two pools for a moment. That one
	// is looked at first, so that no connection is missed.
	n := 0
	for _, sniffing := range []bool{true, false} {
		for _, tag := range tags {
			if a := s.allAccounts()[tag]; a != nil && (tag == Sniffing) == sniffing {
				n += int(a.active.Load())
			}
		}
	}
	return n
}

// Conns returns the live connections in the pools named, or all of them, in no particular
// order. A connection may be closed by the time the caller looks at it.
func (s *Set) Conns(tags ...Tag) []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	conns := make([]*Conn, 0, s.length(tags))
	for c := range s.conns {
		if len(tags) == 0 || slices.Contains(tags, s.Tag(c)) {
			conns = append(conns, c)
		}
	}
	return conns
}

// WaitEmpty waits until the pools named, or all of them, are empty at one moment. It
// returns nil then, or ctx's error when that ends first.
func (s *Set) WaitEmpty(ctx context.Context, tags ...Tag) error {
	return s.wait(ctx, func() bool { return s.length(tags) == 0 })
}

// wait waits until cond, which is called with mu held, is true.
func (s *Set) wait(ctx context.Context, cond func() bool) error {
	s.waiters.Add(1) // Before cond looks, so that what changes after that wakes.
	defer s.waiters.Add(-1)
	for {
		s.mu.Lock()
		if cond() {
			s.mu.Unlock()
			return nil
		}
		if s.wake == nil {
			s.wake = make(chan struct{})
		}
		wake := s.wake
		s.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
