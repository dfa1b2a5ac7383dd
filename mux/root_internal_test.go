package mux

import (
	"io"
	"log/slog"
	"net"
	"testing"
	"time"
)

// TestRootEndsBehindItsServers: a root ends although the server of its last connection
// was shut down before it accepted anything.
func TestRootEndsBehindItsServers(t *testing.T) {
	s := New(WithLogger(slog.New(slog.DiscardHandler)))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	if err := s.topology.backend.Load().http2.Shutdown(t.Context()); err != nil { // As a drain does when its time is over.
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
		s.topology.mu.Lock()
		if len(s.topology.roots) > 0 {
			r = s.topology.roots[0]
		}
		s.topology.mu.Unlock()
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
