// Package sub has a net.Listener without a socket: its owner delivers connections, and a
// server accepts them.
package sub

import (
	"context"
	"fmt"
	"net"
	"sync"
)

// Listener is a listener without a socket. Closing it closes nothing else, so that the
// end of one server does not end the root listener or its siblings. [New] makes it; all
// methods may be called concurrently.
type Listener struct {
	addr   net.Addr
	queue  chan net.Conn
	close  func() // closes closed, once
	closed chan struct{}
	finish func() // closes ended, once
	ended  chan struct{}
}

var _ net.Listener = (*Listener)(nil)

// errClosed is what Accept and Deliver return after Close.
var errClosed = fmt.Errorf("mux: sub-listener: %w", net.ErrClosed)

// New returns a Listener with the address addr, which must not be nil. It queues up to
// backlog connections. With a backlog of 0 or less, Deliver waits for an Accept.
func New(addr net.Addr, backlog int) *Listener {
	l := &Listener{
		addr:   addr,
		queue:  make(chan net.Conn, max(backlog, 0)),
		closed: make(chan struct{}),
		ended:  make(chan struct{}),
	}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	l.finish = sync.OnceFunc(func() { close(l.ended) })
	return l
}

// Deliver hands conn to Accept, and blocks while the backlog is full. With a nil error
// the Listener or the accepting server owns conn. With any other the caller still does:
// an error that wraps net.ErrClosed after Close or Finish, or the cause of ctx's end.
func (l *Listener) Deliver(ctx context.Context, conn net.Conn) error {
	if isClosed(l.closed) || isClosed(l.ended) {
		return errClosed
	}
	select {
	case l.queue <- conn:
		// Close may have emptied the queue just before. Emptying it again leaves no
		// connection behind.
		if isClosed(l.closed) {
			l.discardQueued()
		}
		return nil
	case <-l.closed:
		return errClosed
	case <-l.ended:
		return errClosed
	case <-ctx.Done():
		return fmt.Errorf("mux: deliver to sub-listener: %w", context.Cause(ctx))
	}
}

// Accept returns the next delivered connection. It returns an error that wraps
// net.ErrClosed at once after Close, and when the queue is empty after Finish.
func (l *Listener) Accept() (net.Conn, error) {
	if isClosed(l.closed) {
		return nil, errClosed
	}
	select {
	case conn := <-l.queue:
		return conn, nil
	case <-l.closed:
		return nil, errClosed
	case <-l.ended:
	}
	select {
	case conn := <-l.queue:
		return conn, nil
	default:
		return nil, errClosed
	}
}

// Finish ends Deliver and lets Accept empty the queue. A Deliver that is under way may end
// either way; Close may discard what it queues. Finish is idempotent.
func (l *Listener) Finish() { l.finish() }

// Queued returns how many connections wait for an Accept.
func (l *Listener) Queued() int { return len(l.queue) }

// Close ends Accept and Deliver and closes what is queued; accepted connections live on.
// It is idempotent and returns nil.
func (l *Listener) Close() error {
	l.close()
	l.discardQueued()
	return nil
}

// Addr returns the address given to New.
func (l *Listener) Addr() net.Addr { return l.addr }

func (l *Listener) discardQueued() {
	for {
		select {
		case conn := <-l.queue:
			_ = conn.Close() // It never reached a server, so there is no peer to tell.
		default:
			return
		}
	}
}

func isClosed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}
