package protocols

import (
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
)

// callBody is the body of a call that grpc-go's ServeHTTP serves. ServeHTTP reads a body as
// fast as it comes and queues it for the handler without a bound, each read in a buffer of
// 16 KiB. So a read waits here while the queue holds callShare. What comes meanwhile is read
// into an overflow, which takes as much as the window and then holds back the client by the
// window of the stream, and other streams not at all. Where that is impossible nothing is
// read, and net/http's windows hold back the client.
//
// What the handler is waiting for passes at any time, or a message longer than the window
// would never be complete. Of a message that is longer than grpc-go accepts only the head
// does, from which grpc-go refuses it.
//
// Read and Close may be called concurrently, and so may the other methods.
type callBody struct {
	io.ReadCloser // net/http's

	window  int           // bytes that the overflow has before it holds back the client
	longest int64         // length of the longest message that grpc-go accepts
	windows StreamWindows // nil where the connection is not known

	budget *CallBudget // of the connection; nil where that is not known

	// The reading goroutine owns these.
	messages messages  // read so far
	overflow *overflow // nil before it is needed

	mu    sync.Mutex // guards what follows
	moved sync.Cond  // tells the reading goroutine of changes
	// asked is how many messages the handler has asked for, and taken how many of those it
	// has got.
	asked, taken int64
	// held has, for each buffer that grpc-go holds, the number of the message with which the
	// handler takes the rest of it. It increases.
	held    []int64
	size    int // of each of them
	counted int // how many of them the budget counts
	over    bool
	closed  chan struct{} // closed with the body; nil before it is needed
}

// aloneAsks is how many messages grpc-go asks for where there has to be one: it refuses a
// second when that is complete.
const aloneAsks = 2

// newCallBody returns the body of a unary call, whose message grpc-go takes by itself.
func newCallBody(body io.ReadCloser, window, longest int) *callBody {
	b := &callBody{
		ReadCloser: body, window: window, longest: int64(longest), asked: aloneAsks, taken: aloneAsks,
	}
	b.moved.L = &b.mu
	return b
}

// Read implements [io.Reader]. It fills p until a message is complete: grpc-go keeps a buffer
// for each read, however little is in it.
func (b *callBody) Read(p []byte) (int, error) {
	if !b.mayRead(len(p)) {
		if b.windows != nil && b.overflow == nil {
			if b.overflow = newOverflow(b.ReadCloser, b.whenClosed(), b.windows, b.window); b.overflow == nil {
				b.windows = nil // It is the same at the next read.
			}
		}
		b.await(len(p))
	}
	from := io.Reader(b.ReadCloser)
	switch {
	case b.overflow == nil:
	case b.isOver():
		<-b.overflow.ended // net/http's body has one reader at a time.
	default:
		from = b.overflow
	}
	n, complete := 0, b.messages.complete
	for {
		got, err := from.Read(p[n:])
		b.messages.pass(p[n : n+got])
		n += got
		if err != nil || n == len(p) || b.messages.complete > complete || b.messages.length > b.longest {
			if n > 0 {
				b.hold(len(p))
			}
			return n, err
		}
	}
}

// mayRead reports whether a buffer of the size may be read into.
func (b *callBody) mayRead(size int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.isFull(size)
}

// isOver reports whether the body is closed. net/http's says so to whoever reads it.
func (b *callBody) isOver() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.over
}

// await waits until a buffer of the size may be read into.
func (b *callBody) await(size int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.isFull(size) {
		b.moved.Wait()
	}
}

// isFull is mayRead's contrary for the reading goroutine where it holds mu.
func (b *callBody) isFull(size int) bool {
	if b.over || b.messages.complete < b.asked && b.messages.length <= b.longest {
		return false
	}
	return b.budget.isNarrow() || len(b.held)*size >= callShare
}

// hold notes that grpc-go gets a buffer of the size.
func (b *callBody) hold(size int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if last := b.messages.last(); last > b.taken {
		b.held, b.size = append(b.held, last), size
		b.count()
	}
}

// count has the budget count the buffers that the handler has not asked for. The caller holds
// mu.
func (b *callBody) count() {
	n := 0
	for n < len(b.held) && b.held[len(b.held)-1-n] > b.asked {
		n++
	}
	b.budget.add((n - b.counted) * b.size)
	b.counted = n
}

// ask notes that the handler waits for n more messages.
func (b *callBody) ask(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked += n
	b.count()
	b.moved.Signal()
}

// take notes that the handler has got n messages.
func (b *callBody) take(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken += n
	free := 0
	for free < len(b.held) && b.held[free] <= b.taken {
		free++
	}
	b.held = slices.Delete(b.held, 0, free)
	b.count()
	b.moved.Signal()
}

// Close implements [io.Closer]. grpc-go calls it when the call is over, and waits for its
// read then.
func (b *callBody) Close() error {
	err := b.ReadCloser.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.over && b.closed != nil {
		close(b.closed)
	}
	b.over = true
	b.moved.Signal()
	return err
}

// whenClosed returns what is closed with the body. It is called once.
func (b *callBody) whenClosed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = make(chan struct{})
	if b.over {
		close(b.closed)
	}
	return b.closed
}

// end frees what the body has. ServeHTTP has returned.
func (b *callBody) end() {
	if b.overflow != nil {
		b.overflow.end()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = nil // The handler may run on, and take some of it.
	b.count()
}

// messages counts the messages of a body, each of which has its length in front of it
// (gRPC's specification of its protocol on HTTP/2, Length-Prefixed-Message).
type messages struct {
	complete int64
	// What follows is of the message that is not complete.
	head   [5]byte // whether it is compressed, and its length
	have   int     // bytes of head
	length int64   // 0 while head is not complete
	rest   int64   // bytes of it that have not come
}

// pass takes in the next bytes of the body.
func (m *messages) pass(p []byte) {
	for len(p) > 0 {
		if m.have < len(m.head) {
			n := copy(m.head[m.have:], p)
			m.have += n
			p = p[n:]
			if m.have < len(m.head) {
				return
			}
			m.length = int64(binary.BigEndian.Uint32(m.head[1:]))
			m.rest = m.length
		}
		n := min(m.rest, int64(len(p)))
		m.rest -= n
		p = p[n:]
		if m.rest == 0 {
			*m = messages{complete: m.complete + 1}
		}
	}
}

// last returns the number of the message that has the last byte.
func (m *messages) last() int64 {
	if m.have > 0 {
		return m.complete + 1
	}
	return m.complete
}

// callBodyKey is the key of a call's body in its context.
type callBodyKey struct{}

// bound returns the request with a body that waits for the handler. The body must be ended.
func (s *GRPCServers) bound(r *http.Request) (*http.Request, *callBody) {
	b := newCallBody(r.Body, s.window, s.maxRecv)
	if s.windowsOf != nil {
		if b.windows = s.windowsOf(r.Context()); b.windows != nil {
			b.budget = b.windows.CallBudget()
		}
	}
	if s.isStream(r.URL.Path) {
		b.asked, b.taken = 0, 0
		if s.countsTaken {
			b.asked = 1
		}
		r = r.WithContext(context.WithValue(r.Context(), callBodyKey{}, b))
	}
	r.Body = b
	return r, b
}

// isStream reports whether a call to path is a stream, in either direction.
func (s *GRPCServers) isStream(path string) bool {
	stream, ok := s.methods[path]
	return stream || !ok && s.unknown
}

// boundBodies returns the option by which a server tells the bodies of its calls what their
// handlers take, and whether that is a takenCounter.
//
// An interceptor sees it from outside of all others, unless the options have
// grpc.StreamInterceptor. That one stands before it, and may read messages of which it does
// not know.
func boundBodies(options []grpc.ServerOption) (option grpc.ServerOption, countsTaken bool) {
	if slices.ContainsFunc(options, isStreamInterceptor) {
		return grpc.StatsHandler(takenCounter{}), true
	}
	return grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
		if b, ok := ss.Context().Value(callBodyKey{}).(*callBody); ok {
			each := int64(1)
			if !info.IsClientStream {
				each = aloneAsks
			}
			ss = &takingStream{ss, b, each}
		}
		return h(srv, ss)
	}), false
}

// takingStream tells a body what the handler takes of it.
type takingStream struct {
	grpc.ServerStream

	body *callBody
	each int64 // how many messages a RecvMsg asks for
}

// RecvMsg implements [grpc.ServerStream].
func (s *takingStream) RecvMsg(m any) error {
	s.body.ask(s.each)
	err := s.ServerStream.RecvMsg(m)
	if err != nil {
		s.body.ask(-s.each)
		return err
	}
	s.body.take(s.each)
	return nil
}

// takenCounter is a stats.Handler that tells a body what grpc-go takes of it, for whatever
// code. It does not see when that code waits for a message, so the next one is always asked
// for. It costs more than an interceptor.
type takenCounter struct{}

// TagConn implements [stats.Handler].
func (takenCounter) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// TagRPC implements [stats.Handler].
func (takenCounter) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements [stats.Handler].
func (takenCounter) HandleRPC(ctx context.Context, event stats.RPCStats) {
	if _, ok := event.(*stats.InPayload); !ok {
		return
	}
	if b, ok := ctx.Value(callBodyKey{}).(*callBody); ok {
		b.take(1)
		b.ask(1)
	}
}

// HandleConn implements [stats.Handler].
func (takenCounter) HandleConn(context.Context, stats.ConnStats) {}
