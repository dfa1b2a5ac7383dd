package mux_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// TestHammer runs every protocol with timeouts that run out all the time. It looks for
// races, panics, hangs and counters that drift.
func TestHammer(t *testing.T) {
	for _, withTLS := range []bool{false, true} {
		t.Run(fmt.Sprint(withTLS), func(t *testing.T) {
			t.Parallel()
			runHammer(t, withTLS)
		})
	}
}

// hammer is a server with its clients, which run until ctx ends.
type hammer struct {
	*server
	ctx            context.Context
	wg             sync.WaitGroup
	added, removed atomic.Int64 // connections, by the events
}

// hammerTimes makes every timeout short, and allows few requests and resets.
func hammerTimes(c *mux.Config) {
	noDelay(c)
	c.HTTP1.MaxRequests, c.HTTP2.MaxRequests, c.HTTP2.MaxResetsPerMinute = 20, 20, 10
	c.HTTP1.IdleTimeout, c.HTTP2.IdleTimeout, c.GRPC.MaxIdle = 40*time.Millisecond, 40*time.Millisecond, 50*time.Millisecond
	c.HTTP2.PingInterval, c.HTTP2.PingTimeout = 20*time.Millisecond, 50*time.Millisecond
	c.WebSocket.PingInterval, c.WebSocket.PongTimeout, c.WebSocket.MaxAge = 20*time.Millisecond, 30*time.Millisecond, 100*time.Millisecond
	c.GRPC.MaxAge, c.GRPC.MaxAgeGrace = 100*time.Millisecond, 50*time.Millisecond
	c.WebSocket.Compression = protocols.CompressionTakeover
	c.HTTP2.UpgradeH2C = true
	c.Limits.PerAddress = 60
	c.Sniff.Timeout = 100 * time.Millisecond
}

// hammerRoutes are the test handlers, and handlers that read, write, panic and hijack.
func hammerRoutes() http.Handler {
	h := http.NewServeMux()
	h.Handle("/", routes())
	h.HandleFunc("/read", func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	h.HandleFunc("/write", func(w http.ResponseWriter, r *http.Request) {
		ctx := leaving(r.Context())
		for range 40 {
			if _, err := w.Write(make([]byte, 100<<10)); err != nil || ctx.Err() != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
		}
	})
	h.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	h.HandleFunc("/deadline", func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		_ = rc.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		_ = rc.EnableFullDuplex()
		_, _ = io.Copy(w, r.Body)
	})
	h.HandleFunc("/hijack", func(w http.ResponseWriter, r *http.Request) {
		ctx := leaving(r.Context())
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, _ = io.Copy(conn, rw)
		_ = ctx.Err()
	})
	return h
}

// runHammer serves for a few seconds under all clients, drains, and compares the counters.
func runHammer(t *testing.T, withTLS bool) {
	seconds := 2 * time.Second
	if os.Getenv("MUXSERVE_LONG") != "" {
		seconds = 40 * time.Second
	}
	m, roots := newServer(t, withTLS,
		mux.WithLogger(slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug}))), //nolint:sloglint // The lines are to be made.
		mux.WithAccessLog(slog.New(slog.NewTextHandler(io.Discard, nil))),                                       //nolint:sloglint // As above.
		aged(60*time.Millisecond, 80*time.Millisecond),
		impatient(protocols.ProgressConfig{MinBodyRate: 1000, BodyGrace: 30 * time.Millisecond, ProgressTimeout: 60 * time.Millisecond}),
		mux.Configure(hammerTimes), mux.WithHandler(hammerRoutes()))
	ctx, cancel := context.WithTimeout(t.Context(), seconds)
	defer cancel()
	h := &hammer{ctx: ctx}
	m.Observe(func(e mux.Event) {
		switch e.Kind {
		case mux.EventAdded:
			h.added.Add(1)
		case mux.EventRemoved:
			h.removed.Add(1)
		}
		_ = e.Conn.Info()
	})
	running := serveOn(t, m, listen(t))
	h.server = running.server
	h.roots = roots
	h.startClients(t)
	h.loop(func() {
		_, _, _ = m.Stats(), m.Connections(), m.Servers()
		time.Sleep(5 * time.Millisecond)
	})
	h.loop(func() {
		h.limit(t, 100, rand.IntN(2)*60, rand.IntN(40), rand.IntN(10), rand.IntN(3), rand.IntN(4))
		time.Sleep(10 * time.Millisecond)
	})
	h.wg.Wait()
	h.limit(t, 0, 0, 0, 0, 0, 0)
	done := make(chan error, 1)
	go func() { done <- m.Shutdown(context.Background()) }()
	select {
	case err := <-done:
		t.Log("shutdown:", err)
	case <-time.After(60 * time.Second):
		t.Fatal("the drain hangs")
	}
	<-running.served
	h.check(t)
}

// loop runs f again and again until the end.
func (h *hammer) loop(f func()) {
	h.wg.Go(func() {
		for h.ctx.Err() == nil {
			f()
		}
	})
}

// limit reloads the limits.
func (h *hammer) limit(t *testing.T, total, perAddress, http1, http2, grpc, webSocket int) {
	t.Helper()
	c := h.Config()
	c.Limits.MaxConnections, c.Limits.PerAddress = total, perAddress
	c.HTTP1.MaxConnections, c.HTTP2.MaxConnections, c.GRPC.MaxConnections, c.WebSocket.MaxConnections = http1, http2, grpc, webSocket
	if _, err := h.Reload(c, "test"); err != nil && !errors.Is(err, mux.ErrNotServing) {
		t.Error(err)
	}
}

// startClients starts clients of every kind.
func (h *hammer) startClients(t *testing.T) {
	t.Helper()
	for version := 1; version <= 2; version++ {
		c := h.client(t, version)
		c.Timeout = 300 * time.Millisecond
		for range 3 {
			h.loop(func() { h.post(c) })
		}
	}
	for range 2 {
		h.loop(h.rawHTTP2)
		h.loop(h.rawHTTP1)
		h.loop(func() { h.webSocketEcho(t) })
	}
	if h.roots == nil {
		client := testpb.NewTestServiceClient(h.grpcClient(t))
		for range 2 {
			h.loop(func() { h.call(client) })
		}
	}
}

// connect opens a raw connection with a short deadline, or returns nil.
func (h *hammer) connect(alpn string) net.Conn {
	d := &net.Dialer{Timeout: time.Second}
	var conn net.Conn
	var err error
	if h.roots != nil {
		conn, err = tls.DialWithDialer(d, "tcp", h.addr, &tls.Config{RootCAs: h.roots, NextProtos: []string{alpn}})
	} else {
		conn, err = d.Dial("tcp", h.addr)
	}
	if err != nil {
		return nil
	}
	_ = conn.SetDeadline(time.Now().Add(time.Duration(rand.IntN(300)) * time.Millisecond))
	return conn
}

// post sends a body, often slowly, and reads the response, often not to its end.
func (h *hammer) post(c *http.Client) {
	paths := []string{"/echo", "/read", "/write", "/panic", "/deadline", "/slow", "/nowhere", "/hijack"}
	body := io.Reader(strings.NewReader(strings.Repeat("x", rand.IntN(50_000))))
	if rand.IntN(3) == 0 {
		body = &drip{h.ctx, 20, 10 * time.Millisecond}
	}
	r, _ := http.NewRequestWithContext(h.ctx, http.MethodPost, h.scheme()+"://"+h.addr+paths[rand.IntN(len(paths))], body)
	if rand.IntN(2) == 0 {
		r.ContentLength = 20
	}
	resp, err := c.Do(r)
	if err != nil {
		return
	}
	if rand.IntN(3) > 0 {
		_, _ = io.Copy(io.Discard, resp.Body)
	} else {
		_, _ = io.CopyN(io.Discard, resp.Body, 10_000)
		time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
	}
	_ = resp.Body.Close()
}

// rawHTTP2 opens streams, resets some of them, and stalls.
func (h *hammer) rawHTTP2() {
	conn := h.connect("h2")
	if conn == nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, http2.ClientPreface)
	fr := http2.NewFramer(conn, conn)
	_ = fr.WriteSettings()
	for i := range uint32(rand.IntN(30)) {
		block := []byte{0x83, 0x86, 0x84, 0x41, 0x01, 'x'} // POST http / x
		if fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: block, EndHeaders: true, EndStream: rand.IntN(2) == 0}) != nil {
			return
		}
		if rand.IntN(2) == 0 {
			_ = fr.WriteRSTStream(2*i+1, http2.ErrCodeCancel)
		}
	}
	time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
}

// rawHTTP1 sends a request, a part of one, or nonsense, and stalls.
func (h *hammer) rawHTTP1() {
	conn := h.connect("http/1.1")
	if conn == nil {
		return
	}
	defer conn.Close()
	texts := []string{
		"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc", "GET /write HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /hi", "GET /hijack HTTP/1.1\r\nHost: x\r\n\r\nabc", "GET /echo HTTP/1.1\r\n" + upgradeFields + "\r\n" + http2.ClientPreface,
		"\x00\x01", handshake, "", "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n" + handshake,
	}
	_, _ = io.WriteString(conn, texts[rand.IntN(len(texts))])
	time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
}

// webSocketEcho exchanges a few messages on a WebSocket.
func (h *hammer) webSocketEcho(t *testing.T) {
	hc := h.client(t, 1)
	defer hc.CloseIdleConnections()
	ws, _, err := websocket.Dial(h.ctx, h.scheme()+"://"+h.addr+"/ws", &websocket.DialOptions{HTTPClient: hc, CompressionMode: websocket.CompressionContextTakeover})
	if err != nil {
		return
	}
	defer ws.CloseNow()
	for range rand.IntN(20) {
		if ws.Write(h.ctx, websocket.MessageText, []byte(strings.Repeat("hello", 100))) != nil {
			return
		}
		c, stop := context.WithTimeout(h.ctx, 50*time.Millisecond)
		_, _, err := ws.Read(c)
		stop()
		if err != nil {
			return
		}
		time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
	}
}

// call makes a unary call, and a stream that it leaves open.
func (h *hammer) call(client testpb.TestServiceClient) {
	c, stop := context.WithTimeout(h.ctx, 100*time.Millisecond)
	defer stop()
	_, _ = client.UnaryCall(c, &testpb.SimpleRequest{})
	if st, err := client.FullDuplexCall(c); err == nil {
		_ = st.Send(&testpb.StreamingOutputCallRequest{})
		_, _ = st.Recv()
	}
	time.Sleep(time.Millisecond)
}

// check compares the counters when the server has stopped.
func (h *hammer) check(t *testing.T) {
	t.Helper()
	h.noneLeft(t)
	// Observers are called a moment after a connection has left the statistics.
	eventually(t, "no request in flight, and as many connections removed as added", func() bool {
		left := int64(0)
		for _, r := range h.Stats().Requests {
			left += r.InFlight
		}
		return left == 0 && h.added.Load() == h.removed.Load()
	})
	if faults := h.UnseenFaults([]net.Addr{&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}); len(faults) > 0 {
		t.Error(faults)
	}
	var reasons []string
	for tag, of := range h.Stats().Closed {
		for r, n := range of {
			reasons = append(reasons, fmt.Sprintf("%s/%s %d", tag, r, n))
		}
	}
	slices.Sort(reasons)
	t.Log(h.added.Load(), "connections:", strings.Join(reasons, ", "))
}
