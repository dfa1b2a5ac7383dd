package pool

import (
	"time"

	"github.com/muxserve/muxserve/pool/requests"
)

// clockStep is how often a Set's clock moves. Reads and writes take their time from it:
// asking the system's clock costs some 30 ns, which is more than all else that is done to
// account for one of them.
const clockStep = 100 * time.Millisecond

// clockLag is how many steps the clock may be behind: it is rounded down, and its last
// move may have been a step ago.
const clockLag = 2

// wind sets the clock, and has it move while there are connections. The caller holds mu.
func (s *Set) wind(now int64) {
	s.setClock(now)
	s.countSecond(now)
	if s.ticking {
		return
	}
	s.ticking = true
	for _, book := range s.bookList {
		book.Fold()
	}
	s.startTicker(now)
}

// startTicker has the next tick come with the next step, so that seconds end on time.
func (s *Set) startTicker(now int64) {
	left := clockStep - time.Duration(now)%clockStep
	if s.ticker == nil {
		s.ticker = time.AfterFunc(left, s.tick)
	} else {
		s.ticker.Reset(left)
	}
}

func (s *Set) setClock(now int64) { s.clock.Store(uint32(now / int64(clockStep))) }

// tick moves the clock, until there has been no connection for a step. It is the one
// timer of a Set, so it also counts the seconds of the statistics.
func (s *Set) tick() {
	for _, book := range s.step() {
		book.Fold()
	}
}

// step moves the clock, and returns the statistics to fold.
func (s *Set) step() []*requests.Book {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := int64(time.Since(s.began))
	s.setClock(now)
	s.countSecond(now)
	if s.ticking = len(s.conns) > 0; s.ticking {
		s.startTicker(now)
	}
	return s.bookList // which is only ever appended to
}

// countSecond notes, when a new second has begun, what was accepted until then. The
// caller holds mu.
func (s *Set) countSecond(now int64) {
	second := requests.Second(time.Duration(now))
	if second == s.second {
		return
	}
	s.second = second
	for _, a := range s.allAccounts() {
		a.arrivals.Advance(second, a.accepted.Load())
	}
}
