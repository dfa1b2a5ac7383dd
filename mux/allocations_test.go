package mux_test

import (
	"bufio"
	"net"
	"testing"
)

// How many allocations the mux may add. A connection has its own, its context, and what
// cmux makes of it: a wrapper and a goroutine's closure.
const (
	mostRequestAllocs    = 0
	mostConnectionAllocs = 6
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
