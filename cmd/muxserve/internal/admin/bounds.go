package admin

import (
	"bytes"
	"io"
	"net/http"
	"net/http/pprof"
	"strconv"
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

// maxLongLists is how many answers of /connections with more than defaultLimit connections
// are made at a time. They take some megabytes each until the client has them.
const maxLongLists = 4

// pprofRoot has the list of the profiles.
const pprofRoot = "/debug/pprof/"

// addProfiles adds /debug/pprof/ without its cmdline, because a command line may contain
// a private key.
func (p *Pages) addProfiles(routes *http.ServeMux) {
	routes.Handle(pprofRoot, p.profile(pprof.Index, 0))
	routes.Handle(pprofRoot+"profile", p.profile(pprof.Profile, 30)) // The defaults are those of net/http/pprof.
	routes.HandleFunc(pprofRoot+"symbol", pprof.Symbol)
	routes.Handle(pprofRoot+"trace", p.profile(pprof.Trace, 1))
	routes.Handle(pprofRoot+"cmdline", http.NotFoundHandler())
}

// profile serves profiles, one of each kind at a time: those that take time, and
// snapshots, which take the memory that describes a whole process. A profiler that nearly
// always takes a CPU profile gets its snapshots beside it. seconds is the default of a
// profile that takes time, and 0 for a snapshot.
func (p *Pages) profile(next http.HandlerFunc, seconds float64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		takes, kind := seconds, &p.snapshots
		if seconds > 0 {
			kind = &p.timed
		}
		if given := r.FormValue("seconds"); given != "" {
			kind = &p.timed
			var err error
			if takes, err = strconv.ParseFloat(given, 64); err != nil || !(takes >= 0 && takes <= p.bounds.profile.Seconds()) {
				http.Error(w, "muxserve: seconds must be a number from 0 to "+
					strconv.FormatFloat(p.bounds.profile.Seconds(), 'f', -1, 64), http.StatusBadRequest)
				return
			}
			takes = max(takes, seconds) // pprof takes its default for 0, and for a fraction.
		}
		if r.URL.Path != pprofRoot {
			if !kind.TryLock() {
				w.Header().Set("Retry-After", "10")
				http.Error(w, "muxserve: another profile of this kind is being taken", http.StatusServiceUnavailable)
				return
			}
			defer kind.Unlock()
			stay(r)
			end := time.Now().Add(time.Duration(takes*float64(time.Second)) + p.bounds.answer)
			_ = http.NewResponseController(w).SetWriteDeadline(end)
		}
		next(w, r)
	})
}
