package pool

import (
	"maps"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/pool/requests"
)

// account says which pool a connection is in. It never changes. A connection that is
// moved or closed gets another one, by a compare-and-swap.
type account struct {
	*ledger

	set    *Set
	tag    Tag
	began  time.Time // Set.began, without its lock
	closed *account  // replaces this one when a connection is closed in the pool; nil if this is it
}

// ledger is what a Set knows of one pool.
type ledger struct {
	tally

	accepted, moved, closings atomic.Uint64
	places                    atomic.Int64 // that are taken: active, and what Reserve took
	lifetimes                 *requests.Durations
	kept                      [stripeCount]kept // each guarded by the lock of its stripe

	// Set.mu guards what follows.
	arrivals requests.Rate
	total    traffic // past and live connections, while Stats adds up
	rejected map[string]uint64
}

// lifetimeBounds are the upper bounds of the buckets for lifetimes.
var lifetimeBounds = []time.Duration{
	time.Second, 5 * time.Second, 15 * time.Second, 30 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute,
	time.Hour, 4 * time.Hour, 12 * time.Hour, 24 * time.Hour,
}

// now returns the nanoseconds since the Set began; at is the reverse.
func (a *account) now() int64                     { return int64(time.Since(a.began)) }
func (a *account) at(nanoseconds int64) time.Time { return a.began.Add(time.Duration(nanoseconds)) }

// isUsed reports whether anything has happened in the pool. The caller holds Set.mu.
func (a *account) isUsed() bool { return a.accepted.Load() > 0 || len(a.rejected) > 0 }

// traffic is what was moved, by one connection or by many.
type traffic struct {
	bytesReceived, bytesSent       uint64
	messagesReceived, messagesSent uint64
}

// add adds more, or subtracts it where sign is -1.
func (t *traffic) add(more traffic, sign int) {
	t.bytesReceived += uint64(sign) * more.bytesReceived
	t.bytesSent += uint64(sign) * more.bytesSent
	t.messagesReceived += uint64(sign) * more.messagesReceived
	t.messagesSent += uint64(sign) * more.messagesSent
}

// account returns the account of tag. It takes mu to open the account the first time.
func (s *Set) account(tag Tag) *account {
	if a := s.allAccounts()[tag]; a != nil {
		return a
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.openAccount(tag)
}

func (s *Set) allAccounts() map[Tag]*account {
	if all := s.accounts.Load(); all != nil {
		return *all
	}
	return nil
}

// openAccount is account for a caller that holds mu.
func (s *Set) openAccount(tag Tag) *account {
	all := s.allAccounts()
	if a := all[tag]; a != nil {
		return a
	}
	if s.began.IsZero() {
		s.began = time.Now()
		s.clients = make(map[netip.Addr][]*Conn)
		s.refused = make(map[netip.Addr][]*Conn)
		s.addresses = make(map[*Conn]booked)
	}
	l := &ledger{lifetimes: requests.WithBounds(lifetimeBounds)}
	l.arrivals.Advance(s.second.Load(), 0)
	closed := account{ledger: l, set: s, tag: tag, began: s.began}
	a := closed
	a.closed = &closed
	more := with(all, tag, &a)
	s.accounts.Store(&more)
	return &a
}

// with returns a copy of m that has one more entry.
func with[V any](m map[Tag]V, tag Tag, value V) map[Tag]V {
	more := make(map[Tag]V, len(m)+1)
	maps.Copy(more, m)
	more[tag] = value
	return more
}

// Stats returns the totals of every pool that was ever used, by tag.
func (s *Set) Stats() map[string]Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.openAccount(Sniffing) // which begins the Set
	accounts := s.allAccounts()
	defer s.lockStripes()()
	for _, a := range accounts {
		a.total = traffic{}
		for i := range a.kept {
			a.total.add(a.kept[i].past, 1)
		}
	}
	for i := range s.stripes {
		for c := range s.stripes[i].conns {
			// Bytes before the protocol is known are booked later, so that no counter runs
			// backwards.
			if a := c.account.Load(); a.tag != Sniffing {
				a.total.add(c.traffic(), 1)
			}
		}
	}
	s.advance(int64(time.Since(s.began)))
	all := make(map[string]Stats, len(accounts))
	for tag, a := range accounts {
		if !a.isUsed() {
			continue
		}
		all[string(tag)] = Stats{
			Active:            a.active.Load(),
			Accepted:          a.accepted.Load(),
			Closed:            a.closings.Load(),
			Moved:             a.moved.Load(),
			BytesReceived:     a.total.bytesReceived,
			BytesSent:         a.total.bytesSent,
			MessagesReceived:  a.total.messagesReceived,
			MessagesSent:      a.total.messagesSent,
			AcceptedPerSecond: a.arrivals.PerSecond(),
			AcceptedPerMinute: a.arrivals.PerMinute(),
			Rejected:          maps.Clone(a.rejected),
			Reasons:           a.closeReasons(),
			Lifetimes:         a.lifetimes.Totals(),
		}
	}
	return all
}

// Requests returns the statistics of the requests that the pool named tag carries: the
// same Book each time. The Set folds it once a second while there are connections.
func (s *Set) Requests(tag Tag) *requests.Book {
	s.mu.Lock()
	defer s.mu.Unlock()
	if book := s.books[tag]; book != nil {
		return book
	}
	s.books = with(s.books, tag, requests.New(s.openAccount(tag).began))
	return s.books[tag]
}
