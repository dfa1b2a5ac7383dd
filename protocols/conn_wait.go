package protocols

import (
	"io"
	"time"

	"golang.org/x/net/http2"
)

// longAgo is a deadline that ends a wait at once.
var longAgo = time.Unix(1, 0)

// SetPeek sets the limits of readers that PeekReader returns. Sniff sets them
// as well. A nil config means the defaults. It has no effect when the verdict
// stands and what was peeked has been read.
func (c *Conn) SetPeek(config *SniffConfig) {
	if e := c.early.Load(); e != nil {
		e.config = config.withDefaults()
	}
}

// PeekReader returns a reader that begins at c's first unread byte and
// consumes nothing. It first reads what is in the peek buffer, and then makes
// the buffer grow up to MaxBytes; after that it returns [ErrPeekFull]. It may
// be used before and after Sniff, until the first Read; behind that it may return
// ErrPeekFull as well. Waits before Sniff
// share Sniff's Timeout; each reader made after it has a Timeout of its own.
func (c *Conn) PeekReader() io.Reader { return &peekReader{conn: c} }

// EndWait ends the wait of an HTTP/2 connection for its first request, the one
// under way or one that comes: the connection gets the verdict HTTP2, so that a
// server can tell it properly to leave. A connection that has not got as far
// keeps its time, and its chance to be served. EndWait has no effect after the
// verdict, and is safe at any time after Init.
func (c *Conn) EndWait() {
	if e := c.early.Load(); e != nil {
		e.endWait(c)
	}
}

// decide makes v stand and gives the connection back without deadlines.
func (c *Conn) decide(e *earlyState, v Verdict) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c.verdict = v.compact()
	e.wait = decided
	_ = c.inner.SetDeadline(time.Time{})
	if v.Protocol == HTTP2 || v.Protocol == GRPC || e.filter != nil {
		t := newHTTP2Track(c, &e.config, e.filter)
		if e.filter != nil && v.Failure == "" {
			first := parseFrameHeader(e.peek.unread()[len(http2.ClientPreface):])
			t.gate.Store(newACKGate(len(http2.ClientPreface) + frameHeaderLen + first.length))
		}
		c.h2.Store(t)
	}
	e.peek.consume(0)
}

// leaveEarly drops e when nothing more is to be had from it.
func (c *Conn) leaveEarly(e *earlyState) {
	if e.wait != decided || len(e.peek.unread()) > 0 || e.peek.err != nil {
		return
	}
	c.early.Store(nil)
	e.release()
}

// after returns the time that is d behind t, or no time where d is 0.
func after(t time.Time, d time.Duration) time.Time {
	if d <= 0 {
		return time.Time{}
	}
	return t.Add(d)
}

// peekDeadline returns until when a reader of PeekReader may wait.
func (e *earlyState) peekDeadline() time.Time {
	if e.wait == decided {
		return after(time.Now(), e.config.Timeout)
	}
	e.begin()
	return after(e.started, e.config.Timeout)
}

// peekMore reads more bytes into the peek buffer, for a reader of PeekReader.
func (e *earlyState) peekMore(deadline time.Time) error {
	if len(e.peek.unread()) >= e.config.MaxBytes {
		return ErrPeekFull
	}
	inner := e.conn.inner
	_ = inner.SetDeadline(deadline)
	err := e.peek.fill(inner, e.config.MaxBytes)
	_ = inner.SetDeadline(time.Time{})
	return err
}
