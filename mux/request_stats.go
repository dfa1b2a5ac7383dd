package mux

import (
	"context"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/pool/requests"
	"github.com/muxserve/muxserve/protocols"
)

// requestStats are the books of requests. A request is booked by what it is and not by
// its connection: a gRPC call on a shared connection is a call.
type requestStats struct {
	http1, http2, grpc, webSocket book
}

// book is where the requests of one protocol are counted.
type book struct {
	*requests.Book

	protocol protocols.Protocol
}

func (b *books) newRequestStats() requestStats {
	of := func(p protocols.Protocol) book { return book{b.conns.Requests(pool.Tag(p)), p} }
	return requestStats{of(protocols.HTTP1), of(protocols.HTTP2), of(protocols.GRPC), of(protocols.WebSocket)}
}

// begun is a request that began, as the book counts it, and its number on its connection.
type begun struct {
	requests.Started

	number uint64
}

// begin counts a request, call or session that begins. c may be nil.
func (b *book) begin(c *conn) begun {
	n := uint64(0)
	if c != nil {
		n = c.account.BeginRequest()
	}
	return begun{b.Begin(), n}
}

// end counts that a request is over, and returns how long it took. A client that got no
// answer counts as answered with code.
func (b *book) end(c *conn, started begun, code int, failed bool) time.Duration {
	if c != nil {
		c.account.EndRequest()
	}
	return b.End(started.Started, failed, code)
}

// countHTTP serves one request and books it under its HTTP status. A WebSocket is one
// request with code 101 that lasts as long as it is open. 5xx and panics count as
// failures.
func (b *books) countHTTP(to *book, c *conn, rec *recorder, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
	e := b.beginHTTP(to, c, r)
	finished := false
	defer func() { b.endHTTP(r.Context(), &e, rec, finished) }()
	serve(w, r)
	rec.setStatus(http.StatusOK)
	finished = true
}

// entry is an HTTP request that is being served.
type entry struct {
	book    *book
	conn    *conn
	started begun
	asked   *access // nil without an access log
}

// beginHTTP books a request that begins.
func (b *books) beginHTTP(to *book, c *conn, r *http.Request) entry {
	e := entry{book: to, conn: c, started: to.begin(c)}
	if b.accessLog != nil {
		asked := httpAccess(r) // The handler may change the request.
		e.asked = &asked
	}
	return e
}

// endHTTP books the end of a request. A handler that has not finished has panicked.
func (b *books) endHTTP(ctx context.Context, e *entry, rec *recorder, finished bool) {
	code := rec.status()
	if !finished && rec.code == 0 {
		// net/http closes the connection or resets the stream without an answer.
		code = http.StatusInternalServerError
	}
	took := e.book.end(e.conn, e.started, code, !finished || code >= http.StatusInternalServerError)
	if e.asked != nil {
		b.logAccess(ctx, e.conn, *e.asked, outcome{e.book.protocol, e.started.number, code, rec.sent, took})
	}
}

// grpcFailed reports whether a code is the server's fault, and not an answer that the
// client may have asked for.
func grpcFailed(code codes.Code) bool {
	switch code {
	case codes.Unknown, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Internal, codes.Unavailable, codes.DataLoss:
		return true
	default:
		return false
	}
}

// endCall books a call that is over; finished is false after a panic of its handler.
func (b *books) endCall(ctx context.Context, c *conn, method string, started begun, err error, finished bool) {
	calls := &b.requests.grpc
	code := codes.Internal
	switch {
	case finished && err == nil && ctx.Err() != nil:
		code = status.FromContextError(ctx.Err()).Code() // The client does not get the answer.
	case finished:
		code = codeOf(err)
	}
	took := calls.end(c, started, int(code), grpcFailed(code))
	if b.accessLog != nil {
		b.logAccess(ctx, c, callAccess(ctx, method), outcome{protocol: calls.protocol, number: started.number, code: int(code), duration: took})
	}
}

// codeOf returns the code that grpc-go makes of a handler's error.
func codeOf(err error) codes.Code {
	if st, ok := status.FromError(err); ok {
		return st.Code()
	}
	return status.FromContextError(err).Code()
}

// interceptors book the calls on both transports, and their messages. grpc-go does not
// call them for a call that it answers itself, whose method is unknown or whose message
// is too long, so such a call is in no book. An answer that is too long to be sent counts
// as what the handler returned.
func (b *books) interceptors() []grpc.ServerOption {
	calls := &b.requests.grpc
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (resp any, err error) {
			c, _ := connOf(ctx)
			started, finished := calls.begin(c), false
			defer func() {
				if c != nil {
					c.account.CountMessages(1, messagesOf(err))
				}
				b.endCall(ctx, c, info.FullMethod, started, err, finished)
			}()
			resp, err = h(ctx, req)
			finished = true
			return resp, err
		}),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) (err error) {
			ctx := ss.Context()
			c, _ := connOf(ctx)
			started, finished := calls.begin(c), false
			defer func() { b.endCall(ctx, c, info.FullMethod, started, err, finished) }()
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
