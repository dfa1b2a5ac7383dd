package mux

import (
	"context"
	"crypto/tls"
	"net"
	"reflect"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/websocket"
)

// Conn describes a connection of a [Server]. Get one from [ConnOf].
type Conn struct {
	// ID is the connection's number, as in the log and on the admin listener.
	ID uint64
	// Protocol is the tag of the pool that the connection was in: sniffing, http1, http2,
	// grpc, websocket, or the name of a custom protocol.
	Protocol string
	// RemoteAddr is the peer's address, nil while its PROXY header has not come.
	RemoteAddr net.Addr
	// TLS is nil on a connection without TLS. It must not be modified.
	TLS *tls.ConnectionState
	// Proxy is what a PROXY header said besides the address; nil without one, and while it
	// has not come. It must not be modified.
	Proxy *ProxyInfo

	conn *conn // nil in the zero Conn
}

// ConnOf returns the connection of x, and false where x has none. x is the context of an
// HTTP request, a gRPC call or a WebSocket handler, a connection from a listener of
// [Server.Match], or an [Event]. The wrapped connections of handlers that hijack are not
// looked for; use the request's context.
func ConnOf(x any) (Conn, bool) {
	var c *conn
	switch x := x.(type) {
	case context.Context:
		c, _ = connOf(x)
	case net.Conn:
		c, _ = x.(*conn)
	case Event:
		c = x.Conn.conn
	}
	if c == nil {
		return Conn{}, false
	}
	return c.describe(), true
}

// Draining returns a context that ends when the connection is to leave, with the cause
// [ErrDraining], and in any case when the connection is closed. In a drain, each
// connection is told at a random moment within the configured spread. It is for handlers
// that would go on for long, such as event streams and hijacked connections. The context
// of a zero Conn does not end.
func (c Conn) Draining() context.Context {
	if c.conn == nil {
		return context.Background()
	}
	return c.conn.drainContext()
}

// Info returns the account of the connection at this moment. It may be called behind the
// connection's end, and is zero for a zero Conn.
func (c Conn) Info() ConnInfo {
	if c.conn == nil {
		return ConnInfo{}
	}
	return c.conn.info()
}

func (c *conn) describe() Conn {
	var proxy *ProxyInfo
	if c.rare().addrs.Load() != nil { // Or ProxyInfoOf would wait for the header.
		if said, ok := listeners.ProxyInfoOf(c.account.NetConn()); ok {
			kept := said // Only what there is costs an allocation.
			proxy = &kept
		}
	}
	return Conn{
		ID:         c.account.ID(),
		Protocol:   string(c.root.books.tag(c)),
		RemoteAddr: c.knownAddr(),
		TLS:        c.TLSState(),
		Proxy:      proxy,
		conn:       c,
	}
}

// connKey is the key of a connection in the contexts of its requests, and baseKey that of
// the context from which those derive.
type (
	connKey struct{}
	baseKey struct{}
)

// grpcConns finds the connection of a native gRPC call over TLS by its peer's address. The
// AuthInfo has to be what handlers expect, and grpc-go shows nothing else of a connection.
// So each has an address of its own, a pointer that no other connection has. All servers
// share the map, because a call does not show its server. An entry lives as long as its
// connection.
var grpcConns sync.Map // net.Addr -> *conn

// showByAddr enters the connection into grpcConns.
func (c *conn) showByAddr() {
	known := c.known()
	known.remote = uniqueAddr(known.remote)
	c.ensureRare().addrs.Store(&known)
	c.ensureRare().byAddr.Store(true)
	grpcConns.Store(known.remote, c)
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

// contexts are the embedder's functions for contexts; nil ones do nothing.
type contexts struct {
	base func(net.Listener) context.Context
	conn func(context.Context, net.Conn) context.Context
}

// of returns the context of what comes from a listener.
func (x *contexts) of(l net.Listener) context.Context {
	if x.base == nil {
		return context.Background()
	}
	ctx := x.base(l)
	if ctx == nil {
		panic("mux: BaseContext returned a nil context") // As net/http does.
	}
	return ctx
}

// baseContext is the http.Server hook.
func (x *contexts) baseContext(l net.Listener) context.Context {
	if sub, ok := l.(*subListener); ok {
		return sub.root.base
	}
	return context.Background() // It is a wrapper, whose connections are not asked for theirs.
}

// connContext is the http.Server hook.
func (x *contexts) connContext(ctx context.Context, nc net.Conn) context.Context {
	if c, ok := nc.(*conn); ok && x.conn != nil {
		ctx = x.ofConn(ctx, c)
	}
	return connContext(ctx, nc)
}

func (x *contexts) ofConn(ctx context.Context, c *conn) context.Context {
	if ctx = x.conn(ctx, c.account.NetConn()); ctx == nil {
		panic("mux: ConnContext returned nil") // As net/http does.
	}
	return ctx
}

// ofNative keeps the context of a connection for the calls on it; see [nativeContexts].
func (x *contexts) ofNative(c *conn) {
	if x.base == nil && x.conn == nil {
		return
	}
	ctx := c.root.base
	if x.conn != nil {
		ctx = x.ofConn(ctx, c)
	}
	c.ensureRare().values = ctx
}

// grpcOptions give native calls the contexts of their connections.
func (x *contexts) grpcOptions() []grpc.ServerOption {
	if x.base == nil && x.conn == nil {
		return nil
	}
	return []grpc.ServerOption{grpc.StatsHandler(nativeContexts{})}
}

// nativeContexts gives a native connection the context that [contexts.ofNative] has kept.
// Those of its calls derive from it. An interceptor would come too late: behind the one of
// grpc.UnaryInterceptor, and behind the embedder's own stats.Handler.
type nativeContexts struct{}

// TagConn implements [stats.Handler].
func (nativeContexts) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	if _, shared := sharedConn(ctx); shared {
		return ctx // It has come from the connection's.
	}
	if c, ok := connOf(ctx); ok && c.rare().values != nil {
		return &inheritedCtx{c.rare().values, ctx}
	}
	return ctx
}

// TagRPC implements [stats.Handler].
func (nativeContexts) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements [stats.Handler].
func (nativeContexts) HandleRPC(context.Context, stats.RPCStats) {}

// HandleConn implements [stats.Handler].
func (nativeContexts) HandleConn(context.Context, stats.ConnStats) {}

// inheritedCtx is a context that has the values of another as well, which win. That one does
// not end.
type inheritedCtx struct {
	context.Context //nolint:containedctx // It is one.
	own             context.Context
}

// Value implements [context.Context].
func (c *inheritedCtx) Value(key any) any {
	if v := c.own.Value(key); v != nil {
		return v
	}
	return c.Context.Value(key)
}

// connCtx is a context that knows its connection. It is half the size of what
// [context.WithValue] returns.
type connCtx struct {
	context.Context //nolint:containedctx // It is one.
	conn            *conn
}

// Value implements [context.Context].
func (c *connCtx) Value(key any) any {
	switch key.(type) {
	case connKey:
		return c.conn
	case baseKey:
		return c.Context
	default:
		return c.Context.Value(key)
	}
}

// detach returns the context of a WebSocket session that may outlive the handler of its
// request. It has the values of the request's context, and ends with the one that
// [WithConnContext] or [WithBaseContext] has given.
func detach(ctx context.Context) context.Context {
	values := context.WithoutCancel(ctx)
	if base, ok := ctx.Value(baseKey{}).(context.Context); ok && base.Done() != nil {
		return &inheritedCtx{base, values}
	}
	return values
}

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
	m := c.ensureRare()
	if m.notice.Load() == nil {
		m.notice.CompareAndSwap(nil, new(notice)) // Unless another goroutine was faster.
	}
	n := m.notice.Load()
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

// end ends the context, if there is one; n may be nil. What makes it end, the departure
// or the close, happens before, so that a context which is made meanwhile sees it.
func (n *notice) end(cause error) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cancel != nil {
		n.cancel(cause)
	}
}

// notify ends the drain context of the connection because it is to leave.
func (c *conn) notify() {
	if m := c.layers().rare.Load(); m != nil {
		m.notice.Load().end(ErrDraining)
	}
}
