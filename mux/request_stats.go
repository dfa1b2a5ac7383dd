package mux

import (
	"context"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

// requestStats are the books of requests, by what was asked and not by the
// connection it came on: a gRPC call on a shared connection is a call.
type requestStats struct {
	http1, http2, grpc, webSocket *pool.Requests
}

func (s *Server) newRequestStats() requestStats {
	book := func(p protocols.Protocol) *pool.Requests { return s.conns.Requests(pool.Tag(p)) }
	return requestStats{book(protocols.HTTP1), book(protocols.HTTP2), book(protocols.GRPC), book(protocols.WebSocket)}
}

// count serves one request and books it. Its code is the HTTP status, or for
// gRPC the status code of the call; a WebSocket is one request with code 101 that
// lasts as long as it is open.
func (s *Server) count(book *pool.Requests, c *conn, result func() (code int, failed bool), serve func()) {
	started := time.Now()
	book.Begin()
	if c != nil {
		c.account.BeginRequest()
	}
	// A handler that panics has not answered; net/http closes the connection or resets the stream.
	code, failed := http.StatusInternalServerError, true
	defer func() {
		if c != nil {
			c.account.EndRequest()
		}
		book.End(time.Since(started), failed, code)
	}()
	serve()
	code, failed = result()
}

// httpResult is the result of an HTTP request: the server's faults count as failures.
func (r *recorder) httpResult() (code int, failed bool) {
	code = r.status()
	return code, code >= http.StatusInternalServerError
}

// grpcFailed tells the server's faults from answers that a caller may have asked for.
func grpcFailed(code codes.Code) bool {
	switch code {
	case codes.Unknown, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Internal, codes.Unavailable, codes.DataLoss:
		return true
	default:
		return false
	}
}

// interceptors book the calls on both transports. grpc-go asks none for a method
// that nobody has registered, so such a call is in no book.
func (s *Server) interceptors() []grpc.ServerOption {
	call := func(ctx context.Context, serve func() error) (err error) {
		c, _ := connOf(ctx)
		s.count(s.requests.grpc, c, func() (int, bool) {
			code := status.Code(err)
			return int(code), grpcFailed(code)
		}, func() { err = serve() })
		return err
	}
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (resp any, err error) {
			err = call(ctx, func() (err error) {
				resp, err = h(ctx, req)
				return err
			})
			return resp, err
		}),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			return call(ss.Context(), func() error { return h(srv, ss) })
		}),
	}
}
