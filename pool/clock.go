package pool

import "time"

// clockStep is how often a Set's clock moves. Reads and writes take their time from it: to ask the
// system's clock costs some 30 ns, which is more than all else that is done to account for one of them.
const clockStep = 100 * time.Millisecond

// clockLag is how many steps the clock may be behind: it is rounded down, and its last move may have been a step ago.
const clockLag = 2

// wind sets the clock, and has it move while there are connections. The caller holds mu.
func (s *Set) wind(now int64) {
	s.setClock(now)
	switch {
	case s.ticking:
		return
	case s.ticker == nil:
		s.ticker = time.AfterFunc(clockStep, s.tick)
	default:
		s.ticker.Reset(clockStep)
	}
	s.ticking = true
}

func (s *Set) setClock(now int64) { s.clock.Store(uint32(now / int64(clockStep))) }

// tick moves the clock, until there has been no connection for a step.
func (s *Set) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setClock(int64(time.Since(s.began)))
	if s.ticking = len(s.conns) > 0; s.ticking {
		s.ticker.Reset(clockStep)
	}
}

// Tick returns the time by the clock of the connection's Set, in steps of 100 ms since some moment. It is up to a fifth of
// a second late while the connection is open, and costs no more than a few loads from memory.
func (c *Conn) Tick() uint32 { return c.account.Load().set.clock.Load() }
