package main

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/muxserve/muxserve/testdata/clients/process"
)

// TestReserve: a process may listen on a reserved port again and again, and
// in between it refuses connections and is not given to others.
func TestReserve(t *testing.T) {
	p, err := process.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	for range 3 {
		if c, err := net.Dial("tcp", p.String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("connecting: %v, %v; want a refusal", c, err)
		}
		l, err := net.Listen("tcp", p.String())
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", p.String())
		if err != nil {
			t.Fatal(err)
		}
		n, err := established(os.Getpid(), p.Number)
		if err != nil {
			t.Fatal(err)
		}
		// The server's end counts when it has been accepted, and the client's has another port.
		if n != 0 {
			t.Errorf("%d connections before any was accepted", n)
		}
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if n, err = established(os.Getpid(), p.Number); n != 1 || err != nil {
			t.Errorf("%d connections, %v; want 1", n, err)
		}
		for _, each := range []interface{ Close() error }{accepted, c, l} {
			_ = each.Close()
		}
	}
}
