package mux_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
)

const wsHandshake = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// queued returns a server whose kernel holds connections that have each sent text.
func queued(t *testing.T, m *mux.Server, n int, text string) (conns []net.Conn, s *server, open func()) {
	t.Helper()
	gate := &gatedListener{TCPListener: listen(t).(*net.TCPListener), open: make(chan struct{})}
	s = &server{Server: m, addr: gate.TCPListener.Addr().String()}
	go func() { _ = m.Serve(gate) }()
	t.Cleanup(func() { _ = m.Close() })
	eventually(t, "serving", func() bool { return s.Phase() == "serving" })
	for range n {
		conn := s.dial(t)
		send(t, conn, text)
		conns = append(conns, conn)
	}
	return conns, s, sync.OnceFunc(func() { close(gate.open) })
}

// TestWebSocketQueuedAtDrain: a WebSocket handshake that the kernel holds when the listener closes is served, and told 1001.
func TestWebSocketQueuedAtDrain(t *testing.T) {
	m := mux.New(mux.Configure(noDelay), mux.WithHandler(routes()), mux.WithLogger(discard))
	conns, s, open := queued(t, m, 50, wsHandshake)
	done := s.drain(t.Context())
	eventually(t, "draining", func() bool { return s.Phase() == "draining" })
	open()
	refused := 0
	for i, conn := range conns {
		r := bufio.NewReader(conn)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		if resp.StatusCode != http.StatusSwitchingProtocols {
			refused++
		} else if b, err := r.ReadByte(); b != 0x88 {
			t.Errorf("connection %d: no close frame: %x, %v", i, b, err)
		}
		_ = conn.Close()
	}
	if refused > 0 {
		t.Errorf("%d of %d handshakes that the kernel held were refused", refused, len(conns))
	}
	<-done
}

// TestWebSocketBeforeTold: while clients are being told, one that has not been told yet may open a WebSocket.
func TestWebSocketBeforeTold(t *testing.T) {
	t.Parallel()
	s := start(t, false, mux.Configure(func(c *mux.Config) { c.Drain.Spread = 4 * time.Second }))
	const clients = 10
	conns := make([]net.Conn, clients)
	for i := range conns {
		conns[i] = s.dial(t)
		_ = roundTrip(t, conns[i], bufio.NewReader(conns[i]), "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").Body.Close()
	}
	done := s.drain(t.Context())
	eventually(t, "told", func() bool {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	refused, served, gone := 0, 0, 0
	for _, conn := range conns {
		if _, err := io.WriteString(conn, wsHandshake); err != nil {
			gone++
			continue
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		switch {
		case err != nil:
			gone++
		case resp.StatusCode == http.StatusSwitchingProtocols:
			served++
		default:
			refused++
		}
		_ = conn.Close()
	}
	t.Logf("served %d, refused %d, gone %d", served, refused, gone)
	if refused > 0 {
		t.Errorf("%d handshakes were refused with 503", refused)
	}
	<-done
}

// TestNextRequestBehindEarlyResponse: a client that has the whole response sends its next request, while the handler
// goes on for a little. The drain tells clients to leave in between. The next request was not told to stay away, and is served.
func TestNextRequestBehindEarlyResponse(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body)
		_ = http.NewResponseController(w).Flush()
		if string(body) == "one" {
			close(begun)
			<-end // It writes its audit log, say.
		}
	})
	bothForms(t, func(t *testing.T, s *server) {
		begun, end = make(chan struct{}), make(chan struct{})
		conn := s.dial(t, "http/1.1")
		r := bufio.NewReader(conn)
		post := func(body string) string {
			return fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}
		resp := roundTrip(t, conn, r, post("one"))
		if b, err := io.ReadAll(resp.Body); string(b) != "one" || err != nil || resp.Close {
			t.Fatalf("%q, %v, close %v", b, err, resp.Close)
		}
		within(t, "begun", begun)
		told, done := s.told(t), s.drain(t.Context())
		within(t, "told", told)
		send(t, conn, post("two"))
		eventually(t, "it is there", func() bool { return s.Connections()[0].BytesReceived > 0 })
		time.Sleep(50 * time.Millisecond)
		close(end)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("the next request, which was sent before the server had said a word of leaving: %v", err)
		}
		if b, _ := io.ReadAll(resp.Body); string(b) != "two" || !resp.Close {
			t.Errorf("%q, close %v", b, resp.Close)
		}
		<-done
	}, mux.WithHandler(handler))
}

// TestIdleHTTP2HearsLastStream: idle HTTP/2 connections hear both GOAWAYs.
func TestIdleHTTP2HearsLastStream(t *testing.T) {
	t.Parallel()
	bothForms(t, func(t *testing.T, s *server) {
		const clients = 40
		var mu sync.Mutex
		seen := make(map[string]int)
		var wg sync.WaitGroup
		ready := make(chan struct{}, clients)
		for range clients {
			conn := s.dial(t, "h2")
			c := newH2Client(t, conn, conn)
			c.get(1, "/echo")
			c.header(1)
			wg.Go(func() {
				ready <- struct{}{}
				last, _ := c.goAways(nil)
				mu.Lock()
				seen[fmt.Sprint(last)]++
				mu.Unlock()
			})
		}
		for range clients {
			<-ready
		}
		got := <-s.drain(t.Context())
		wg.Wait()
		if got.err != nil {
			t.Error(got.err)
		}
		if want := fmt.Sprintf("[%d 1]", maxStream); seen[want] != clients {
			t.Errorf("GOAWAYs %v, want %s for all", seen, want)
		}
	})
}

// TestHandshakeAtDrain: a TLS handshake that is in progress when the listener closes is finished, and its request served.
func TestHandshakeAtDrain(t *testing.T) {
	t.Parallel()
	s := start(t, true)
	raw, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	slow := &halfConn{Conn: raw, release: make(chan struct{})}
	conn := tls.Client(slow, &tls.Config{RootCAs: s.roots, ServerName: "server.test", NextProtos: []string{"http/1.1"}})
	answer := make(chan error, 1)
	go func() {
		if _, err := io.WriteString(conn, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			answer <- err
			return
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = errors.New(resp.Status)
		}
		answer <- err
	}()
	eventually(t, "half a hello", func() bool { return s.active("sniffing") == 1 && s.Connections()[0].BytesReceived > 0 })
	done := s.drain(t.Context())
	eventually(t, "listener closed", func() bool {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	close(slow.release)
	if err := within(t, "the answer", answer); err != nil {
		t.Error(err)
	}
	if got := <-done; got.err != nil {
		t.Errorf("drain: %v", got.err)
	}
}

// halfConn sends the first 20 bytes, and the rest when it is released.
type halfConn struct {
	net.Conn
	sent    int
	release chan struct{}
}

func (c *halfConn) Write(p []byte) (int, error) {
	if c.sent > 0 {
		return c.Conn.Write(p)
	}
	n, err := c.Conn.Write(p[:20])
	c.sent = n
	if err != nil {
		return n, err
	}
	<-c.release
	m, err := c.Conn.Write(p[20:])
	return n + m, err
}

// TestWaitersAtDrain: with on_limit wait, a connection that waits in the kernel for room is served at a drain.
func TestWaitersAtDrain(t *testing.T) {
	t.Parallel()
	s := start(t, false, mux.Configure(func(c *mux.Config) {
		c.Limits.MaxConnections = 1
		c.Limits.OnLimit = pool.Wait
	}))
	first := s.dial(t)
	send(t, first, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
	eventually(t, "busy", func() bool { return s.active("http1") == 1 })
	second := s.dial(t)
	send(t, second, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
	time.Sleep(50 * time.Millisecond)
	done := s.drain(t.Context())
	resp, err := http.ReadResponse(bufio.NewReader(second), nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("who waited for room: %v, %v", resp, err)
	}
	_ = second.Close()
	if got := <-done; got.err != nil {
		t.Error(got.err)
	}
}

// TestSpreadBeyondTimeout: a spread that the timeout leaves no room for is made to fit: everybody is told, and what is idle is not cut.
func TestSpreadBeyondTimeout(t *testing.T) {
	t.Parallel()
	s := start(t, false, mux.Configure(func(c *mux.Config) {
		c.Drain.Spread = time.Hour
		c.Drain.Timeout = 2 * time.Second
	}))
	const each = 5
	var closed atomic.Int64
	var wg sync.WaitGroup
	for range each {
		conn := s.dial(t)
		_ = roundTrip(t, conn, bufio.NewReader(conn), "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").Body.Close()
		ws := s.webSocket(t)
		wg.Go(func() {
			_, _, err := ws.Read(t.Context())
			if websocket.CloseStatus(err) == websocket.StatusGoingAway {
				closed.Add(1)
			}
		})
	}
	got := <-s.drain(t.Context())
	wg.Wait()
	if n := closed.Load(); n != each {
		t.Errorf("%d of %d WebSockets were told 1001", n, each)
	}
	if got.report.ForcedTotal() != 0 {
		t.Errorf("forced %v: %v", got.report.Forced, got.err)
	}
}

// TestHealthPerService: gRPC's health service knows each service by its name.
func TestHealthPerService(t *testing.T) {
	s := start(t, false)
	health := healthpb.NewHealthClient(s.grpcClient(t))
	for _, name := range []string{"", testpb.TestService_ServiceDesc.ServiceName} {
		h, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
		if err != nil || h.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%q: %v, %v", name, h.GetStatus(), err)
		}
	}
}

// TestLateIdleEndsAtDrain: a kept-alive connection whose response began before its client was told, and ended after, is
// idle then. It does not hold the drain up.
func TestLateIdleEndsAtDrain(t *testing.T) {
	t.Parallel()
	begun, end := make(chan struct{}), make(chan struct{})
	s := start(t, false, mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "part")
		_ = http.NewResponseController(w).Flush()
		close(begun)
		<-end
	})), mux.Configure(func(c *mux.Config) { c.Drain.Timeout = 8 * time.Second }))
	conn := s.dial(t)
	resp := roundTrip(t, conn, bufio.NewReader(conn), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	within(t, "begun", begun)
	told, done := s.told(t), s.drain(t.Context())
	within(t, "told", told)
	time.Sleep(300 * time.Millisecond)
	began := time.Now()
	close(end)
	_, _ = io.Copy(io.Discard, resp.Body)
	got := <-done
	if took := time.Since(began); took > 2*time.Second || got.err != nil {
		t.Errorf("the drain waited %v for an idle connection: %v", took, got.err)
	}
}
