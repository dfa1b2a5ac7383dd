package mux

import (
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"
	"weak"

	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/pool"
)

// TestNothingHeldBehindTheEnd: what a connection has in memory goes when it ends, also
// where its streams are open.
func TestNothingHeldBehindTheEnd(t *testing.T) {
	running := make(chan struct{}, 1)
	s := New(WithLogger(slog.New(slog.DiscardHandler)), WithHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		running <- struct{}{}
		<-r.Context().Done()
	})))
	var mu sync.Mutex
	var conns []weak.Pointer[conn]
	cancel := s.Observe(func(e Event) {
		if e.Kind == EventAdded {
			mu.Lock()
			defer mu.Unlock()
			conns = append(conns, weak.Make(e.Conn.conn))
		}
	})
	defer cancel()
	addr := serveOnLoopback(t, s)
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(nc, nil)
	_, _ = nc.Write([]byte(http2.ClientPreface))
	_ = framer.WriteSettings()
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("\x82\x86\x84\x41\x01x"), EndHeaders: true, EndStream: true})
	<-running
	_ = nc.Close()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		runtime.GC()
		mu.Lock()
		gone := len(conns) == 1 && conns[0].Value() == nil
		mu.Unlock()
		switch {
		case gone:
			return
		case time.Now().After(end):
			t.Fatal("the connection is still in memory")
		}
	}
}

// TestHTTP2IsIdleWhenAnswered: net/http calls a connection idle before it has written the end of
// the last answer.
func TestHTTP2IsIdleWhenAnswered(t *testing.T) {
	running, release := make(chan struct{}), make(chan struct{})
	s := New(WithLogger(slog.New(slog.DiscardHandler)), WithHandler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(running)
		<-release
	})))
	nc, err := net.Dial("tcp", serveOnLoopback(t, s))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	framer := http2.NewFramer(nc, nc)
	_, _ = nc.Write([]byte(http2.ClientPreface))
	_ = framer.WriteSettings()
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("\x82\x86\x84\x41\x01x"), EndHeaders: true, EndStream: true})
	<-running
	c := s.topology.books.all(func(*conn) bool { return true })[0]
	c.account.SetState(pool.StateIdle) // As net/http does.
	if c.isIdleHTTP2() {
		t.Error("idle, and its answer is still to come")
	}
	close(release)
	for ended := false; !ended; {
		f, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		ended = f.Header().StreamID == 1 && f.Header().Flags.Has(http2.FlagDataEndStream)
	}
	for end := time.Now().Add(20 * time.Second); !c.isIdleHTTP2(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not idle, and its answer has come")
		}
	}
}
