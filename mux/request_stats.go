package mux

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/pool/requests"
	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/websocket"
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

// refuseHTTP1 refuses the connection of an HTTP/1.1 client, and books its first request,
// which is a WebSocket handshake where the connection was recognised as that.
func (b *books) refuseHTTP1(c *conn, code int, text string) {
	book := &b.requests.http1
	if c.verdict().Protocol == protocols.WebSocket {
		book = &b.requests.webSocket
	}
	started := book.begin(c)
	protocols.RefuseHTTP1(c, code, text, func(r *http.Request) {
		took := book.end(c, started, code, true)
		if b.accessLog == nil {
			return
		}
		var asked access
		if r != nil {
			asked = httpAccess(r)
		}
		b.logAccess(context.Background(), c, asked, outcome{book.protocol, started.number, code, int64(len(text)), took})
	})
}

// countRefused books a request on an HTTP/2 connection that is refused.
func (b *books) countRefused(w http.ResponseWriter, r *http.Request, answer http.HandlerFunc) {
	c, _ := connOf(r.Context())
	if isGRPC(r) {
		e := b.beginHTTP(&b.requests.grpc, c, r)
		answer(w, r)
		b.endHandledCall(r.Context(), &e, codes.Unavailable)
		return
	}
	book := &b.requests.http2
	if websocket.IsExtendedConnect(r) {
		book = &b.requests.webSocket
	}
	rec := &recorder2{recorder: recorder{ResponseWriter: w}}
	b.countHTTP(book, c, &rec.recorder, rec, r, answer)
}

// endHandledCall books the end of a gRPC call that came as a request, for a method that is
// not registered or a connection that is refused.
func (b *books) endHandledCall(ctx context.Context, e *entry, code codes.Code) {
	b.calls.of(otherMethods).add(code)
	took := e.book.end(e.conn, e.started, int(code), grpcFailed(code))
	if e.asked != nil {
		e.asked.method = "" // As of other calls.
		b.logAccess(ctx, e.conn, *e.asked, outcome{protocol: protocols.GRPC, number: e.started.number, code: int(code), duration: took})
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

// endCall books a call that is over, by method under counted; finished is false after a
// panic of its handler.
func (b *books) endCall(ctx context.Context, c *conn, method, counted string, started begun, err error, finished bool) {
	calls := &b.requests.grpc
	code := codes.Internal
	switch {
	case finished && err == nil && ctx.Err() != nil:
		code = status.FromContextError(ctx.Err()).Code() // The client does not get the answer.
	case finished:
		code = codeOf(err)
	}
	b.calls.of(counted).add(code)
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

// grpcCalls books calls, those that grpc-go answers by itself included. A connection of
// net/http has the handlers of so many calls run at a time.
func (b *books) grpcCalls(streams uint32) protocols.GRPCCalls {
	calls := &b.requests.grpc
	return protocols.GRPCCalls{
		Unary: func(ctx context.Context, method string, call *protocols.UnaryCall) {
			c, _ := connOf(ctx)
			started, finished := calls.begin(c), false
			var err error
			defer func() {
				if c != nil {
					c.account.CountMessages(boolInt(call.Received()), boolInt(finished && err == nil))
				}
				b.endCall(ctx, c, method, method, started, err, finished)
			}()
			err = call.Serve()
			finished = true
		},
		Interceptors: b.interceptors(),
		Shared:       boundCalls(streams),
		WindowsOf: func(ctx context.Context) protocols.StreamWindows {
			if c, ok := sharedConn(ctx); ok {
				return c
			}
			return nil
		},
		AddrOf: func(ctx context.Context) net.Addr {
			if c, ok := sharedConn(ctx); ok {
				return c.RemoteAddr()
			}
			return nil
		},
		Answered: func(ctx context.Context, method string, code codes.Code) {
			c, _ := connOf(ctx)
			b.endCall(ctx, c, method, otherMethods, calls.begin(c), status.Error(code, ""), true)
		},
		SizeOf: sizeOf,
	}
}

// sizeOf returns how long an answer is in protobuf; 0 if it is none.
func sizeOf(reply any) int {
	switch m := reply.(type) {
	case proto.Message:
		return proto.Size(m)
	case protoadapt.MessageV1:
		return proto.Size(protoadapt.MessageV2Of(m))
	default:
		return 0
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// interceptors book the calls that are streams, and their messages, on both transports.
func (b *books) interceptors() []grpc.ServerOption {
	calls := &b.requests.grpc
	return []grpc.ServerOption{grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) (err error) {
		ctx := ss.Context()
		c, _ := connOf(ctx)
		started, finished := calls.begin(c), false
		defer func() { b.endCall(ctx, c, info.FullMethod, info.FullMethod, started, err, finished) }()
		if c != nil {
			ss = &countedStream{ss, c}
		}
		err = h(srv, ss)
		finished = true
		return err
	})}
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

// otherMethods is what calls are counted under whose method is not registered, or is one of
// too many.
const otherMethods = "other"

// maxMethods bounds how many methods calls are counted by.
const maxMethods = 512

// methodCounts counts gRPC calls by method and code. The zero value is ready to use. All
// methods may be called concurrently.
type methodCounts struct {
	known sync.Map // string -> *codeCounts
	size  atomic.Int64
}

// codeCounts counts by gRPC's codes. The last one is for those that there are not.
type codeCounts [codes.Unauthenticated + 2]atomic.Uint64

// show has a registered method shown from now on, where they are not too many.
func (m *methodCounts) show(method string) {
	if _, ok := m.known.Load(method); !ok && m.size.Add(1) <= maxMethods {
		m.known.LoadOrStore(method, new(codeCounts))
	}
}

// of returns the counts of a method, or those of all that are not shown. It does not keep the
// method, which is the client's text where a server takes unknown services.
func (m *methodCounts) of(method string) *codeCounts {
	counts, ok := m.known.Load(method)
	if !ok {
		counts, _ = m.known.LoadOrStore(otherMethods, new(codeCounts))
	}
	return counts.(*codeCounts) //nolint:forcetypeassert // Nothing else is stored.
}

func (c *codeCounts) add(code codes.Code) { c[min(code, codes.Unauthenticated+1)].Add(1) }

// list returns the counts by method and code, and 0 for the code OK of every method.
func (m *methodCounts) list() map[string]map[int]uint64 {
	all := make(map[string]map[int]uint64)
	m.known.Range(func(method, counts any) bool {
		byCode := map[int]uint64{int(codes.OK): 0}
		c, _ := counts.(*codeCounts)
		for code := range c {
			if n := c[code].Load(); n > 0 {
				byCode[code] = n
			}
		}
		name, _ := method.(string)
		all[name] = byCode
		return true
	})
	return all
}
