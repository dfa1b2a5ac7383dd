package mux

import (
	"context"
	"net"
	"sync"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols/websocket"
)

// ErrDraining is the cause with which the context of a WebSocket handler, and that of
// [Conn.Draining], ends when the connection is to leave.
var ErrDraining = websocket.ErrDraining

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
