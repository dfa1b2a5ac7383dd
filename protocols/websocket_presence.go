package protocols

import (
	"context"
	"sync"
	"time"
)

// A presence tells whether the peer of a handshake is still there while the handler has not answered, as net/http does it: by a
// read, which is ended before anybody else reads. Few handlers ask, so nobody reads until one does.
type presence struct {
	conn peeked
	gone context.CancelFunc

	mu       sync.Mutex
	over     bool          // nobody may read any more
	watching chan struct{} // closed when the read has ended; nil before it has begun
}

// watch begins to read, unless that was done before or is over.
func (p *presence) watch() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over || p.watching != nil {
		return
	}
	p.watching = make(chan struct{})
	go func() {
		defer close(p.watching)
		if p.conn.await() {
			p.gone()
		}
	}()
}

// end ends the reading. What was read is in the peek buffer.
func (p *presence) end() {
	p.mu.Lock()
	p.over = true
	watching := p.watching
	p.mu.Unlock()
	if watching == nil {
		return
	}
	_ = p.conn.SetReadDeadline(longAgo)
	<-watching
	_ = p.conn.SetReadDeadline(time.Time{})
}

// A presenceContext is a request's context which watches the peer from when it is first asked for its end.
type presenceContext struct {
	context.Context //nolint:containedctx // It is one.
	presence        *presence
}

// Done implements [context.Context].
func (c *presenceContext) Done() <-chan struct{} {
	c.presence.watch()
	return c.Context.Done()
}

// Err implements [context.Context].
func (c *presenceContext) Err() error {
	c.presence.watch()
	return c.Context.Err()
}

// await reads until there is something behind what was peeked already, and reports whether that is the end of the connection. It
// belongs to the goroutine that reads, and is ended by the read deadline.
func (c *Conn) await() (ended bool) {
	e := c.recognition.Load()
	if e == nil || e.peek.err != nil || len(e.peek.unread()) >= e.config.MaxBytes {
		return e != nil && e.peek.err != nil
	}
	_ = e.peek.fill(c.inner, e.config.MaxBytes)
	return e.peek.err != nil
}
