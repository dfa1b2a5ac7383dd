package admin

import (
	"bytes"
	"io"
	"net/http"
	"time"
)

// bounds are what a request may take.
type bounds struct {
	body    time.Duration // to send its body
	answer  time.Duration // to take its answer, on top of the time of a profile
	profile time.Duration // for a profile of a time
	event   time.Duration // to take an event of a stream
	events  time.Duration // between two of them while the server serves
}

var defaultBounds = bounds{
	body: 10 * time.Second, answer: 30 * time.Second, profile: time.Minute, event: 10 * time.Second, events: time.Second,
}

// maxBody bounds a request's body in bytes. No page reads one.
const maxBody = 64 << 10

// bounded reads a request's body before the page is served, and bounds the time that the
// client takes for that and for the answer.
func (p *Pages) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		// These fail only where the server is not net/http's, as in some tests.
		_ = c.SetWriteDeadline(time.Now().Add(p.bounds.body + p.bounds.answer))
		if r.ContentLength != 0 {
			_ = c.SetReadDeadline(time.Now().Add(p.bounds.body))
			if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBody)); err != nil {
				w.Header().Set("Connection", "close")
				http.Error(w, "muxserve: the body is too long, or took too long", http.StatusRequestTimeout)
				return
			}
			_ = c.SetReadDeadline(time.Time{})
		}
		next.ServeHTTP(w, r)
	})
}

// rendered has answers made one at a time, and kept without what they are made of until the
// client has them. Prometheus's handler keeps all of its metrics for as long.
func (p *Pages) rendered(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		answer := &rendering{ResponseWriter: w, status: http.StatusOK}
		if !p.render(answer, r, next) {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "muxserve: too many wait for the metrics", http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(answer.status)
		_, _ = w.Write(answer.body.Bytes()) // It fails only where the client has left.
	}
}

// maxWaiting is for how many clients the metrics are made although they seem to have left.
// One that has ended its half of the connection alone waits for them, and looks the same.
const maxWaiting = 64

// render reports false where the client seems to have left before its turn, beside many others:
// those that come and go would become more and more.
func (p *Pages) render(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) bool {
	left := r.Context().Done()
	if p.waiting.Add(1) <= maxWaiting {
		left = nil
	}
	defer p.waiting.Add(-1)
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
		next(w, r)
		return true
	case <-left:
		return false
	}
}

// rendering is an answer whose body is kept in memory.
type rendering struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

// WriteHeader implements [http.ResponseWriter].
func (a *rendering) WriteHeader(status int) { a.status = status }

// Write implements [http.ResponseWriter].
func (a *rendering) Write(p []byte) (int, error) { return a.body.Write(p) }
