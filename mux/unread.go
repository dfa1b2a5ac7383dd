package mux

import (
	"io"
	"net/http"
	"time"
)

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
