package mux

import (
	"context"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// callSlots bounds the handlers of gRPC calls that run at once on a shared connection. The
// limit on streams does not: a stream that the client resets ends at once, and grpc-go's
// ServeHTTP returns while the handler runs on (CVE-2023-44487). On native connections
// grpc-go counts handlers itself. The zero value is ready to use.
type callSlots struct {
	once  sync.Once
	slots chan struct{} // Holds a value for each handler.
}

// acquire waits for one of n slots. Its error is the status of a call that ends first.
func (c *callSlots) acquire(ctx context.Context, n uint32) error {
	c.once.Do(func() { c.slots = make(chan struct{}, n) })
	if ctx.Err() == nil {
		select {
		case c.slots <- struct{}{}:
			return nil
		case <-ctx.Done():
		}
	}
	return status.FromContextError(ctx.Err()).Err()
}

func (c *callSlots) release() { <-c.slots }

// sharedConn returns the connection of a call that came through ServeHTTP.
func sharedConn(ctx context.Context) (*conn, bool) {
	c, ok := ctx.Value(connKey{}).(*conn)
	return c, ok
}

// boundCalls returns the interceptors that keep the handlers of a connection's
// calls to the number n of its streams.
func boundCalls(n uint32) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			if c, ok := sharedConn(ctx); ok {
				if err := c.http2().calls.acquire(ctx, n); err != nil {
					return nil, err
				}
				defer c.http2().calls.release()
			}
			return h(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			if c, ok := sharedConn(ss.Context()); ok {
				if err := c.http2().calls.acquire(ss.Context(), n); err != nil {
					return err
				}
				defer c.http2().calls.release()
			}
			return h(srv, ss)
		}),
	}
}
