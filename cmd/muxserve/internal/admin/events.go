package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/page"
)

const (
	// maxStreams bounds the event streams that are open at a time.
	maxStreams = 16
	// heldTime bounds how long the end of the process waits for watchers.
	heldTime = 3 * time.Second
)

// watchers counts who watches the server. The zero value is ready to use. All methods may
// be called concurrently.
type watchers struct {
	mu      sync.Mutex // guards what follows
	streams int
	// asked is when GET /drain was last answered, and told whether it had the account.
	asked time.Time
	told  bool
}

// begin reports whether one more stream may be open; end ends it.
func (w *watchers) begin() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.streams >= maxStreams {
		return false
	}
	w.streams++
	return true
}

func (w *watchers) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.streams--
}

// polled notes that GET /drain was answered.
func (w *watchers) polled(over bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked, w.told = time.Now(), over
}

// wait reports whether a watcher still waits for the end of the drain.
func (w *watchers) wait() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.streams > 0 || !w.told && time.Since(w.asked) < heldTime
}

// Hold waits, when the drain is over, until all who watch it have its account: the event
// streams, and clients that ask GET /drain again and again. It waits for three seconds at
// most.
func (p *Pages) Hold() {
	ctx, cancel := context.WithTimeout(context.Background(), heldTime)
	defer cancel()
	const often = 10 * time.Millisecond
	tick := time.NewTicker(often)
	defer tick.Stop()
	for p.watchers.wait() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// serveEvents sends what /health and /drain answer every second (bounds.events), as events
// called health and drain, and during a drain the latter four times a second. The last event
// of a drain, called end, has its account. Then the stream ends.
func (p *Pages) serveEvents(w http.ResponseWriter, r *http.Request) {
	if !p.watchers.begin() {
		w.Header().Set("Retry-After", "10")
		page.Error(w, http.StatusServiceUnavailable, fmt.Errorf("%d event streams are open, which is the most", maxStreams))
		return
	}
	defer p.watchers.end()
	if !page.EventStream(w, r) {
		return
	}
	stayForEvents(r)
	s := stream{w, http.NewResponseController(w), p.bounds.event}
	var last time.Time
	for {
		interval := p.bounds.events
		now := time.Now()
		progress := p.progress(now)
		if progress.Running || progress.Over {
			interval = curveInterval
		}
		if progress.Over {
			_ = errors.Join(s.send("health", p.health()), s.send("end", progress))
			return
		}
		if now.Sub(last) >= p.bounds.events*7/8 { // A tick of a drain may come a little early.
			last = now
			if errors.Join(s.send("health", p.health()), s.send("drain", progress)) != nil {
				return
			}
		} else if progress.Running && s.send("drain", progress) != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(interval):
		}
	}
}

// stream is an answer of the type text/event-stream.
type stream struct {
	w          http.ResponseWriter
	controller *http.ResponseController
	patience   time.Duration // for one event
}

// send sends an event. A client that does not take it in time gets no more.
func (s stream) send(name string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	_ = s.controller.SetWriteDeadline(time.Now().Add(s.patience)) // It fails as in bounded.
	if _, err = fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", name, data); err != nil {
		return err
	}
	return s.controller.Flush()
}
