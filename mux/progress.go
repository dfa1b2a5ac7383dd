package mux

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/protocols"
)

// exchange is what the sweep sees of one HTTP/2 request: whether its handler waits for the
// client at the moment, and whether the client moves. The handler reads no clock; the
// sweep counts the time.
type exchange struct {
	reading  atomic.Bool   // the handler waits for the request's body
	received atomic.Int64  // bytes of the body
	writing  atomic.Bool   // the handler waits for room in the stream's window
	written  atomic.Uint64 // parts of the response that have gone through

	length   int64       // of the body; 0 or less: it is not known, or there is none
	body     requestBody // what the handler reads
	closed   atomic.Bool // the handler has closed the body
	expected bool        // the client sends the body only when it is asked for it

	// The list of a connection, and what the sweep remembers. Guarded by exchanges.mu.
	prev, next *exchange
	writer     http.ResponseWriter
	upload     upload
	stalled    stall
}

// exchanges are the requests of one HTTP/2 connection whose handlers are running.
// The zero value is empty.
type exchanges struct {
	mu    sync.Mutex // guards first and the links
	first *exchange
}

// begin has the request watched until end. The handler reads the body through e.
func (e *exchange) begin(l *exchanges, w http.ResponseWriter, r *http.Request) {
	if r.Body != nil && r.Body != http.NoBody {
		e.length = r.ContentLength
		e.expected = r.Header.Get("Expect") != ""
		e.body = requestBody{ReadCloser: r.Body, exchange: e}
		r.Body = &e.body
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e.writer = w
	if e.next = l.first; e.next != nil {
		e.next.prev = e
	}
	l.first = e
}

// end takes the request off the list. The sweep does not use its writer any more.
func (e *exchange) end(l *exchanges) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		l.first = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	}
	e.writer = nil
}

// requestBody is a request's body whose reads the sweep sees.
type requestBody struct {
	io.ReadCloser
	exchange *exchange
}

// errSlowBody is the handler's read error when the client has sent the body too slowly.
var errSlowBody = fmt.Errorf("mux: the request body came too slowly: %w", os.ErrDeadlineExceeded)

// Read implements [io.Reader].
func (b *requestBody) Read(p []byte) (int, error) {
	e := b.exchange
	e.reading.Store(true)
	if e.closed.Load() {
		e.reading.Store(false)
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.ReadCloser.Read(p)
	e.reading.Store(false)
	e.received.Add(int64(n))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errSlowBody
	}
	return n, err
}

// requestBody1 watches the body of the HTTP/1.1 request that a connection has at the
// moment: whether the server waits for its bytes. The account counts them.
type requestBody1 struct {
	awaited  atomic.Bool // the handler reads, or net/http the rest behind the handler
	declared atomic.Bool // the body's length is known
}

// begin returns a copy of r whose body is read through b. What net/http does with the rest
// of a body it decides by the type of r.Body: without that it would take the rest of a
// body that the handler has closed for the next request.
func (b *requestBody1) begin(r *http.Request) *http.Request {
	b.declared.Store(r.ContentLength > 0)
	handlers := r.WithContext(r.Context())
	handlers.Body = &awaitedBody{r.Body, b, r, handlers}
	return handlers
}

// handled notes that the handler has returned. net/http reads what it has left, up to
// 256 KiB, before it takes the next request.
func (b *requestBody1) handled() { b.awaited.Store(true) }

// finish notes that the request is over.
func (b *requestBody1) finish() { b.awaited.Store(false) }

func (b *requestBody1) isAwaited() bool { return b.awaited.Load() }

// awaitedBody is a request's body whose reads the sweep sees. net/http sets the trailer of
// its own request at the end of the body.
type awaitedBody struct {
	io.ReadCloser
	watch         *requestBody1
	own, handlers *http.Request
}

// Read implements [io.Reader].
func (b *awaitedBody) Read(p []byte) (int, error) {
	b.watch.awaited.Store(true)
	n, err := b.ReadCloser.Read(p)
	b.watch.awaited.Store(false)
	if err != nil {
		b.handlers.Trailer = b.own.Trailer
	}
	return n, err
}

// writeStep is how much of a response is written to its stream at a time: a frame, so that
// the sweep sees a slow client move.
const writeStep = 16 << 10

// Write implements [http.ResponseWriter].
func (r *recorder2) Write(p []byte) (written int, err error) {
	r.writing.Store(true)
	defer r.writing.Store(false)
	for {
		n, err := r.recorder.Write(p[:min(len(p), writeStep)])
		r.written.Add(1)
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
	defer r.written.Add(1)
	return r.recorder.WriteString(s)
}

// ReadFrom implements [io.ReaderFrom].
func (r *recorder2) ReadFrom(src io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{r}, src)
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
	waited   time.Duration // how long the handler has waited for bytes, as seen from tick to tick
	idle     time.Duration // how long of that no byte has come
	received int64
}

// tick adds a sweep at which the server waits, and reports whether the client is too slow.
func (u *upload) tick(elapsed time.Duration, received int64, declared bool, c *protocols.ProgressConfig) bool {
	u.waited += elapsed
	u.idle += elapsed
	if received != u.received {
		u.received, u.idle = received, 0
	}
	if c.ProgressTimeout > 0 && u.idle >= c.ProgressTimeout {
		return true
	}
	if !declared || c.MinBodyRate <= 0 {
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

// tick adds a sweep at which the handler is in a write, and reports whether the client
// takes nothing.
func (s *stall) tick(elapsed time.Duration, written uint64, c *protocols.ProgressConfig) bool {
	s.waiting += elapsed
	if written != s.written {
		s.written, s.waiting = written, 0
	}
	return c.ProgressTimeout > 0 && s.waiting >= c.ProgressTimeout
}

// sweep ends the streams whose client has stopped moving. The connection goes on, because
// it may carry others. sweep returns how many bodies and how many responses it has ended.
//
// shut says that handlers have not read what fills the connection's window. Then no body
// can move, and the client is not to blame.
func (l *exchanges) sweep(elapsed time.Duration, shut bool, c *protocols.ProgressConfig) (bodies, responses int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for e := l.first; e != nil; e = e.next {
		if !e.reading.Load() || shut {
			e.upload.idle = 0
		} else if e.upload.tick(elapsed, e.received.Load(), e.length > 0, c) {
			_ = http.NewResponseController(e.writer).SetReadDeadline(aLongTimeAgo)
			bodies++
		}
		if !e.writing.Load() {
			e.stalled = stall{}
		} else if e.stalled.tick(elapsed, e.written.Load(), c) {
			_ = http.NewResponseController(e.writer).SetWriteDeadline(aLongTimeAgo)
			responses++
		}
	}
	return bodies, responses
}
