package mux

import (
	"bufio"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/muxserve/muxserve/pool"
)

// timed returns serve with a limit on the time of a request. A request that has not been
// answered by then gets 503, or 408 where its handler is waiting for the body. A response
// that has begun is reset. The handler runs in a goroutine of its own, because it may not
// heed its context, which ends. What it writes from then on fails with
// [http.ErrHandlerTimeout].
func (f *front) timed(limit time.Duration, c *conn, rec *recorder, serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancelCause(r.Context())
		defer cancel(nil)
		handlers := r.WithContext(ctx)
		if rec.upload != nil {
			rec.upload.handlers = handlers
		}
		g := &guard{w: w, header: w.Header().Clone()}
		if r.ProtoMajor == 2 { // In HTTP/1.1 a client that has ended its half may wait for the answer.
			g.client = r.Context()
		}
		ended := make(chan any) // what the handler has panicked with
		left := make(chan struct{})
		defer close(left)
		go func() {
			defer func() {
				panicked := recover()
				select {
				case ended <- panicked:
				case <-left:
					removeFiles(handlers)
				}
			}()
			serve(g.as(w), handlers)
		}()
		timer := time.NewTimer(limit)
		defer timer.Stop()
		select {
		case <-timer.C:
			if f.timeOut(c, rec, g) {
				cancel(http.ErrHandlerTimeout)
				return
			}
			finishHandler(<-ended, g, r, handlers) // The connection is hijacked.
		case v := <-ended:
			finishHandler(v, g, r, handlers)
		}
	}
}

// finishHandler does behind a handler that has returned what it would have done itself.
func finishHandler(panicked any, g *guard, own, handlers *http.Request) {
	if panicked != nil {
		panic(panicked)
	}
	own.MultipartForm = handlers.MultipartForm
	g.commit() // The trailers.
}

// removeFiles removes the files of a form that the handler of r has parsed. net/http does so
// behind the handlers that it waits for.
func removeFiles(r *http.Request) {
	if r.MultipartForm != nil {
		_ = r.MultipartForm.RemoveAll()
	}
}

// timeOut ends a request whose time is up. It reports false for a connection that its
// handler has hijacked. Behind it, net/http's own writer is out of the handler's reach.
func (f *front) timeOut(c *conn, rec *recorder, g *guard) bool {
	own := http.NewResponseController(rec.ResponseWriter)
	isWriting := !g.mu.TryLock()
	switch {
	case isWriting:
	case g.hijacked:
		g.mu.Unlock()
		return false
	case !g.begun && !g.hasLeft(): // See commit.
		defer g.mu.Unlock()
		g.err = http.ErrHandlerTimeout
		f.books.reportTimeout(c)
		answerTimeout(rec, g.w, own)
		return true
	default:
		g.mu.Unlock()
	}
	if rec.conn != nil {
		rec.conn.abort(reasonTimeout)
	} else {
		f.books.reportTimeout(c)
		_ = own.SetWriteDeadline(aLongTimeAgo)
	}
	_ = own.SetReadDeadline(aLongTimeAgo)
	g.mu.Lock() // The handler's write has failed.
	g.err = http.ErrHandlerTimeout
	g.mu.Unlock()
	panic(http.ErrAbortHandler)
}

// answerTimeout answers a request whose time is up through w, in place of the handler. Where
// the handler reads the body, the read ends. An HTTP/1.1 connection then ends as well.
func answerTimeout(rec *recorder, w http.ResponseWriter, own *http.ResponseController) {
	code := http.StatusServiceUnavailable
	if body := rec.watched; body != nil {
		if body.reader.Load() != readByNobody {
			code = http.StatusRequestTimeout
		}
		body.over.Store(true)
		_ = own.SetReadDeadline(aLongTimeAgo)
	}
	if rec.upload != nil {
		closeBehind(rec.ResponseWriter)
	}
	http.Error(w, http.StatusText(code), code)
}

// guard is a handler's ResponseWriter that can be taken from it.
type guard struct {
	header http.Header     // the handler's own
	client context.Context //nolint:containedctx // The request's, which ends when its client has gone; nil in HTTP/1.1.

	mu       sync.Mutex // guards all below, and is held during each call of w
	w        http.ResponseWriter
	err      error // set when the time was up
	begun    bool  // the status is decided
	hijacked bool
}

// guard1 is for HTTP/1.1 and guard2 for HTTP/2, as recorder1 and recorder2 are.
type (
	guard1 struct{ *guard }
	guard2 struct{ *guard }
)

var (
	_ fullWriter    = guard1{}
	_ http.Hijacker = guard1{}
	_ io.ReaderFrom = guard1{}
	_ fullWriter    = guard2{}
	_ http.Pusher   = guard2{}
)

func (g *guard) as(w http.ResponseWriter) http.ResponseWriter {
	if _, ok := w.(http.Hijacker); ok {
		return guard1{g}
	}
	return guard2{g}
}

// hasLeft reports whether the client of an HTTP/2 request has gone.
func (g *guard) hasLeft() bool { return g.client != nil && g.client.Err() != nil }

// commit copies the handler's header to where w looks for it. net/http's HTTP/2 server may
// still be reading it there behind a status 1xx, where the client has reset the stream. So
// nothing is written for a client that has gone, nor what is there already.
func (g *guard) commit() {
	to := g.w.Header()
	if g.hasLeft() || maps.EqualFunc(to, g.header, slices.Equal[[]string]) {
		return
	}
	clear(to)
	maps.Copy(to, g.header)
}

// use calls do with w, unless the time was up. begins says that do begins the response.
func (g *guard) use(begins bool, do func(http.ResponseWriter) error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return g.err
	}
	if begins && !g.begun {
		g.begun = true
		g.commit()
	}
	return do(g.w)
}

// Header implements [http.ResponseWriter].
func (g *guard) Header() http.Header { return g.header }

// WriteHeader implements [http.ResponseWriter].
func (g *guard) WriteHeader(code int) {
	informs := code >= 100 && code < 200 && code != http.StatusSwitchingProtocols
	_ = g.use(!informs, func(w http.ResponseWriter) error {
		if informs && !g.begun {
			g.commit()
		}
		w.WriteHeader(code)
		return nil
	})
}

// Write implements [http.ResponseWriter].
func (g *guard) Write(p []byte) (n int, err error) {
	err = g.use(true, func(w http.ResponseWriter) error {
		n, err = w.Write(p)
		return err
	})
	return n, err
}

// WriteString implements [io.StringWriter].
func (g *guard) WriteString(s string) (n int, err error) {
	err = g.use(true, func(w http.ResponseWriter) error {
		n, err = io.WriteString(w, s)
		return err
	})
	return n, err
}

// Flush implements [http.Flusher].
func (g *guard) Flush() { _ = g.FlushError() }

// FlushError is what [http.ResponseController] flushes by.
func (g *guard) FlushError() error {
	return g.use(true, func(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() })
}

// CloseNotify implements [http.CloseNotifier].
func (g *guard) CloseNotify() <-chan bool {
	left := make(<-chan bool)
	_ = g.use(false, func(w http.ResponseWriter) error {
		if n, ok := w.(closeNotifier); ok {
			left = n.CloseNotify()
		}
		return nil
	})
	return left
}

// SetReadDeadline is what [http.ResponseController] calls.
func (g *guard) SetReadDeadline(t time.Time) error {
	return g.use(false, func(w http.ResponseWriter) error { return http.NewResponseController(w).SetReadDeadline(t) })
}

// SetWriteDeadline is what [http.ResponseController] calls.
func (g *guard) SetWriteDeadline(t time.Time) error {
	return g.use(false, func(w http.ResponseWriter) error { return http.NewResponseController(w).SetWriteDeadline(t) })
}

// EnableFullDuplex is what [http.ResponseController] calls.
func (g *guard) EnableFullDuplex() error {
	return g.use(false, func(w http.ResponseWriter) error { return http.NewResponseController(w).EnableFullDuplex() })
}

// ReadFrom implements [io.ReaderFrom]. Only a file is handed on whole: any other source may
// block, and the response is not to wait for it when its time is up.
func (g guard1) ReadFrom(src io.Reader) (n int64, err error) {
	if !isFile(src) {
		return io.Copy(struct{ io.Writer }{g}, src)
	}
	err = g.use(true, func(w http.ResponseWriter) error {
		n, err = io.Copy(w, src)
		return err
	})
	return n, err
}

// Hijack implements [http.Hijacker]. A hijacked connection is its owner's, and has no bound.
func (g guard1) Hijack() (conn net.Conn, rw *bufio.ReadWriter, err error) {
	err = g.use(false, func(w http.ResponseWriter) error {
		conn, rw, err = http.NewResponseController(w).Hijack()
		g.hijacked = err == nil
		return err
	})
	return conn, rw, err
}

// Push implements [http.Pusher].
func (g guard2) Push(target string, options *http.PushOptions) error {
	return g.use(false, func(w http.ResponseWriter) error {
		if p, ok := w.(http.Pusher); ok {
			return p.Push(target, options)
		}
		return http.ErrNotSupported
	})
}

// reportTimeout tells the observers of a request whose time was up.
func (b *books) reportTimeout(c *conn) {
	if c != nil {
		b.conns.Report(pool.Event{Kind: pool.EventTimeout, Conn: &c.account, Reason: reasonTimeout})
	}
}
