package pool

import (
	"context"
	"time"

	"github.com/muxserve/muxserve/pool/requests"
)

const (
	// clockStep is how often a Set's clock moves. Reads and writes take their time from
	// it: asking the system's clock costs more than the rest of their accounting.
	clockStep = 100 * time.Millisecond
	// clockLag is how many steps the clock may be behind: it is rounded down, and its last
	// move may have been a step ago.
	clockLag = 2
)

// wind sets the clock, and has it move while there are connections.
func (s *Set) wind(now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(now)
	if !s.ticking.Load() {
		for _, book := range s.books {
			book.Fold()
		}
		s.tickLater(now)
	}
}

// tickLater has the next tick come with the next step, so that seconds end on time.
func (s *Set) tickLater(now int64) {
	s.ticking.Store(true)
	time.AfterFunc(clockStep-time.Duration(now)%clockStep, s.tick)
}

// tick moves the clock, until there has been no connection for a step. As the one timer
// of a Set it counts the seconds of the statistics, too.
func (s *Set) tick() {
	s.mu.Lock()
	now := int64(time.Since(s.began))
	s.advance(now)
	s.ticking.Store(false) // First: a connection that is not seen here sees that.
	if s.all.active.Load() > 0 {
		s.tickLater(now)
	}
	books := s.books
	s.mu.Unlock()
	for _, book := range books { // Without the lock: a fold reads thousands of counters.
		book.Fold()
	}
}

// advance moves the clock, and notes when a second begins what was accepted until then.
// The caller holds mu.
func (s *Set) advance(now int64) {
	s.clock.Store(uint32(now / int64(clockStep)))
	if second := requests.Second(time.Duration(now)); second != s.second.Load() {
		s.second.Store(second)
		for _, a := range s.allAccounts() {
			a.arrivals.Advance(second, a.accepted.Load())
		}
	}
}

// Sweep calls visit for each live connection, once in every period, until ctx ends; every
// must be above 0. It runs in the caller's goroutine.
//
// visit is called without any lock, for one connection after the other in no particular
// order. now is the time at which the sweep began. visit may close the connection, which
// may have been closed already. A sweep that takes longer than its period makes the next
// one late.
func (s *Set) Sweep(ctx context.Context, every time.Duration, visit func(now time.Time, c *Conn)) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		conns, now := s.Conns(), time.Now()
		for _, c := range conns {
			if ctx.Err() != nil {
				return
			}
			visit(now, c)
		}
	}
}
