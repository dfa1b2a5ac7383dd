package mux_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/muxserve/muxserve/mux"
)

// TestWebSocketMemory: an idle WebSocket costs at most 45 % of its cost behind net/http,
// its goroutine's stack included.
func TestWebSocketMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector changes what things cost; .ci/run runs this without it")
	}
	if testing.Short() {
		t.Skip("thousands of connections")
	}
	t.Parallel()
	if !inOwnProcess(t) { // As TestMemory.
		return
	}
	goroutines := runtime.NumGoroutine()
	var direct, muxed []int
	for range memoryRounds {
		for _, form := range []struct {
			costs *[]int
			serve func(net.Listener) (stop func())
		}{{&direct, serveCoder}, {&muxed, serveMuxWebSocket}} {
			*form.costs = append(*form.costs, idleCost(t, memoryInUse, form.serve, askWebSocket))
			// The goroutines of net/http end with their clients. Their stacks must not
			// count in the next round.
			eventually(t, "the WebSockets have ended", func() bool { return runtime.NumGoroutine() <= goroutines })
		}
	}
	slices.Sort(direct)
	slices.Sort(muxed)
	t.Logf("bytes a WebSocket: direct %d, mux %d", direct, muxed)
	if got, most := muxed[memoryRounds/2], direct[memoryRounds/2]*45/100; got > most {
		t.Errorf("%d bytes a WebSocket, want at most %d, which is 45 %% of its own server's", got, most)
	}
}

// memoryInUse returns the bytes of live objects and of stacks.
func memoryInUse() uint64 {
	heap := heapInUse()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return heap + m.StackInuse
}

func serveCoder(l net.Listener) (stop func()) {
	s := &http.Server{
		ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			defer c.CloseNow()
			_ = echoWebSocket(r.Context(), c, r)
		}),
	}
	go func() { _ = s.Serve(l) }()
	return func() { _ = s.Close() }
}

func serveMuxWebSocket(l net.Listener) (stop func()) {
	s := mux.New(mux.WithLogger(discard), mux.Configure(func(c *mux.Config) { c.WebSocket.MaxConnections = 0 }),
		mux.WithHandler(mux.WebSocket(echoWebSocket)))
	go func() { _ = s.Serve(l) }()
	return func() { _ = s.Close() }
}

// askWebSocket opens a WebSocket and sends what makes the server's buffers and stack as
// large as they get: a message, a ping, and a message above the small buffer.
func askWebSocket(t *testing.T, conn net.Conn) {
	const (
		short = "\x82\x84\x00\x00\x00\x00abcd"
		ping  = "\x89\x84\x00\x00\x00\x00abcd"
		long  = "\x82\xfe\x01\x00\x00\x00\x00\x00"
		size  = 256 // of the long message
		heads = 2 + 2 + 4
	)
	send(t, conn, handshake)
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %v, %v", resp, err)
	}
	send(t, conn, short+ping+long+string(make([]byte, size)))
	if _, err := io.ReadFull(br, make([]byte, heads+4+4+size)); err != nil {
		t.Fatal(err)
	}
}
