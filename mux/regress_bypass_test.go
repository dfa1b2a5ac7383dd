package mux_test

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// TestStalledBesideUnread: one stream whose handler does not read a body does not excuse all the others.
func TestStalledBesideUnread(t *testing.T) {
	t.Parallel()
	outcomes, finish := make(chan error, 1), make(chan struct{})
	defer sync.OnceFunc(func() { close(finish) })()
	s := start(t, false, impatient(protocols.ProgressConfig{ProgressTimeout: 200 * time.Millisecond}),
		mux.WithHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/busy" {
				select {
				case <-finish:
				case <-r.Context().Done():
				}
				return
			}
			_, err := io.Copy(io.Discard, r.Body)
			outcomes <- err
		})))
	conn := s.dial(t)
	c := newH2Client(t, conn, conn)
	for i, path := range []string{"/busy", "/read"} {
		c.request(uint32(2*i+1), false, ":method", "POST", ":scheme", "http", ":authority", "x", ":path", path, "content-length", "10")
	}
	select {
	case err := <-outcomes:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	case <-time.After(3 * time.Second):
		t.Error("an upload that has stopped is still waited for, because another stream's body is not read")
	}
}

// TestStalledBesideSmall: a stream whose window stays shut is ended, also while its client asks for other things.
func TestStalledBesideSmall(t *testing.T) {
	t.Parallel()
	outcomes := make(chan error, 1)
	s := start(t, false, mux.WithHandler(movers(outcomes)), impatient(protocols.ProgressConfig{ProgressTimeout: 200 * time.Millisecond}))
	conn := s.dial(t)
	c := newH2Client(t, conn, conn)
	c.must(c.WriteWindowUpdate(0, 1<<20))
	c.get(1, "/flood")
	done := make(chan error, 1)
	go func() {
		for { // Nothing is granted to stream 1.
			if f, err := c.ReadFrame(); err != nil {
				done <- err
				return
			} else if reset, ok := f.(*http2.RSTStreamFrame); ok && reset.StreamID == 1 {
				done <- nil
				return
			}
		}
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	over := time.After(3 * time.Second)
	for stream := uint32(3); ; stream += 2 {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			within(t, "the handler", outcomes)
			return
		case <-tick.C:
			c.get(stream, "/small")
		case <-over:
			_ = conn.Close()
			t.Fatal("a stream whose client takes nothing goes on while it asks for other things")
		}
	}
}
