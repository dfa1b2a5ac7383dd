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
// From its accept to its close a connection takes no lock that all share, unless the
// health of a pool changes or [Config].PerAddress is set. Methods that return figures do.
type Set struct {
	// What reads, writes and moves look at, which seldom changes. What a pointer points to
	// is never changed: it is replaced by a copy, with mu held.
	clock       atomic.Uint32 // steps of clockStep since began
	waiters     atomic.Int32  // calls of wait
	roomWaiters atomic.Int32  // of those, by WaitRoom
	accounts    atomic.Pointer[map[Tag]*account]
	rules       atomic.Pointer[rules]
	observers   atomic.Pointer[[]*observer] // nil while there are none
	timeouts    []string                    // see SetTimeouts
	tellsQueue  atomic.Bool                 // see knowsQueue
	armLocks    [64]sync.Mutex              // see Conn.rearm

	stripes [stripeCount]stripe
	nextID  atomic.Uint64
	lastSeq atomic.Uint64 // of the events
	all     tally         // of all pools together
	taken   atomic.Int64  // places: connections without the exempt ones
	inner   atomic.Int64  // exempt ones that are within the process
	yielded atomic.Int64  // exempt ones that have given up a pool's place by Yield

	second  atomic.Uint64 // since began, of the last advance; changed with mu held
	ticking atomic.Bool   // the clock runs; the same

	// mu guards all that follows, and the fields of Conn and ledger that say so. Who holds
	// it may lock stripes, and not the other way round.
	mu    sync.Mutex
	began time.Time              // when the Set was first used
	books map[Tag]*requests.Book // never changed, but replaced by a copy
	// While clients are limited: the connections of each that are served, and those that are
	// being refused, and the client of each connection.
	clients   map[netip.Addr][]*Conn
	refused   map[netip.Addr][]*Conn
	addresses map[*Conn]booked
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
	if !s.knowsQueue(raw) {
		c.raw = &steps{Conn: raw}
	}
	c.id = s.nextID.Add(1)
	a := s.account(Sniffing)
	c.opened = a.now()
	s.all.active.Add(1) // Before ticking is looked at; see tick.
	if !s.ticking.Load() || s.second.Load() != requests.Second(time.Duration(c.opened)) {
		s.wind(c.opened)
	}
	c.last.Store(s.clock.Load())
	if !s.takePlace() {
		refuse = ReasonLimit
		c.status.Or(exemptBit)
	}
	bare := IsPeerClient(raw)
	if bare {
		c.status.Or(lazyBit)
	}
	var events pendingEvents
	s.note(&events, Event{Kind: EventAdded, Conn: c, Tag: Sniffing})
	s.enter(c, a)
	s.review(a, &events)
	if refuse != "" {
		s.note(&events, Event{Kind: EventLimitReached, Conn: c, Tag: Sniffing, Reason: refuse})
	}
	if bare && s.ruled().PerAddress > 0 {
		s.mu.Lock()
		if reason := s.identify(c, raw.RemoteAddr(), &events); reason != "" {
			refuse = reason
		}
		s.mu.Unlock()
	}
	s.tellAll(&events)
	return refuse
}

// knowsQueue reports whether the system says what the peer of a connection takes. It asks
// about bare TCP sockets until it is known.
func (s *Set) knowsQueue(raw net.Conn) bool {
	if _, bare := raw.(*net.TCPConn); bare && s.tellsQueue.Load() {
		return true
	}
	_, known := sendQueueOf(raw)
	if known {
		s.tellsQueue.Store(true)
	}
	return known
}

// IsPeerClient reports whether the client of a connection is its socket's peer.
func IsPeerClient(raw net.Conn) bool {
	switch raw.(type) {
	case *net.TCPConn, *net.UnixConn:
		return true
	default:
		return false
	}
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
		if !s.swap(c, from, to) {
			continue // It has left from meanwhile.
		}
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
func (c *Conn) Tag() Tag {
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
	var events pendingEvents
	reason := c.CloseReason()
	a, left := s.exit(c, reason)
	if reason == reasonTimeout || slices.Contains(s.timeouts, reason) {
		s.note(&events, Event{Kind: EventTimeout, Conn: c, Tag: a.tag, Reason: reason})
	} else if reason == reasonReset {
		s.note(&events, Event{Kind: EventError, Conn: c, Tag: a.tag, Reason: reason, Err: errReset})
	}
	s.note(&events, Event{Kind: EventRemoved, Conn: c, Tag: a.tag, Reason: reason})
	s.review(a, &events)
	if c.status.Load()&clientBit != 0 {
		s.mu.Lock()
		s.forget(c)
		s.mu.Unlock()
	}
	if s.waiters.Load() > 0 && (left == 0 || s.all.active.Load() == 0 || s.roomWaiters.Load() > 0 && s.hasRoom()) {
		s.mu.Lock()
		s.wakeAll()
		s.mu.Unlock()
	}
	s.tellAll(&events)
}

// wakeAll has the calls of wait look again. The caller holds mu.
func (s *Set) wakeAll() {
	if s.wake != nil {
		close(s.wake)
		s.wake = nil
	}
}

// Len returns the number of live connections in the pools named, or in all of them. One that
// moves between two of them may count twice.
func (s *Set) Len(tags ...Tag) int {
	if len(tags) == 0 {
		return int(s.all.active.Load())
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
	conns := make([]*Conn, 0, s.Len(tags...))
	for i := range s.stripes {
		conns = s.stripes[i].appendTo(conns, tags)
	}
	return conns
}

// WaitEmpty waits until the pools named, or all of them, are empty at one moment. It
// returns nil then, or ctx's error when that ends first.
func (s *Set) WaitEmpty(ctx context.Context, tags ...Tag) error {
	return s.wait(ctx, func() bool { return s.Len(tags...) == 0 })
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
