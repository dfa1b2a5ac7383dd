package mux

import (
	"context"
	"crypto/tls"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
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
	return ConnInfo{
		ID:         c.account.ID(),
		Protocol:   string(c.root.server.conns.Tag(&c.account)),
		RemoteAddr: c.remote,
		TLS:        c.TLSState(),
	}
}

func connOf(ctx context.Context) (*conn, bool) {
	c, ok := ctx.Value(connKey{}).(*conn)
	return c, ok
}

// connContext is the http.Server hook that puts the connection into the
// context of its requests.
func connContext(ctx context.Context, nc net.Conn) context.Context {
	if c, ok := nc.(*conn); ok {
		return context.WithValue(ctx, connKey{}, c)
	}
	return ctx
}

// identify returns the interceptors that do the same for native gRPC calls. grpc-go shows
// the peer's address but not the connection, so the address stands for it.
func (s *Server) identify() []grpc.ServerOption {
	withConn := func(ctx context.Context) context.Context {
		if p, ok := peer.FromContext(ctx); ok {
			if c, ok := s.grpcConns.Load(p.Addr); ok {
				return context.WithValue(ctx, connKey{}, c)
			}
		}
		return ctx
	}
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			return h(withConn(ctx), req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			return h(srv, &streamWithContext{ss, withConn(ss.Context())})
		}),
	}
}

type streamWithContext struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *streamWithContext) Context() context.Context { return s.ctx }
