package mux

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/moments"
)

// Only what has stopped moving is ended, and it is ended so that the client can tell it
// from what is complete. This file says what moving means; the sweep asks it, and counts
// the time.
//
//	a request body of declared length    MinBodyRate from BodyGrace on, counted from its
//	or what net/http reads by itself     first byte; a byte within ProgressTimeout
//	any other request body, full duplex  a byte within ProgressTimeout, as long as the
//	                                     handler waits for it and has not answered; there is
//	                                     no bound once the response has begun
//	either in HTTP/2                     the same and the time that the client may need for
//	                                     what it may not have read of its connection: room
//	                                     for more of the body stands behind that
//	a call of gRPC or Connect of         its handler's: no bound, as grpc-go has none for
//	undeclared length                    its own services
//	a response                           a byte that the client's system takes, or a frame
//	                                     that goes into the stream's window, within
//	                                     ProgressTimeout and, in HTTP/2, the time that the
//	                                     client may need for what it has got of those that
//	                                     wait ([moments.ReadTime]): it may give its windows
//	                                     back in steps of megabytes
//	several of the same HTTP/2           the same of all together, but 16 times the time at
//	connection                           most, while the connection moves a KiB a second: a
//	                                     slow link serves them in turn
//	a hijacked connection                its owner's: no bound
//
// A handler that sets a deadline by [http.ResponseController], or lifts it by the zero
// time, has taken over that direction of its request: no bound of ours is left.

// bodyWatch is what the sweep sees of a request's body. The handler reads no clock.
type bodyWatch struct {
	reader   atomic.Int32 // who reads it at the moment: nobody, or one of the others
	received atomic.Int64 // bytes that the handler has read
	duplex   atomic.Bool  // the body's length is not declared, or it is read beside the response
	answered atomic.Bool  // the response has begun
	owned    atomic.Bool  // the handler has set a read deadline
	slow     atomic.Bool  // the sweep has ended it
	over     atomic.Bool  // the request's time is up
	ended    atomic.Bool  // all of it has been read
	writes   atomic.Int32 // writes of the response that are under way; see mayDrain
}

// Who reads a body. A Read that a handler has left behind in a goroutine changes nothing for
// who comes behind it.
const (
	readByNobody int32 = iota
	readByHandler
	readByServer // the handler has returned, and the rest is read for the sake of the client
)

// enter notes that the handler begins to read. It reports false where the server reads, or
// another goroutine of the handler.
func (b *bodyWatch) enter() bool { return b.reader.CompareAndSwap(readByNobody, readByHandler) }

// exit ends what enter began, if that reported true.
func (b *bodyWatch) exit(entered bool) {
	if entered {
		b.reader.CompareAndSwap(readByHandler, readByNobody)
	}
}

// watch begins with a request.
func (b *bodyWatch) watch(r *http.Request) {
	b.reader.Store(readByNobody)
	b.received.Store(0)
	b.duplex.Store(r.ContentLength <= 0)
	b.answered.Store(isStreamedCall(r)) // Its messages come when there is something to say.
	b.owned.Store(false)
	b.slow.Store(false)
	b.over.Store(false)
	b.ended.Store(false)
	b.writes.Store(0)
}

// isStreamedCall reports a request whose body may be a stream of messages: gRPC, or Connect's
// protocol for streams.
func isStreamedCall(r *http.Request) bool {
	contentType := r.Header.Get("Content-Type")
	return strings.HasPrefix(contentType, "application/connect+") || protocols.IsGRPCContentType(contentType)
}

// isBound reports whether the sweep has to look at a body for which the server waits.
func (b *bodyWatch) isBound() bool {
	return b.reader.Load() != readByNobody && !b.owned.Load() && !(b.duplex.Load() && b.answered.Load())
}

// beginWrite notes that the handler writes, until endWrite. b may be nil.
func (b *bodyWatch) beginWrite() {
	if b != nil {
		b.writes.Add(1)
	}
}

func (b *bodyWatch) endWrite() {
	if b != nil {
		b.writes.Add(-1)
	}
}

// mayDrain reports whether a write of the handler's is under way while there is more of the
// body. Unless bytes are being written, net/http's server for HTTP/1.1 reads that: it reads up
// to 256 KiB of it before it sends the header of a response.
func (b *bodyWatch) mayDrain() bool {
	return b.writes.Load() > 0 && !b.ended.Load() && !b.owned.Load()
}

// errSlowBody is the handler's read error when the client has sent the body too slowly.
var errSlowBody = fmt.Errorf("mux: the request body came too slowly: %w", os.ErrDeadlineExceeded)

// read reads from body for a handler.
func (b *bodyWatch) read(body io.Reader, p []byte) (int, error) {
	entered := b.enter()
	n, err := body.Read(p)
	b.exit(entered)
	return n, b.note(n, err)
}

// note notes what a Read of a handler's has returned, and returns its error as the handler
// gets it.
func (b *bodyWatch) note(n int, err error) error {
	if n > 0 {
		b.received.Add(int64(n))
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, io.EOF) {
		b.ended.Store(true)
	}
	switch {
	case b.over.Load():
		// net/http has lifted the deadline when it awaited the running read, so that this
		// one may have seen the client leave.
		return os.ErrDeadlineExceeded
	case b.slow.Load() && errors.Is(err, os.ErrDeadlineExceeded):
		return errSlowBody
	}
	return err
}

// exchange is what the sweep sees of one HTTP/2 request: whether its handler waits for the
// client at the moment, and whether the client moves.
type exchange struct {
	watch   bodyWatch
	writing atomic.Bool   // the handler waits for room in the stream's window
	written atomic.Uint64 // bytes of the response that have gone through, and one for each call
	owned   atomic.Bool   // the handler has set a write deadline

	length int64 // of the body; 0 or less: it is not known, or there is none
	// unasked is set while the client waits to be told to send the body
	// (Expect: 100-continue).
	unasked atomic.Bool
	body    body2       // what the handler reads
	closed  atomic.Bool // the handler has closed the body

	// The list of a connection, and what the sweep remembers. Guarded by exchanges.mu.
	prev, next *exchange
	writer     http.ResponseWriter
	upload     upload
	stalled    stall
}

// exchanges are the requests of one HTTP/2 connection whose handlers are running.
// The zero value is empty.
type exchanges struct {
	mu                sync.Mutex // guards all below, and the links
	first             *exchange
	bodies, responses turns
}

// begin has the request of r watched until end. Its handler reads the body through r.
func (r *recorder2) begin(l *exchanges, w http.ResponseWriter, req *http.Request) {
	e := &r.exchange
	if req.Body != nil && req.Body != http.NoBody {
		e.watch.watch(req)
		r.watched = &e.watch
		e.length = req.ContentLength
		e.unasked.Store(e.hasRest() && protocols.AwaitsContinue(req.Body))
		e.body = body2{ReadCloser: req.Body, exchange: e}
		req.Body = &e.body
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e.writer = w
	if e.next = l.first; e.next != nil {
		e.next.prev = e
	}
	l.first = e
}

// end takes the request off the list, if it is there. The sweep does not use its writer any
// more.
func (e *exchange) end(l *exchanges) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.writer == nil {
		return
	}
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		l.first = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	}
	e.writer, e.prev, e.next = nil, nil, nil // A WebSocket may keep e for long.
}

// body2 is a request's body whose reads the sweep sees.
type body2 struct {
	io.ReadCloser
	exchange *exchange
}

// Read implements [io.Reader].
func (b *body2) Read(p []byte) (int, error) {
	e := b.exchange
	entered := e.watch.enter() // Before Close and discard look.
	if e.closed.Load() {
		e.watch.exit(entered)
		return 0, http.ErrBodyReadAfterClose
	}
	if e.unasked.Load() {
		e.unasked.Store(false)
	}
	n, err := b.ReadCloser.Read(p)
	e.watch.exit(entered)
	return n, e.watch.note(n, err)
}

// bodyWatch1 watches the body of the HTTP/1.1 request that a connection has at the
// moment.
type bodyWatch1 struct {
	bodyWatch

	before atomic.Uint64 // what the connection had received when the request began
}

// begin returns a copy of r whose body is read through b. What net/http does with the rest
// of a body it decides by the type of r.Body: without that it would take the rest of a
// body that the handler has closed for the next request.
func (b *bodyWatch1) begin(c *conn, r *http.Request) (*http.Request, *body1) {
	b.watch(r)
	b.before.Store(c.account.Received())
	handlers := r.WithContext(r.Context())
	body := &body1{ReadCloser: r.Body, watch: b, own: r, handlers: handlers}
	handlers.Body = body
	return handlers, body
}

// handled notes that the handler has returned. net/http reads what it has left, up to
// 256 KiB, before it takes the next request. That has no more to do with the response. Of a
// body that has ended it reads nothing, and may still be writing the response.
func (b *bodyWatch1) handled() {
	b.duplex.Store(false) // So the rate bounds a body of undeclared length as well.
	b.answered.Store(false)
	b.owned.Store(false)
	if b.ended.Load() {
		b.reader.Store(readByNobody)
	} else {
		b.reader.Store(readByServer)
	}
}

// finish notes that the request is over.
func (b *bodyWatch1) finish() { b.reader.Store(readByNobody) }

// arrived returns how many bytes of the body have come. Those that came with the head
// are known once the handler has read them.
func (b *bodyWatch1) arrived(c *conn) int64 {
	return max(int64(c.account.Received()-b.before.Load()), b.received.Load())
}

// body1 is a request's body whose reads the sweep sees. net/http sets the trailer of
// its own request at the end of the body.
type body1 struct {
	io.ReadCloser
	watch         *bodyWatch1
	own, handlers *http.Request
	late          atomic.Bool // the handler has returned; what it has left in a goroutine is not watched
	limited       atomic.Bool // the last read has hit the limit of an http.MaxBytesReader; see endLimited
}

// Read implements [io.Reader].
func (b *body1) Read(p []byte) (int, error) {
	if b.late.Load() {
		return b.ReadCloser.Read(p)
	}
	n, err := b.watch.read(b.ReadCloser, p)
	// Readers of large bodies fill whole buffers, so that they have no more to look at.
	ended := errors.Is(err, io.EOF)
	b.limited.Store(n > 0 && n == len(p) && n < cap(p) && (err == nil || ended) && b.hitsLimit(n, ended))
	if err != nil {
		b.handlers.Trailer = b.own.Trailer
	}
	return n, err
}

// writeStep is how much of a response is written to its stream at a time: a frame, so that
// the sweep sees a slow client move.
const writeStep = 16 << 10

// WriteHeader implements [http.ResponseWriter].
func (r *recorder2) WriteHeader(code int) {
	if code == http.StatusOK && r.accepted != nil {
		r.accepted()
	}
	r.recorder.WriteHeader(code)
}

// Write implements [http.ResponseWriter].
func (r *recorder2) Write(p []byte) (written int, err error) {
	r.writing.Store(true)
	defer r.writing.Store(false)
	for {
		n, err := r.recorder.Write(p[:min(len(p), writeStep)])
		r.written.Add(uint64(n) + 1)
		written += n
		if err != nil {
			return written, err
		}
		if p = p[n:]; len(p) == 0 {
			return written, nil
		}
	}
}

// WriteString implements [io.StringWriter].
func (r *recorder2) WriteString(s string) (int, error) {
	if len(s) > writeStep {
		return r.Write([]byte(s))
	}
	r.writing.Store(true)
	defer r.writing.Store(false)
	n, err := r.recorder.WriteString(s)
	r.written.Add(uint64(n) + 1)
	return n, err
}

// Flush implements [http.Flusher].
func (r *recorder2) Flush() { _ = r.FlushError() }

// FlushError is what [http.ResponseController] flushes by.
func (r *recorder2) FlushError() error {
	r.writing.Store(true)
	defer r.writing.Store(false)
	defer r.written.Add(1)
	r.flushed = true
	return r.recorder.FlushError()
}

// upload is what the sweep remembers of a request body.
type upload struct {
	waited   time.Duration // how long the handler has waited since the first byte, as seen from tick to tick
	idle     time.Duration // how long it has waited since the last one
	received int64
	// How long hold has had sweeps not count, in all and since the last byte.
	held, heldIdle time.Duration
}

// hold reports whether a sweep is not to count, because the client may need the time behind
// before it reads that it may go on. In all an upload has [moments.LongestQueue].
func (u *upload) hold(elapsed, behind time.Duration, received int64) bool {
	if received != u.received {
		u.heldIdle = 0
		return false
	}
	if u.heldIdle >= behind || u.held >= moments.LongestQueue {
		return false
	}
	u.held += elapsed
	u.heldIdle += elapsed
	return true
}

// tick adds a sweep at which the reader by waits, and reports whether the client is too slow.
// What net/http reads by itself has no late first byte, and the rate bounds it however its
// length is told.
func (u *upload) tick(elapsed time.Duration, received int64, by int32, duplex bool, c *protocols.ProgressConfig) bool {
	if received > 0 || by == readByServer {
		u.waited += elapsed
	}
	u.idle += elapsed
	if received != u.received {
		u.received, u.idle = received, 0
	}
	if c.ProgressTimeout > 0 && u.idle >= c.ProgressTimeout {
		return true
	}
	if duplex && by != readByServer || c.MinBodyRate <= 0 {
		return false
	}
	due := time.Duration(float64(received) / float64(c.MinBodyRate) * float64(time.Second))
	return u.waited > c.BodyGrace+due
}

// stall is what the sweep remembers of a write that may be waiting.
type stall struct {
	waiting time.Duration
	written uint64
}

// tick adds a sweep at which the handler is in a write, and reports whether the client has
// taken nothing for limit and the time that it may need for what it has got of all responses
// that wait. A limit of 0 is no bound.
func (s *stall) tick(elapsed time.Duration, written, got uint64, limit time.Duration) bool {
	s.waiting += elapsed
	if written != s.written {
		s.written, s.waiting = written, 0
	}
	return limit > 0 && s.waiting >= moments.Sum(limit, moments.ReadTime(got))
}

// ended is what a sweep has ended on a connection.
type ended struct{ bodies, responses int }

// movement is what the sweep knows of the connection of exchanges.
type movement struct {
	elapsed  time.Duration // since the last sweep
	received uint64        // from the client, in all
	sent     uint64        // of responses, to it
	unread   uint64        // of those, which the client may not have read
	// shut says that handlers have not read what fills the connection's window. Then no body
	// can move, and the client is not to blame.
	shut bool
	// blocked says that the connection waits for room in its socket. Then no response can
	// move, and checkWrites sees whether the client takes bytes.
	blocked bool
}

// sweep ends the streams whose client has stopped moving. The connection goes on, because
// it may carry others. owned says that a handler has taken over the bound of its response.
func (l *exchanges) sweep(m movement, c *protocols.ProgressConfig) (n ended, owned bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == nil {
		return ended{}, false // Connections without anything rare share one l.
	}
	nBodies, nResponses, got := l.waiting()
	bodies := l.bodies.share(m.elapsed, nBodies, m.received, c)
	responses := l.responses.share(m.elapsed, nResponses, m.sent, c)
	behind := moments.ReadTime(m.unread)
	for e := l.first; e != nil; e = e.next {
		switch received := e.watch.received.Load(); {
		case !e.watch.isBound() || m.shut:
			e.upload.idle = 0
		case e.watch.slow.Load(), e.upload.hold(m.elapsed, behind, received):
		case e.upload.tick(bodies, received, e.watch.reader.Load(), e.watch.duplex.Load(), c):
			e.watch.slow.Store(true)
			_ = http.NewResponseController(e.writer).SetReadDeadline(aLongTimeAgo)
			n.bodies++
		}
		switch {
		case e.owned.Load():
			owned = true
		case !e.writing.Load():
			e.stalled = stall{}
		case m.blocked:
		case e.stalled.tick(responses, e.written.Load(), got, c.ProgressTimeout):
			e.stalled = stall{} // The next sweep may come before the handler's write has failed.
			_ = http.NewResponseController(e.writer).SetWriteDeadline(aLongTimeAgo)
			n.responses++
		}
	}
	return n, owned
}

// waiting returns for how many bodies the server waits, how many responses for the client, and
// how many bytes of those have gone through.
func (l *exchanges) waiting() (bodies, responses int, got uint64) {
	for e := l.first; e != nil; e = e.next {
		if e.watch.isBound() {
			bodies++
		}
		if e.writing.Load() {
			responses++
			got += e.written.Load()
		}
	}
	return bodies, responses, got
}

// turns is what the sweep remembers of one direction of a connection whose streams share it.
type turns struct {
	moved uint64        // bytes, until the last sweep
	still time.Duration // for which the connection has been slower than leastRate
}

const (
	mostTurns = 16      // times that a stream may wait longer while others have their turn
	leastRate = 1 << 10 // bytes a second of a connection that moves
)

// share returns what of elapsed counts for each of n streams that wait: less where the
// connection moves, because then the others may have had their turn.
func (t *turns) share(elapsed time.Duration, n int, moved uint64, c *protocols.ProgressConfig) time.Duration {
	took := time.Duration(min(float64(moved-t.moved)/leastRate, time.Hour.Seconds()) * float64(time.Second))
	t.moved = moved
	t.still = max(0, t.still+elapsed-took)
	if t.still >= c.ProgressTimeout/4 {
		return elapsed
	}
	return elapsed / time.Duration(min(max(n, 1), mostTurns))
}
