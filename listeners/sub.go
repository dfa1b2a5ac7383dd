package listeners

import (
	"context"
	"fmt"
	"net"
	"sync"
)

// Sub is a listener without a socket: its owner delivers connections, a server
// accepts them. Closing it closes nothing but itself, so one server's end does
// not end the root listener or its siblings. Get one from [NewSub]; all methods
// may be called concurrently.
type Sub struct {
	// Discard is called with each connection that was delivered but not
	// accepted when the Sub closes, and owns it from then on. Nil closes the
	// connection. Set it before the first Deliver. It must not block.
	Discard func(net.Conn)

	addr      net.Addr
	queue     chan net.Conn
	closeOnce sync.Once
	closed    chan struct{}
	endOnce   sync.Once
	ended     chan struct{}
}

var _ net.Listener = (*Sub)(nil)

// errSubClosed is wrapped by what Accept and Deliver return after Close.
var errSubClosed = fmt.Errorf("listeners: sub-listener: %w", net.ErrClosed)

// NewSub returns a Sub that reports addr, which must not be nil, and that holds
// up to backlog connections that nobody has accepted yet. With a backlog of 0
// or less each connection is handed straight to an Accept.
func NewSub(addr net.Addr, backlog int) *Sub {
	return &Sub{
		addr:   addr,
		queue:  make(chan net.Conn, max(backlog, 0)),
		closed: make(chan struct{}),
		ended:  make(chan struct{}),
	}
}

// Deliver hands conn to Accept and blocks while the backlog is full. With a nil
// error the Sub or the accepting server owns conn. With any other the caller
// still does: one that wraps net.ErrClosed after Close, or one that wraps the
// cause of ctx's end.
func (s *Sub) Deliver(ctx context.Context, conn net.Conn) error {
	if isClosed(s.closed) || isClosed(s.ended) {
		return errSubClosed
	}
	select {
	case s.queue <- conn:
		// Close may have emptied the queue just before; whoever queues after
		// it empties it again, so that no connection stays behind.
		if isClosed(s.closed) {
			s.discardQueued()
		}
		return nil
	case <-s.closed:
		return errSubClosed
	case <-ctx.Done():
		return fmt.Errorf("listeners: deliver to sub-listener: %w", context.Cause(ctx))
	}
}

// Accept returns the next delivered connection. After Close it returns an error
// that wraps net.ErrClosed, whatever is left in the queue; after Finish, once nothing is left.
func (s *Sub) Accept() (net.Conn, error) {
	if isClosed(s.closed) {
		return nil, errSubClosed
	}
	select {
	case conn := <-s.queue:
		return conn, nil
	case <-s.closed:
		return nil, errSubClosed
	case <-s.ended:
	}
	select {
	case conn := <-s.queue:
		return conn, nil
	default:
		return nil, errSubClosed
	}
}

// Finish ends Deliver and lets Accept empty the queue. It is called when nobody is
// delivering any more: what such a one has queued at that moment may be discarded by Close. It is idempotent.
func (s *Sub) Finish() { s.endOnce.Do(func() { close(s.ended) }) }

// Queued returns how many connections wait for an Accept.
func (s *Sub) Queued() int { return len(s.queue) }

// Close ends Accept and Deliver and discards what is queued; connections that
// were accepted live on. It is idempotent and returns nil.
func (s *Sub) Close() error {
	s.closeOnce.Do(func() { close(s.closed) })
	s.discardQueued()
	return nil
}

// Addr returns the address given to NewSub.
func (s *Sub) Addr() net.Addr { return s.addr }

func (s *Sub) discardQueued() {
	for {
		select {
		case conn := <-s.queue:
			s.discard(conn)
		default:
			return
		}
	}
}

func (s *Sub) discard(conn net.Conn) {
	if s.Discard != nil {
		s.Discard(conn)
		return
	}
	_ = conn.Close() // The peer never reached a server: nobody is left to tell.
}
