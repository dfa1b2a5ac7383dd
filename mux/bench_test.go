package mux_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/muxserve/muxserve/mux"
)

// The number of allocations that the mux may add. A connection has its own struct, its
// context, and what cmux allocates: a wrapper and a goroutine's closure.
const (
	mostRequestAllocs    = 0
	mostConnectionAllocs = 6
)

// TestAllocations counts allocations of server and client together, through the mux and
// for net/http alone with the same client.
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

// benchServers runs a benchmark against net/http alone and through the mux.
func benchServers(b *testing.B, f func(b *testing.B, addr string)) {
	b.Helper()
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	for _, form := range []struct {
		name  string
		serve func(net.Listener) (stop func() error)
	}{
		{"direct", func(l net.Listener) func() error {
			s := &http.Server{Handler: handler}
			go func() { _ = s.Serve(l) }()
			return s.Close
		}},
		{"mux", func(l net.Listener) func() error {
			s := mux.New(mux.WithHandler(handler), mux.WithLogger(discard))
			go func() { _ = s.Serve(l) }()
			return s.Close
		}},
	} {
		b.Run(form.name, func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			stop := form.serve(l)
			defer func() { _ = stop() }()
			b.ReportAllocs()
			f(b, l.Addr().String())
		})
	}
}

const benchRequest = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"

// BenchmarkRequest is a request on a kept-alive connection, client included.
func BenchmarkRequest(b *testing.B) {
	benchServers(b, func(b *testing.B, addr string) {
		b.Helper()
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		r := bufio.NewReader(conn)
		for b.Loop() {
			ask(b, conn, r)
		}
	})
}

// BenchmarkConnection is a connection with one request, client included.
func BenchmarkConnection(b *testing.B) {
	benchServers(b, func(b *testing.B, addr string) {
		b.Helper()
		r := bufio.NewReader(nil)
		for b.Loop() {
			askOnce(b, addr, r)
		}
	})
}

func askOnce(tb testing.TB, addr string, r *bufio.Reader) {
	tb.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	_ = conn.(*net.TCPConn).SetLinger(0) // A reset frees the port at once.
	r.Reset(conn)
	ask(tb, conn, r)
	_ = conn.Close()
}

func ask(tb testing.TB, conn net.Conn, r *bufio.Reader) {
	tb.Helper()
	if _, err := io.WriteString(conn, benchRequest); err != nil {
		tb.Fatal(err)
	}
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			tb.Fatal(err)
		}
		if len(line) == 2 {
			break
		}
	}
	if _, err := r.Discard(len("hello")); err != nil {
		tb.Fatal(err)
	}
}
