package mux

import (
	"context"
	"net"
	"sync"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols/websocket"
)

// ErrDraining is the cause with which the context of a WebSocket handler, and each [DrainContext], ends in a drain.
var ErrDraining = websocket.ErrDraining

// DrainContext returns a context that ends when the connection behind ctx, which
// is that of a request, call or WebSocket, is to leave: in a drain at a random moment within the configured spread, with the
// cause [ErrDraining], and in any case when the connection is closed. It is for handlers that would go
// on for long, such as event streams and hijacked connections. For any other ctx it returns ctx.
func DrainContext(ctx context.Context) context.Context {
	c, ok := connOf(ctx)
	if !ok {
		return ctx
	}
	return c.root.server.notices.of(c)
}

// DrainContextOf is [DrainContext] for a connection from a listener of [Server.Match]. For any other
// connection it returns a context that does not end.
func DrainContextOf(nc net.Conn) context.Context {
	c, ok := nc.(*conn)
	if !ok {
		return context.Background()
	}
	return c.root.server.notices.of(c)
}

// notices are the contexts of those who want to know when their connection is to leave. The zero value is ready.
type notices struct {
	mu    sync.Mutex // guards conns
	conns map[*conn]notice
}

type notice struct {
	ctx context.Context
	end context.CancelCauseFunc
}

// of returns the context of c, the same each time.
func (n *notices) of(c *conn) context.Context {
	n.mu.Lock()
	defer n.mu.Unlock()
	if known, ok := n.conns[c]; ok {
		return known.ctx
	}
	ctx, end := context.WithCancelCause(context.Background())
	// Whoever closes c sees this before, or is seen to have closed it.
	c.set(flagNoticed)
	switch {
	case c.account.State() == pool.StateClosing:
		end(net.ErrClosed)
		return ctx
	case c.has(flagNotified):
		end(ErrDraining)
	}
	if n.conns == nil {
		n.conns = make(map[*conn]notice)
	}
	n.conns[c] = notice{ctx, end}
	return ctx
}

// end tells the owner of c that it is to leave.
func (n *notices) end(c *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c.set(flagNotified)
	if known, ok := n.conns[c]; ok {
		known.end(ErrDraining)
	}
}

// forget ends the context of a connection that is closed.
func (n *notices) forget(c *conn) {
	n.mu.Lock()
	known, ok := n.conns[c]
	delete(n.conns, c)
	n.mu.Unlock()
	if ok {
		known.end(net.ErrClosed)
	}
}
