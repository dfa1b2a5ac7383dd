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
	http1, http2, grpc, webSocket book
}

// book is where the requests of one protocol are counted.
type book struct {
	*pool.Requests
	protocol protocols.Protocol
}

func (s *Server) newRequestStats() requestStats {
	of := func(p protocols.Protocol) book { return book{s.conns.Requests(pool.Tag(p)), p} }
	return requestStats{of(protocols.HTTP1), of(protocols.HTTP2), of(protocols.GRPC), of(protocols.WebSocket)}
}

// begin counts a request, call or session that begins.
func (b book) begin(c *conn) time.Time {
	b.Begin()
	if c != nil {
		c.account.BeginRequest()
	}
	return time.Now()
}

// end counts it again when it is over, and returns how long it took. A peer that got no answer counts as answered with code.
func (b book) end(c *conn, started time.Time, code int, failed bool) time.Duration {
	if c != nil {
		c.account.EndRequest()
	}
	took := time.Since(started)
	b.End(took, failed, code)
	return took
}

// countHTTP serves one request and books it under its HTTP status; a WebSocket is one
// request with code 101 that lasts as long as it is open. The server's faults count as failures.
func (s *Server) countHTTP(b book, c *conn, rec *recorder, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
	started := b.begin(c)
	// A handler that panics has not answered; net/http closes the connection or resets the stream.
	code := http.StatusInternalServerError
	defer func() {
		took := b.end(c, started, code, code >= http.StatusInternalServerError)
		if s.accessLog != nil {
			s.logAccess(r.Context(), c, httpAccess(r), outcome{b.protocol, code, rec.sent, took})
		}
	}()
	serve(w, r)
	code = rec.status()
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

// endCall books a call that is over; finished is false after a panic of its handler.
func (s *Server) endCall(ctx context.Context, c *conn, method string, started time.Time, err error, finished bool) {
	b := s.requests.grpc
	code := codes.Internal
	if finished {
		code = status.Code(err)
	}
	took := b.end(c, started, int(code), grpcFailed(code))
	if s.accessLog != nil {
		s.logAccess(ctx, c, callAccess(ctx, method), outcome{protocol: b.protocol, code: int(code), duration: took})
	}
}

// interceptors book the calls on both transports, and the messages of native connections. grpc-go asks none for a method
// that nobody has registered, so such a call is in no book.
func (s *Server) interceptors() []grpc.ServerOption {
	b := s.requests.grpc
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (resp any, err error) {
			c, _ := connOf(ctx)
			started, finished := b.begin(c), false
			defer func() {
				if c != nil {
					c.account.CountMessages(1, messagesOf(err))
				}
				s.endCall(ctx, c, info.FullMethod, started, err, finished)
			}()
			resp, err = h(ctx, req)
			finished = true
			return resp, err
		}),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) (err error) {
			ctx := ss.Context()
			c, _ := connOf(ctx)
			started, finished := b.begin(c), false
			defer func() { s.endCall(ctx, c, info.FullMethod, started, err, finished) }()
			if c != nil {
				ss = &countedStream{ss, c}
			}
			err = h(srv, ss)
			finished = true
			return err
		}),
	}
}

// messagesOf returns how many messages answer a unary call.
func messagesOf(err error) int {
	if err != nil {
		return 0
	}
	return 1
}

// countedStream counts the messages of a call.
type countedStream struct {
	grpc.ServerStream
	conn *conn
}

// RecvMsg implements [grpc.ServerStream].
func (s *countedStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if err == nil {
		s.conn.account.CountMessages(1, 0)
	}
	return err
}

// SendMsg implements [grpc.ServerStream].
func (s *countedStream) SendMsg(m any) error {
	err := s.ServerStream.SendMsg(m)
	if err == nil {
		s.conn.account.CountMessages(0, 1)
	}
	return err
}
