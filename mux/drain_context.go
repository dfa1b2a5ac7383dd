package mux

import (
	"context"
	"net"
	"sync"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols/websocket"
)

// ErrDraining is the cause with which the context of a WebSocket handler, and each
// [DrainContext], ends when the connection is to leave.
var ErrDraining = websocket.ErrDraining

// DrainContext returns a context that ends when the connection behind ctx is to leave,
// with the cause [ErrDraining], and in any case when the connection is closed. ctx is that
// of a request, call or WebSocket. In a drain, each connection is told at a random moment
// within the configured spread. DrainContext is for handlers that would go on for long,
// such as event streams and hijacked connections. For any other ctx it returns ctx.
func DrainContext(ctx context.Context) context.Context {
	c, ok := connOf(ctx)
	if !ok {
		return ctx
	}
	return c.drainContext()
}

// DrainContextOf is [DrainContext] for a connection from a listener of [Server.Match]. For
// any other connection it returns a context that does not end.
func DrainContextOf(nc net.Conn) context.Context {
	c, ok := nc.(*conn)
	if !ok {
		return context.Background()
	}
	return c.drainContext()
}

// notice is the drain context of a connection, made when it is first asked for. The zero
// value is ready to use.
type notice struct {
	mu     sync.Mutex // guards what follows
	ctx    context.Context
	cancel context.CancelCauseFunc
}

// drainContext returns the drain context of the connection, the same each time.
func (c *conn) drainContext() context.Context {
	n := &c.rare().notice
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx != nil {
		return n.ctx
	}
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
	switch {
	case c.account.State() == pool.StateClosing:
		n.cancel(net.ErrClosed)
	case c.isTold() || c.overAge() >= 0:
		n.cancel(ErrDraining)
	}
	return n.ctx
}

// end ends the context, if there is one. What makes it end, the departure or the close,
// happens before, so that a context which is made meanwhile sees it.
func (n *notice) end(cause error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cancel != nil {
		n.cancel(cause)
	}
}

// notify ends the drain context of the connection because it is to leave.
func (c *conn) notify() {
	if m := c.more.Load(); m != nil {
		m.notice.end(ErrDraining)
	}
}
