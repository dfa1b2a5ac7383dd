package mux

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/pool"
)

// lockedLog is what a log has written. Timers write, too.
type lockedLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements [io.Writer].
func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// take returns the text since the last call.
func (l *lockedLog) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.text.Reset()
	return l.text.String()
}

// loggedBooks returns books and a function that takes the lines out of their log, without
// times.
func loggedBooks(t *testing.T) (b *books, take func() []string) {
	t.Helper()
	var log lockedLog
	b = newBooks(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})), nil, pool.Limits{})
	return b, func() []string {
		text := strings.TrimSpace(log.take())
		if text == "" {
			return nil
		}
		return strings.Split(text, "\n")
	}
}

// TestHealthLines: a pool whose health goes up and down all the time gets one line at
// once, and then one in 5 s if it has another health than the last line says.
func TestHealthLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, take := loggedBooks(t)
		seq := uint64(0)
		change := func(tag pool.Tag, from, to pool.Health) {
			seq++
			b.logEvent(pool.Event{Kind: pool.EventHealthChanged, Seq: seq, Tag: tag, Old: from, New: to})
		}
		check := func(want ...string) {
			t.Helper()
			synctest.Wait()
			if diff := cmp.Diff(want, take()); diff != "" {
				t.Errorf("at %v (-want +got):\n%s", time.Now(), diff)
			}
		}
		const overloaded = "level=WARN msg=\"pool health changed\" protocol=http1 from=healthy to=overloaded"
		for range 600 {
			change("http1", pool.Healthy, pool.Overloaded)
			change("http1", pool.Overloaded, pool.Healthy)
		}
		change("grpc", pool.Healthy, pool.Degraded)
		check(overloaded+" changes=1", "level=INFO msg=\"pool health changed\" protocol=grpc from=healthy to=degraded changes=1")

		time.Sleep(healthPace - time.Millisecond)
		check()
		time.Sleep(time.Millisecond)
		check("level=INFO msg=\"pool health changed\" protocol=http1 from=overloaded to=healthy changes=1199")

		change("http1", pool.Healthy, pool.Overloaded)
		change("http1", pool.Overloaded, pool.Healthy)
		time.Sleep(healthPace)
		check() // It is what the last line says.

		time.Sleep(healthPace)
		change("http1", pool.Healthy, pool.Overloaded)
		check(overloaded + " changes=1") // At once again.

		change("http1", pool.Overloaded, pool.Healthy)
		b.end()
		check("level=INFO msg=\"pool health changed\" protocol=http1 from=overloaded to=healthy changes=1")
	})
}

// TestHealthChangesInAnyOrder: two goroutines may tell of their events in either order.
func TestHealthChangesInAnyOrder(t *testing.T) {
	first := healthChange{1, pool.Healthy, pool.Degraded, 1}
	second := healthChange{2, pool.Degraded, pool.Overloaded, 1}
	want := healthChange{2, pool.Healthy, pool.Overloaded, 2}
	if got := first.merge(second); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := second.merge(first); got != want {
		t.Errorf("in the other order %+v, want %+v", got, want)
	}
}
