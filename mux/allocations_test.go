package mux_test

import (
	"bufio"
	"net"
	"testing"
)

// The allocations that the mux may add: to a request on a connection that is kept none, because the writer which remembers its
// status stands against the error that net makes of each deadline; to a connection with a request three, of which two are the
// connection itself and its context, and one to spare.
const (
	mostRequestAllocs    = 0
	mostConnectionAllocs = 4
)

// TestAllocations counts them for server and client together, beside net/http alone with the same client.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector changes what things cost; .ci/run runs this without it")
	}
	request := func(t *testing.T, addr string) func() {
		t.Helper()
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		r := bufio.NewReader(conn)
		return func() { ask(t, conn, r) }
	}
	connection := func(t *testing.T, addr string) func() {
		t.Helper()
		r := bufio.NewReader(nil)
		return func() { askOnce(t, addr, r) }
	}
	for _, tt := range []struct {
		name string
		make func(*testing.T, string) func()
		most float64
	}{
		{"request", request, mostRequestAllocs},
		{"connection", connection, mostConnectionAllocs},
	} {
		t.Run(tt.name, func(t *testing.T) {
			count := func(serve func(net.Listener) func()) float64 {
				l := listen(t)
				defer serve(l)()
				return testing.AllocsPerRun(500, tt.make(t, l.Addr().String()))
			}
			direct, muxed := count(serveNetHTTP), count(serveMux)
			t.Logf("%v directly, %v through the mux", direct, muxed)
			if muxed > direct+tt.most {
				t.Errorf("%v allocations more, want at most %v", muxed-direct, tt.most)
			}
		})
	}
}
