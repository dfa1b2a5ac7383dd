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

// Sniffing is the tag of a connection whose protocol is not known yet. Each
// connection starts there.
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

	// AcceptedPerSecond is how many came into the pool in the last full second, and
	// AcceptedPerMinute how many a minute, over the last 60 full seconds or since the Set
	// was first used.
	AcceptedPerSecond float64 `json:"accepted_per_second"`
	AcceptedPerMinute float64 `json:"accepted_per_minute"`

	// Rejected is how many connections were refused or given up, by reason; see
	// [Set.Reject].
	Rejected map[string]uint64 `json:"-"`
	// Reasons is how many connections were closed in the pool, by [Conn.CloseReason].
	Reasons map[string]uint64 `json:"-"`
	// Lifetimes is how long the connections had been open that were closed in the pool,
	// in buckets from a second to a day.
	Lifetimes requests.DurationTotals `json:"-"`
}

// Set is the set of all live connections, divided into pools by tag. The zero
// value is ready to use. All methods may be called concurrently.
//
// The Set's lock is taken twice in the life of a connection that is moved once: by Add
// and by Close. It is also taken by methods that return figures; never by a read or a
// write.
type Set struct {
	// What reads, writes and moves look at, which seldom changes.
	clock     atomic.Uint32                    // steps of clockStep since began
	waiters   atomic.Int32                     // calls of wait
	accounts  atomic.Pointer[map[Tag]*account] // copied to be changed, with mu held
	rules     atomic.Pointer[rules]            // copied to be changed, with mu held
	observers observers
	timeouts  map[string]*string // see SetTimeouts
	armLocks  [armLocks]sync.Mutex

	nextID  atomic.Uint64
	lastSeq atomic.Uint64 // of the events

	// mu guards all that follows, and the fields of Conn and ledger that say so.
	mu       sync.Mutex
	conns    map[*Conn]struct{}
	began    time.Time // when the Set was first used
	second   uint64    // since then, of the last countSecond
	books    map[Tag]*requests.Book
	bookList []*requests.Book
	health   Health      // of all pools together
	ticker   *time.Timer // of the clock
	ticking  bool        // it runs
	exempt   int         // live connections that take no place
	// While clients are limited: how many connections each has, and the client of each.
	clients   map[netip.Addr]int
	addresses map[*Conn]netip.Addr
	// wake is closed to have the calls of wait look again; nil while there is none.
	wake chan struct{}
}

// Add wraps raw in c and puts c into the pool Sniffing. The Set owns neither: the caller
// closes c. The owner is what [Conn.Owner] returns.
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
	if s.conns == nil {
		s.conns = make(map[*Conn]struct{})
	}
	a := s.openAccount(Sniffing)
	c.opened = a.now()
	s.wind(c.opened)
	c.last.Store(s.clock.Load())
	refuse = s.admit()
	s.conns[c] = struct{}{}
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
	if moved, settled := c.isIn(tag); settled {
		return moved
	}
	s.account(tag).places.Add(1)
	return s.MoveReserved(c, tag)
}

// isIn reports whether there is nothing to move, and what Move returns then.
func (c *Conn) isIn(tag Tag) (moved, settled bool) {
	switch a := c.account.Load(); {
	case a == nil || a.isClosed():
		return false, true
	case a.tag == tag:
		return true, true
	default:
		return false, tag == Sniffing
	}
}

// move moves c to a pool in which it has a place. The place is given back where nothing
// is moved.
//
// Each connection leaves the pool Sniffing, and takes no lock for that: a
// compare-and-swap decides between several moves and a close.
func (s *Set) move(c *Conn, to *account) bool {
	to.active.Add(1) // Before the connection leaves its pool, so that it is always in one.
	for {
		moved, settled := c.isIn(to.tag)
		if settled {
			s.leave(to)
			s.judgeAlone(to)
			return moved
		}
		if from := c.account.Load(); !from.isClosed() && from.tag != to.tag && s.moveFrom(c, from, to) {
			return true
		}
	}
}

// moveFrom is one attempt of move. It reports false where c has left from meanwhile.
func (s *Set) moveFrom(c *Conn, from, to *account) bool {
	e := Event{Kind: EventRetagged, Conn: c, Tag: to.tag, From: from.tag}
	// What happens to c after the swap gets a higher number.
	observed := s.number(&e)
	if from.tag == Sniffing {
		if !c.account.CompareAndSwap(from, to) {
			return false
		}
	} else if !s.swapBooked(c, from, to) {
		return false
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

// swapBooked has c leave a pool that has booked its traffic.
func (s *Set) swapBooked(c *Conn, from, to *account) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.account.CompareAndSwap(from, to) {
		return false
	}
	moved := c.traffic()
	from.past.add(moved)
	to.past.subtract(moved)
	return true
}

// leave takes a connection out of the pool of a.
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
	count(&a.rejected, reason)
}

func count(counts *map[string]uint64, word string) {
	if *counts == nil {
		*counts = make(map[string]uint64)
	}
	(*counts)[word]++
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
	if s.isTimeout(reason) {
		s.note(&events, Event{Kind: EventTimeout, Conn: c, Tag: a.tag, Reason: reason})
	} else if reason == reasonReset {
		s.note(&events, Event{Kind: EventError, Conn: c, Tag: a.tag, Reason: reason, Err: errReset})
	}
	s.note(&events, Event{Kind: EventRemoved, Conn: c, Tag: a.tag, Reason: reason})
	a.places.Add(-1)
	left := a.active.Add(-1)
	a.closings.Add(1)
	count(&a.reasons, reason)
	a.past.add(c.traffic())
	a.lifetimes.Record(time.Duration(a.now() - c.opened))
	delete(s.conns, c)
	if c.status.Load()&exemptBit != 0 {
		s.exempt--
	}
	s.judge(a, &events)
	s.judgeTotal(&events)
	s.forget(c)
	if left == 0 || len(s.conns) == 0 || s.counted() == s.limits().MaxConnections-1 {
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
	// A connection that leaves the pool Sniffing is for a moment in two pools. Where that
	// one is looked at first, each connection is seen.
	n := 0
	for _, sniffing := range []bool{true, false} {
		for _, tag := range tags {
			if a := s.lookUp(tag); a != nil && (tag == Sniffing) == sniffing {
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
