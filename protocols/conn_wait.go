package protocols

import (
	"io"
	"time"
)

// longAgo is a deadline that ends a wait at once.
var longAgo = time.Unix(1, 0)

// SetPeek sets the limits of readers that PeekReader returns. Sniff sets them
// as well. A nil config means the defaults.
func (c *Conn) SetPeek(config *SniffConfig) {
	c.config = config.withDefaults()
}

// PeekReader returns a reader that begins at c's first unread byte and
// consumes nothing. It first reads what is in the peek buffer, and then makes
// the buffer grow up to MaxBytes; after that it returns [ErrPeekFull]. It may
// be used before and after Sniff, until the first Read. Waits before Sniff
// share Sniff's Timeout; each reader made after it has a Timeout of its own.
func (c *Conn) PeekReader() io.Reader { return &peekReader{conn: c} }

// EndWait ends the wait of an HTTP/2 connection for its first request, the one
// under way or one that comes: the connection gets the verdict HTTP2, so that a
// server can tell it properly to leave. A connection that has not got as far
// keeps its time, and its chance to be served. EndWait has no effect after the
// verdict, and is safe at any time after Init.
func (c *Conn) EndWait() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hurried = true
	if c.wait == undecided {
		// Deadlines of connections are best effort throughout: one that has none
		// can be closed by its owner.
		_ = c.inner.SetReadDeadline(longAgo)
	}
}

// isHurried reports whether EndWait was called.
func (c *Conn) isHurried() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hurried
}

// waitUndecided sets the read deadline of a wait that EndWait may end. It
// reports false if EndWait was called already.
func (c *Conn) waitUndecided(deadline time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hurried {
		return false
	}
	c.wait = undecided
	_ = c.inner.SetReadDeadline(deadline)
	return true
}

// decide makes v stand and gives the connection back without deadlines.
func (c *Conn) decide(v Verdict) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.verdict = v
	c.wait = decided
	_ = c.inner.SetDeadline(time.Time{})
	c.peek.consume(0)
}

// begin notes when the waiting began.
func (c *Conn) begin() {
	if c.started.IsZero() {
		c.started = time.Now()
	}
}

// after returns the time that is d behind t, or no time where d is 0.
func after(t time.Time, d time.Duration) time.Time {
	if d <= 0 {
		return time.Time{}
	}
	return t.Add(d)
}

// peekDeadline returns until when a reader of PeekReader may wait.
func (c *Conn) peekDeadline() time.Time {
	c.mu.Lock()
	done := c.wait == decided
	c.mu.Unlock()
	if done {
		return after(time.Now(), c.config.Timeout)
	}
	c.begin()
	return after(c.started, c.config.Timeout)
}

// peekMore reads more bytes into the peek buffer, for a reader of PeekReader.
func (c *Conn) peekMore(deadline time.Time) error {
	if len(c.peek.unread()) >= c.config.MaxBytes {
		return ErrPeekFull
	}
	_ = c.inner.SetDeadline(deadline)
	err := c.peek.fill(c.inner, c.config.MaxBytes)
	_ = c.inner.SetDeadline(time.Time{})
	return err
}
