package mux

import (
	"context"
	"crypto/tls"
	"net"
	"reflect"
	"sync"

	"google.golang.org/grpc/peer"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/protocols"
)

// ConnInfo says which connection a request, call or WebSocket came on.
type ConnInfo struct {
	// ID is the connection's number, as in the log and on the admin listener.
	ID uint64
	// Protocol is the tag of the pool that the connection is in: http1, http2, grpc or websocket.
	Protocol string
	// RemoteAddr is the peer's address.
	RemoteAddr net.Addr
	// TLS is nil on a connection without TLS. It must not be changed.
	TLS *tls.ConnectionState
	// Proxy is what a PROXY header said besides the address; nil without one. It must not be changed.
	Proxy *listeners.ProxyInfo
}

type connKey struct{}

// FromContext returns the connection behind the context of an HTTP request, a
// gRPC call or a WebSocket handler of this package's servers.
func FromContext(ctx context.Context) (ConnInfo, bool) {
	c, ok := connOf(ctx)
	if !ok {
		return ConnInfo{}, false
	}
	return c.connInfo(), true
}

// FromConn is [FromContext] for a connection from a listener of [Server.Match].
func FromConn(nc net.Conn) (ConnInfo, bool) {
	c, ok := nc.(*conn)
	if !ok {
		return ConnInfo{}, false
	}
	return c.connInfo(), true
}

func (c *conn) connInfo() ConnInfo {
	var proxy *listeners.ProxyInfo
	if said, ok := listeners.ProxyInfoOf(c.account.NetConn()); ok {
		kept := said // Only what there is costs an allocation.
		proxy = &kept
	}
	return ConnInfo{
		Proxy:      proxy,
		ID:         c.account.ID(),
		Protocol:   string(c.root.books.conns.Tag(&c.account)),
		RemoteAddr: c.RemoteAddr(),
		TLS:        c.TLSState(),
	}
}

// grpcConns finds the connection of a native gRPC call that came over TLS: its peer's AuthInfo has to be what
// handlers expect, and besides grpc-go shows the peer's address and nothing else of the connection. So the address, a pointer
// that no other connection has, stands for it. It is shared by all servers, because a call does
// not show its server either. An entry lives as long as its connection.
var grpcConns sync.Map // net.Addr -> *conn

// showByAddr makes the connection one that can be found by its address.
func (c *conn) showByAddr() {
	address := uniqueAddr(c.RemoteAddr())
	c.rare().remote.Store(&address)
	c.rare().byAddr.Store(true)
	grpcConns.Store(address, c)
}

// uniqueAddr returns a copy of an address with an identity of its own.
func uniqueAddr(a net.Addr) net.Addr {
	switch a := a.(type) {
	case *net.TCPAddr:
		unique := *a
		return &unique
	case *net.UnixAddr:
		unique := *a
		return &unique
	default:
		return &addr{a}
	}
}

// addr gives an address of another type an identity.
type addr struct{ net.Addr }

func connOf(ctx context.Context) (*conn, bool) {
	if c, ok := ctx.Value(connKey{}).(*conn); ok {
		return c, true
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, false
	}
	if plain, ok := p.AuthInfo.(protocols.Plaintext); ok {
		c, ok := plain.NetConn().(*conn)
		return c, ok
	}
	if p.Addr == nil || !reflect.TypeOf(p.Addr).Comparable() {
		return nil, false
	}
	c, ok := grpcConns.Load(p.Addr)
	if !ok {
		return nil, false
	}
	return c.(*conn), true //nolint:forcetypeassert // Nothing else is stored.
}

// connContext is the http.Server hook that puts the connection into the
// context of its requests.
func connContext(ctx context.Context, nc net.Conn) context.Context {
	if c, ok := nc.(*conn); ok {
		return &connCtx{ctx, c}
	}
	return ctx
}

// connCtx is a context that knows its connection. It is half as long as what [context.WithValue] returns.
type connCtx struct {
	context.Context //nolint:containedctx // It is one.
	conn            *conn
}

// Value implements [context.Context].
func (c *connCtx) Value(key any) any {
	if _, ok := key.(connKey); ok {
		return c.conn
	}
	return c.Context.Value(key)
}
