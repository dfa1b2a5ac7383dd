package protocols

import (
	"sync"
	"time"
)

// An earlyState is what a Conn needs until its verdict stands and what was
// peeked has been read, which for most connections is a small part of their
// life. It comes from a pool and goes back to it.
//
// It belongs to the recognising goroutine and then to the reading one. EndWait
// may come from any other, and late: then the state may be another Conn's already,
// which is what the field conn tells.
type earlyState struct {
	peek    peekBuffer
	config  SniffConfig
	started time.Time       // When the first wait for bytes began.
	filter  *settingsFilter // Nil unless Sniff has sent the server's SETTINGS.

	// mu guards the next two, the writing of wait, and the read deadline while
	// wait is undecided. The owner may read conn and wait without it.
	mu      sync.Mutex
	conn    *Conn // Whose state it is; nil in the pool.
	hurried bool  // EndWait was called.
	wait    waitState
}

// A waitState says what EndWait has to do.
type waitState uint8

const (
	waiting   waitState = iota // Nothing yet: the wait for the first bytes is short.
	undecided                  // To end the wait for the first request.
	decided                    // Nothing: the verdict stands.
)

var earlyStates = sync.Pool{New: func() any { return new(earlyState) }}

// newEarlyState returns a state for c, with the default limits.
func newEarlyState(c *Conn) *earlyState {
	e := earlyStates.Get().(*earlyState)
	var none *SniffConfig
	e.config = none.withDefaults()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.conn = c
	return e
}

// release gives the state back. Its owner must not use it again.
func (e *earlyState) release() {
	e.peek.free()
	e.peek = peekBuffer{}
	e.config = SniffConfig{}
	e.started = time.Time{}
	e.filter = nil
	e.mu.Lock()
	e.conn, e.hurried, e.wait = nil, false, waiting
	e.mu.Unlock()
	earlyStates.Put(e)
}

// endWait is EndWait of c, if e is still c's.
func (e *earlyState) endWait(c *Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conn != c {
		return
	}
	e.hurried = true
	if e.wait == undecided {
		// Deadlines of connections are best effort throughout: one that has none
		// can be closed by its owner.
		_ = c.inner.SetReadDeadline(longAgo)
	}
}

// isHurried reports whether EndWait was called.
func (e *earlyState) isHurried() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.hurried
}

// waitUndecided sets the read deadline of a wait that EndWait may end. It
// reports false if EndWait was called already.
func (e *earlyState) waitUndecided(deadline time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.hurried {
		return false
	}
	e.wait = undecided
	_ = e.conn.inner.SetReadDeadline(deadline)
	return true
}

// begin notes when the waiting began.
func (e *earlyState) begin() {
	if e.started.IsZero() {
		e.started = time.Now()
	}
}

// isDue reports whether there is something to read before the wrapped connection is next.
func (e *earlyState) isDue() bool { return len(e.peek.unread()) > 0 || e.peek.err != nil }
