package mux

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/protocols"
)

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

// body2 is a request's body whose reads the sweep sees.
type body2 struct {
	io.ReadCloser
	exchange *exchange
}

// Read implements [io.Reader].
func (b *body2) Read(p []byte) (int, error) {
	e := b.exchange
	entered := e.watch.enter() // Before Close and discard look.
	// Behind an end that the handler has seen, net/http's reader says EOF once more.
	if e.closed.Load() && (!e.watch.ended.Load() || e.watch.reader.Load() == readByServer) {
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

// Close implements [io.Closer]. net/http reads up to 256 KiB of the rest here, as it does
// behind a handler that has not closed the body.
func (b *body1) Close() error {
	if w := b.watch; !b.late.Load() && w.reader.CompareAndSwap(readByNobody, readByServer) {
		w.duplex.Store(false) // As in handled.
		defer w.reader.CompareAndSwap(readByServer, readByNobody)
	}
	return b.ReadCloser.Close()
}

// Close implements [io.Closer]. What [exchange.discard] will read stays open, unless a Read
// has to end.
func (b *body2) Close() error {
	b.exchange.closed.Store(true)
	if b.exchange.isDiscarded() && b.exchange.watch.reader.Load() != readByHandler {
		return nil
	}
	return b.ReadCloser.Close()
}

// The bounds of what is read of a body that its handler has left. A client may always send
// minDiscard without waiting for the server to read (RFC 9113 section 6.9.2).
const (
	minDiscard = 64 << 10
	maxDiscard = 16 << 20
	// leftTime is how long it may take at most. Other clients wait for the answer meanwhile, which
	// net/http would give them at once.
	leftTime = 5 * time.Second
	// maxLeft is for how many requests of a connection it happens at a time. Others are
	// reset: a stream that is kept costs more than its client's next frame.
	maxLeft = 8
)

// responseBuffer is how much of a response net/http keeps until the handler returns.
const responseBuffer = 4 << 10

// isDiscarded reports whether discard reads the rest of the body. Of a body of undeclared
// length it reads nothing, since the client may wait for the end of the response before it
// ends the body. A client that has asked whether to send the body gets the response at once.
func (e *exchange) isDiscarded() bool { return !e.unasked.Load() && e.hasRest() }

// hasRest reports whether what is left of the body can be discarded.
func (e *exchange) hasRest() bool {
	left := e.length - e.watch.received.Load()
	return e.length > 0 && left > minDiscard && left <= maxDiscard
}

// discard reads the rest of the body before the handler's return ends the stream. net/http
// resets a stream whose body is not read (RFC 9113 section 8.1). A client that sends the
// whole body before it looks at the response would wait for room for ever, as httpx does,
// or lose the response, as curl 7.88 does.
//
// A client that has an error already may send no more of the body and wait for the end of
// the response, as net/http's does. So the response stays where it is until the body is
// read, and nothing is read behind an error that the handler has flushed.
//
// It ends behind leftTime, or when the time of the request is over, if that is not zero. A
// goroutine that the handler has left behind in a Read stays the only reader. One that calls
// Read later gets an error, as net/http gives it behind the end of a request.
func (r *recorder2) discard(c *conn, over time.Time) {
	if !r.isDiscarded() || r.status() >= http.StatusMultipleChoices && (r.flushed || r.sent > responseBuffer) {
		return
	}
	r.closed.Store(true) // Before it is looked who reads; Read does it the other way round.
	if r.watch.over.Load() || !r.watch.reader.CompareAndSwap(readByNobody, readByServer) {
		return
	}
	left := &c.http2().left
	defer left.Add(-1)
	if left.Add(1) > maxLeft {
		return
	}
	r.watch.owned.Store(false) // The sweep bounds it again.
	until := time.Now().Add(time.Duration(c.root.departures.leftTime.Load()))
	if !over.IsZero() && over.Before(until) {
		until = over
	}
	_ = http.NewResponseController(r.ResponseWriter).SetReadDeadline(until)
	_, _ = io.CopyN(io.Discard, leftBody{&r.exchange}, maxDiscard)
}

// leftBody is a body that the handler has left.
type leftBody struct{ exchange *exchange }

// Read implements [io.Reader].
func (b leftBody) Read(p []byte) (int, error) {
	return b.exchange.watch.read(b.exchange.body.ReadCloser, p)
}
