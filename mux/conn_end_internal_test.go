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
