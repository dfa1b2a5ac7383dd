package pool

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
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
	// AcceptedPerMinute how many a minute, over the last 60 full seconds or since the Set's first connection.
	AcceptedPerSecond float64 `json:"accepted_per_second"`
	AcceptedPerMinute float64 `json:"accepted_per_minute"`
}

// Set is the set of all live connections, divided into pools by tag. The zero
// value is ready to use. All methods may be called concurrently.
//
// The Set's lock is taken when a connection is added, moved or closed and when
// somebody asks; never for a read or a write.
type Set struct {
	nextID    atomic.Uint64
	clock     atomic.Uint32 // steps of clockStep since began
	observers observers
	armLocks  [armLocks]sync.Mutex

	// mu guards all that follows, and the fields of Conn that say so.
	mu       sync.Mutex
	conns    map[*Conn]struct{}
	began    time.Time // when the first account was opened
	accounts map[Tag]*account
	requests map[Tag]*Requests
	health   healthBook
	pending  *eventList // what unlock will tell the observers; nil for nothing
	lastSeq  uint64
	ticker   *time.Timer // of the clock
	ticking  bool        // it runs
	exempt   int         // live connections that take no place
	limits   Limits
	// clients are the connections by client, and addresses the client of each, while that is limited.
	clients   map[netip.Addr]int
	addresses map[*Conn]netip.Addr
	// wake is closed when something changes that somebody may wait for; nil while nobody does.
	wake chan struct{}
}

// Add wraps raw in c and puts it into the pool Sniffing. The Set owns neither:
// the caller closes c. The owner is what [Conn.Owner] returns.
//
// The result is empty, or the reason for which a limit wants the connection
// refused. It is in the pool even then, because to refuse it politely takes a moment.
func (s *Set) Add(c *Conn, raw net.Conn, owner any) (refuse string) {
	c.raw, c.owner = raw, owner
	c.id = s.nextID.Add(1)
	s.mu.Lock()
	defer s.unlock()
	if s.conns == nil {
		s.conns = make(map[*Conn]struct{})
	}
	a := s.account(Sniffing)
	c.opened = a.now()
	s.wind(c.opened)
	c.last.Store(s.clock.Load())
	switch raw.(type) {
	case *net.TCPConn, *net.UnixConn:
		c.status.Or(lazyBit)
	}
	refuse = s.admit()
	s.conns[c] = struct{}{}
	s.note(Event{Kind: EventAdded, Conn: c, Tag: Sniffing})
	s.enter(c, a, c.opened)
	s.judge(TotalTag)
	if refuse != "" {
		s.note(Event{Kind: EventLimitReached, Conn: c, Tag: Sniffing, Reason: refuse})
		s.exemptConn(c)
	}
	return refuse
}

// Move puts c into the pool named tag. It reports false, and does nothing, for a
// connection that is closed, and for the pool Sniffing, into which none comes back.
func (s *Set) Move(c *Conn, tag Tag) bool {
	s.mu.Lock()
	defer s.unlock()
	return s.move(c, tag)
}

// move is Move for a caller that holds mu and calls unlock.
func (s *Set) move(c *Conn, tag Tag) bool {
	if _, live := s.conns[c]; !live {
		return false
	}
	from := c.account.Load()
	if from.tag == tag {
		return true
	}
	if tag == Sniffing {
		return false
	}
	to := s.account(tag)
	s.note(Event{Kind: EventRetagged, Conn: c, Tag: tag, From: from.tag})
	if from.tag != Sniffing {
		moved := c.traffic()
		from.past.add(moved)
		to.past.subtract(moved)
	}
	s.leave(from)
	from.totals.Moved++
	s.enter(c, to, to.now())
	return true
}

// Tag returns the name of the pool that c is in, or was in when it was closed.
func (s *Set) Tag(c *Conn) Tag { return s.tag(c) }

// tag is Tag, which no caller needs the lock for.
func (*Set) tag(c *Conn) Tag {
	if a := c.account.Load(); a != nil {
		return a.tag
	}
	return ""
}

// Reject counts a connection that was refused or given up, under the pool that
// it belongs to and a reason.
func (s *Set) Reject(tag Tag, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.account(tag)
	if a.rejected == nil {
		a.rejected = make(map[string]uint64)
	}
	a.rejected[reason]++
}

// remove takes a closed connection out; the caller calls it once.
func (s *Set) remove(c *Conn) {
	s.mu.Lock()
	defer s.unlock()
	a, reason := c.account.Load(), c.CloseReason()
	if isTimeout(reason) {
		s.note(Event{Kind: EventTimeout, Conn: c, Tag: a.tag, Reason: reason})
	} else if reason == ReasonReset {
		s.note(Event{Kind: EventError, Conn: c, Tag: a.tag, Reason: reason, Err: errReset})
	}
	s.note(Event{Kind: EventRemoved, Conn: c, Tag: a.tag, Reason: reason})
	s.leave(a)
	a.totals.Closed++
	a.past.add(c.traffic())
	a.lifetimes.record(time.Duration(a.now() - c.opened))
	delete(s.conns, c)
	if c.status.Load()&exemptBit != 0 {
		s.exempt--
	}
	s.judge(TotalTag)
	s.forget(c)
	if len(s.conns) == 0 || s.counted() == s.limits.Total-1 {
		s.wakeAll()
	}
}

// enter books c into the pool of a, at so many nanoseconds since the Set began. The
// caller holds mu and calls unlock.
func (s *Set) enter(c *Conn, a *account, now int64) {
	a.arrivals.mark(second(time.Duration(now)), a.totals.Accepted)
	a.totals.Active++
	a.totals.Accepted++
	c.account.Store(a)
	s.judge(a.tag)
}

// leave takes a connection out of the pool of a. The caller holds mu and calls unlock.
func (s *Set) leave(a *account) {
	a.totals.Active--
	s.judge(a.tag)
	if a.totals.Active == 0 {
		s.wakeAll()
	}
}

func (s *Set) wakeAll() {
	if s.wake != nil {
		close(s.wake)
		s.wake = nil
	}
}

// Len returns the number of live connections in the pools named, or in all of
// them when none is named.
func (s *Set) Len(tags ...Tag) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.length(tags)
}

func (s *Set) length(tags []Tag) int {
	if len(tags) == 0 {
		return len(s.conns)
	}
	n := 0
	for _, tag := range tags {
		if a := s.accounts[tag]; a != nil {
			n += int(a.totals.Active)
		}
	}
	return n
}

// Counts returns the number of live connections by tag, without the empty pools.
func (s *Set) Counts() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := make(map[string]int)
	for tag, a := range s.accounts {
		if a.totals.Active > 0 {
			counts[string(tag)] = int(a.totals.Active)
		}
	}
	return counts
}

// Rejected returns how many connections were refused or given up, by tag and reason.
func (s *Set) Rejected() map[string]map[string]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]map[string]uint64)
	for tag, a := range s.accounts {
		if len(a.rejected) == 0 {
			continue
		}
		all[string(tag)] = maps.Clone(a.rejected)
	}
	return all
}

// Conns returns the live connections in the pools named, or all of them when
// none is named, in no particular order. A connection may be closed by the time the
// caller looks at it.
func (s *Set) Conns(tags ...Tag) []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	conns := make([]*Conn, 0, s.length(tags))
	for c := range s.conns {
		if len(tags) == 0 || slices.Contains(tags, s.tag(c)) {
			conns = append(conns, c)
		}
	}
	return conns
}

// WaitEmpty waits until the pools named, or all of them when none is named, are
// empty at one moment. It returns nil then, or ctx's error when that ends first.
func (s *Set) WaitEmpty(ctx context.Context, tags ...Tag) error {
	return s.wait(ctx, func() bool { return s.length(tags) == 0 })
}

// wait waits until cond, which is called with mu held, is true.
func (s *Set) wait(ctx context.Context, cond func() bool) error {
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
