package mux_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
)

// The measure of TestMemory. Tables and pools grow by a few bytes for each of so many
// connections. The median removes what a garbage collection leaves behind by chance.
const (
	memoryConns  = 500
	memoryRounds = 3
	mostMemory   = 400 // bytes a connection
)

// TestMemory: an idle connection after one request costs at most mostMemory bytes of heap
// more than with the protocol's own server, which has no timeouts and so no timer.
func TestMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector changes what things cost; .ci/run runs this without it")
	}
	if testing.Short() {
		t.Skip("thousands of connections")
	}
	t.Parallel()
	if !inOwnProcess(t) { // What other tests allocate does not count there.
		return
	}
	get := []string{":method", "GET", ":scheme", "http", ":authority", "x", ":path", "/"}
	call := []string{
		":method", "POST", ":scheme", "http", ":authority", "x", ":path", "/grpc.testing.TestService/Nothing",
		"content-type", "application/grpc", "te", "trailers", "user-agent", "grpc-go/1.85.0",
	}
	for _, test := range []struct {
		name   string
		direct func(net.Listener) (stop func())
		ask    func(*testing.T, net.Conn)
	}{
		{"http1", serveNetHTTP, askHTTP1},
		{"http2", serveNetHTTP, func(t *testing.T, conn net.Conn) { askHTTP2(t, conn, get...) }},
		{"grpc", serveGRPCGo, func(t *testing.T, conn net.Conn) { askHTTP2(t, conn, call...) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			var direct, muxed []int
			for range memoryRounds {
				direct = append(direct, idleCost(t, heapInUse, test.direct, test.ask))
				muxed = append(muxed, idleCost(t, heapInUse, serveMux, test.ask))
			}
			slices.Sort(direct)
			slices.Sort(muxed)
			more := muxed[memoryRounds/2] - direct[memoryRounds/2]
			t.Logf("bytes a connection: direct %d, mux %d: %+d", direct, muxed, more)
			if more > mostMemory {
				t.Errorf("%d bytes a connection more than its own server, want at most %d", more, mostMemory)
			}
		})
	}
}

var hello = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })

func serveNetHTTP(l net.Listener) (stop func()) {
	s := &http.Server{Handler: hello, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = s.Serve(l) }()
	return func() { _ = s.Close() }
}

func serveGRPCGo(l net.Listener) (stop func()) {
	s := grpc.NewServer()
	testpb.RegisterTestServiceServer(s, testService{})
	go func() { _ = s.Serve(l) }()
	return s.Stop
}

func serveMux(l net.Listener) (stop func()) {
	s := mux.New(mux.WithHandler(hello), mux.WithLogger(discard), mux.Configure(func(c *mux.Config) {
		c.HTTP1.MaxConnections, c.HTTP2.MaxConnections, c.GRPC.MaxConnections = 0, 0, 0
	}), mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, testService{}) }))
	go func() { _ = s.Serve(l) }()
	return func() { _ = s.Close() }
}

func askHTTP1(t *testing.T, conn net.Conn) {
	send(t, conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
}

// askHTTP2 makes a request with these fields, and reads its answer.
func askHTTP2(t *testing.T, conn net.Conn, fields ...string) {
	c := newH2Client(t, conn, conn)
	if len(fields) > 0 && fields[1] == "POST" {
		c.ready()
	}
	c.request(1, true, fields...)
	for ended := false; !ended; {
		f, err := c.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = c.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			ended = f.StreamEnded()
		case *http2.DataFrame:
			ended = f.StreamEnded()
		}
	}
}

// idleCost returns the bytes, as inUse measures them, that a connection holds after one
// request, both ends together.
func idleCost(t *testing.T, inUse func() uint64, serve func(net.Listener) (stop func()), ask func(*testing.T, net.Conn)) int {
	alone := runtime.NumGoroutine()
	// Connections that still close must not count as freed in the next measure.
	defer func() {
		eventually(t, "the goroutines to be gone", func() bool { return runtime.NumGoroutine() <= alone })
	}()
	l := listen(t)
	defer serve(l)()
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	open := func(n int) {
		for range n {
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
			ask(t, conn)
		}
	}
	spareGoroutines(4 * memoryConns)
	conns = make([]net.Conn, 0, 2*memoryConns)
	open(memoryConns / 20) // What is made once is paid for now.
	before := settled(inUse)
	open(memoryConns)
	return (int(inUse()) - int(before)) / memoryConns
}

// settled returns inUse when it no longer falls. Timers that are about to run keep closed
// connections.
func settled(inUse func() uint64) uint64 {
	const page = 4096
	for last := inUse(); ; {
		time.Sleep(150 * time.Millisecond) // The clock of a server's connections stops within 100 ms of the last.
		now := inUse()
		if now+page >= last {
			return now
		}
		last = now
	}
}

// spareGoroutines makes the runtime keep the descriptors of n goroutines, of some 400
// bytes each, so that it allocates none during the measure. The number of spare
// descriptors otherwise depends on earlier tests.
func spareGoroutines(n int) {
	var wg sync.WaitGroup
	end := make(chan struct{})
	for range n {
		wg.Go(func() { <-end })
	}
	close(end)
	wg.Wait()
}

// heapInUse returns the bytes of live objects. The second collection frees what is in a
// [sync.Pool].
func heapInUse() uint64 {
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
