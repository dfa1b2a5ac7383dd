package mux

import (
	"io"
	"log/slog"
	"net"
	"runtime/pprof"
	"strings"
	"testing"
	"time"
)

// TestRootEndsBehindItsServers: a connection whose server was shut down before it had anything to accept keeps nobody waiting.
func TestRootEndsBehindItsServers(t *testing.T) {
	s := New(WithLogger(slog.New(slog.DiscardHandler)))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		<-served
	})
	var r *root
	for r == nil {
		time.Sleep(time.Millisecond)
		s.mu.Lock()
		if len(s.roots) > 0 {
			r = s.roots[0]
		}
		s.mu.Unlock()
	}
	if err := s.backend.Load().http2.Shutdown(t.Context()); err != nil { // As the drain does that is out of time.
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+"\x00\x00\x00\x04\x00\x00\x00\x00\x00"+
		"\x00\x00\x06\x01\x05\x00\x00\x00\x01\x82\x86\x84\x41\x01x")
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Errorf("the connection is not closed: %v", err)
	}
	r.listener.Stop()
	select {
	case <-r.done:
	case <-time.After(10 * time.Second):
		t.Fatal("the root does not end")
	}
}

// TestNoCmuxForHTTP1: a listener whose clients speak nothing but HTTP/1.1 has no cmux, and gets one with the first that does.
func TestNoCmuxForHTTP1(t *testing.T) {
	divided := func() int {
		var stacks strings.Builder
		_ = pprof.Lookup("goroutine").WriteTo(&stacks, 2)
		return strings.Count(stacks.String(), "mux.(*root).divide(")
	}
	before := divided()
	s := New(WithLogger(slog.New(slog.DiscardHandler)))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	defer func() {
		_ = s.Close()
		<-served
	}()
	for _, tt := range []struct {
		first string
		want  int
	}{
		{"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 0},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", 1},
	} {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, tt.first)
		if _, err := c.Read(make([]byte, 1)); err != nil { // The server has taken it on.
			t.Error(err)
		}
		if got := divided() - before; got != tt.want {
			t.Errorf("behind %q there are %d cmuxes, want %d", tt.first, got, tt.want)
		}
		_ = c.Close()
	}
}
