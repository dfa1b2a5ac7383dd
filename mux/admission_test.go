package mux_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
)

// TestHTTP1Limit: a connection above the limit gets 503 with Retry-After. After a close,
// the next connection is served.
func TestHTTP1Limit(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		first := s.busy(t)
		conn := s.dial(t)
		resp := roundTrip(t, conn, bufio.NewReader(conn), "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
		if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !resp.Close {
			t.Errorf("refused with %s %v", resp.Status, resp.Header)
		}
		if got := s.rejected("http1", "limit"); got != 1 {
			t.Errorf("%d rejected, want 1", got)
		}
		if resp, err := s.client(t, 2).Get(s.scheme() + "://" + s.addr + "/echo"); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("HTTP/2 beside it: %v, %v", resp, err)
		}
		_ = first.Close()
		eventually(t, "place free", func() bool { return s.active("http1") == 0 })
		s.hold(t)
	}, limits(func(c *mux.Config) { c.HTTP1.MaxConnections = 1 }))
}

// TestHTTP2Limit: each request on a connection above the limit gets 503, until GOAWAY.
func TestHTTP2Limit(t *testing.T) {
	t.Parallel()
	bothForms(t, func(t *testing.T, s *server) {
		url := s.scheme() + "://" + s.addr + "/echo"
		resp, err := s.client(t, 2).Get(s.scheme() + "://" + s.addr + "/busy")
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("the first: %v, %v", resp, err)
		}
		defer resp.Body.Close()
		refused, began := s.client(t, 2), time.Now()
		for range 3 {
			resp, err := refused.Get(url)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
				t.Errorf("refused with %s %v", resp.Status, resp.Header)
			}
		}
		// A connection that is refused lasts a second.
		if got := s.rejected("http2", "limit"); got != 1 && time.Since(began) < time.Second {
			t.Errorf("%d connections rejected, want 1: the client came back on a new one each time", got)
		}
		eventually(t, "the refused connection is gone", func() bool { return s.active("refused") == 0 })
	}, limits(func(c *mux.Config) { c.HTTP2.MaxConnections = 1 }))
}

// TestGRPCLimit: calls on a connection above the limit fail with UNAVAILABLE, and the
// client does not reconnect in a loop.
func TestGRPCLimit(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		_, echo := s.echoCall(t)
		echo("the first is busy")
		second := testpb.NewTestServiceClient(s.grpcClient(t))
		const calls = 50
		for range calls {
			if _, err := second.UnaryCall(t.Context(), &testpb.SimpleRequest{}); status.Code(err) != codes.Unavailable {
				t.Errorf("call: %v, want UNAVAILABLE", err)
			}
		}
		if got := s.rejected("grpc", "limit"); got > calls/10 {
			t.Errorf("%d calls made %d connections", calls, got)
		}
	}, limits(func(c *mux.Config) { c.GRPC.MaxConnections = 1 }))
}

// TestTotalLimit: above the total limit, HTTP/1.1 gets 503. A gRPC client that connects
// without a call finds no server and backs off.
func TestTotalLimit(t *testing.T) {
	t.Parallel()
	bothForms(t, func(t *testing.T, s *server) {
		s.busy(t)
		conn := s.dial(t)
		resp := roundTrip(t, conn, bufio.NewReader(conn), "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
		if resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("HTTP/1.1 refused with %s", resp.Status)
		}
		cc := s.grpcClient(t, grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 5 * time.Second}))
		cc.Connect()
		eventually(t, "failed to connect", func() bool { return cc.GetState() == connectivity.TransientFailure })
		_, err := testpb.NewTestServiceClient(cc).UnaryCall(t.Context(), &testpb.SimpleRequest{})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("call: %v", err)
		}
	}, limits(func(c *mux.Config) { c.Limits.MaxConnections = 1 }))
}

// TestTotalLimitHTTP2: above the total limit, an HTTP/2 client also gets an answer if its
// request comes in a later packet than the preface.
func TestTotalLimitHTTP2(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		s.busy(t)
		conn := s.dial(t, "h2")
		c := newH2Client(t, conn, conn)
		time.Sleep(20 * time.Millisecond) // The request comes in a later packet than the preface.
		c.get(1, "/echo")
		if got := c.header(1)[":status"]; got != "503" {
			t.Errorf("status %s", got)
		}
		if got := s.rejected("http2", "limit"); got != 1 {
			t.Errorf("%d rejected, want 1", got)
		}
	}, limits(func(c *mux.Config) { c.Limits.MaxConnections = 1 }))
}

// TestAddressLimit: the limit bounds the connections of one client and leaves other
// clients alone.
func TestAddressLimit(t *testing.T) {
	s := start(t, false, limits(func(c *mux.Config) { c.Limits.PerAddress = 1 }))
	s.busy(t)
	if got := s.status(t, "/echo"); got != http.StatusServiceUnavailable {
		t.Errorf("second connection of a client: %d", got)
	}
	if got := s.rejected("http1", "per_ip_limit"); got != 1 {
		t.Errorf("%d rejected, want 1", got)
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	conn, err := dialer.DialContext(t.Context(), "tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	resp := roundTrip(t, conn, bufio.NewReader(conn), "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp.StatusCode != http.StatusOK {
		t.Errorf("another client: %s", resp.Status)
	}
}

// TestWebSocketLimit: a full WebSocket pool refuses handshakes, on the first request and
// on later ones, and leaves HTTP and gRPC alone. When the limit falls below the number of
// open WebSockets, the server closes the excess with 1013.
func TestWebSocketLimit(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		open := []*websocket.Conn{s.webSocket(t), s.webSocket(t)}
		_, resp, err := websocket.Dial(t.Context(), strings.Replace(s.scheme(), "http", "ws", 1)+"://"+s.addr+"/ws",
			&websocket.DialOptions{HTTPClient: s.client(t, 1)})
		if err == nil || resp == nil || resp.StatusCode != http.StatusServiceUnavailable {
			t.Fatalf("third handshake: %v", err)
		}
		later := s.hold(t)
		refused := roundTrip(t, later, bufio.NewReader(later), "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		if refused.StatusCode != http.StatusServiceUnavailable || refused.Header.Get("Retry-After") == "" {
			t.Errorf("handshake on a later request: %s", refused.Status)
		}
		if _, err := testpb.NewTestServiceClient(s.grpcClient(t)).UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
			t.Errorf("gRPC beside it: %v", err)
		}

		s.reload(t, func(c *mux.Config) { c.WebSocket.MaxConnections = 1 })
		codes := make(chan websocket.StatusCode, len(open))
		ctx, cancel := context.WithCancel(t.Context())
		for _, c := range open {
			go func() {
				_, _, err := c.Read(ctx)
				codes <- websocket.CloseStatus(err)
			}()
		}
		if code := <-codes; code != websocket.StatusTryAgainLater {
			t.Errorf("closed with %v, want 1013", code)
		}
		eventually(t, "one left", func() bool { return s.active("websocket") == 1 })
		cancel()
		<-codes
	}, limits(func(c *mux.Config) { c.WebSocket.MaxConnections = 2 }))
}

// TestNewcomersEndNoWebSocket: a WebSocket that takes the place of one that has ended, and whose
// handler has not, is none above the limit, whatever was reloaded before.
func TestNewcomersEndNoWebSocket(t *testing.T) {
	t.Parallel()
	ending, release := make(chan struct{}), make(chan struct{})
	s := start(t, false, limits(func(c *mux.Config) { c.WebSocket.MaxConnections = 2 }), mux.WithWebSocket(
		func(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
			for {
				kind, p, err := c.Read(ctx)
				if err != nil {
					if websocket.CloseStatus(err) == websocket.StatusNormalClosure {
						close(ending)
						<-release
					}
					return err
				}
				if err := c.Write(ctx, kind, p); err != nil {
					return err
				}
			}
		}))
	stays, leaves := s.webSocket(t), s.webSocket(t)
	s.reload(t, func(c *mux.Config) { c.HTTP2.MaxResetsPerMinute++ })
	if err := leaves.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	within(t, "the end of the handler", ending)
	eventually(t, "a free place", func() bool { return s.active("websocket") == 1 })
	for _, c := range []*websocket.Conn{s.webSocket(t), stays} {
		if err := c.Write(t.Context(), websocket.MessageText, []byte("here")); err != nil {
			t.Error(err)
		}
		if _, p, err := c.Read(t.Context()); err != nil || string(p) != "here" {
			t.Errorf("%q, %v", p, err)
		}
	}
	close(release)
}

// TestWaitAtLimit: with on_limit wait, a connection above the limit waits in the kernel's
// queue until there is room.
func TestWaitAtLimit(t *testing.T) {
	s := start(t, false, limits(func(c *mux.Config) {
		c.Limits.MaxConnections = 1
		c.Limits.OnLimit = pool.Wait
	}))
	first := s.busy(t)
	waiting := s.dial(t)
	send(t, waiting, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
	_ = waiting.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	var timeout net.Error
	if _, err := waiting.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("a connection too many: %v", err)
	}
	_ = first.Close()
	_ = waiting.SetReadDeadline(time.Now().Add(20 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(waiting), nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("after a close: %v, %v", resp, err)
	}
}

// TestWaitForFarClient: with on_limit wait, a client that is quiet for as long as its round
// trip takes keeps its place while others wait for one.
func TestWaitForFarClient(t *testing.T) {
	t.Parallel()
	s := start(t, false, limits(func(c *mux.Config) {
		c.Limits.MaxConnections = 1
		c.Limits.OnLimit = pool.Wait
	}))
	s.SetPatience(0, time.Hour)
	far := s.dial(t)
	eventually(t, "it has a place", func() bool { return s.Stats().Pools["sniffing"].Accepted == 1 })
	waiting := s.dial(t)
	send(t, waiting, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
	time.Sleep(time.Second) // Until a connection that waits has looked for room.
	if resp := roundTrip(t, far, bufio.NewReader(far), "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); resp.StatusCode != http.StatusOK {
		t.Errorf("the far client: %s", resp.Status)
	}
	if resp := roundTrip(t, waiting, bufio.NewReader(waiting), ""); resp.StatusCode != http.StatusOK {
		t.Errorf("the one that waits: %s", resp.Status)
	}
}

// TestWaitOnTwoListeners: with on_limit wait, a second listener does not refuse
// connections either.
func TestWaitOnTwoListeners(t *testing.T) {
	t.Parallel()
	ports := startOn(t, false, []listeners.Config{{}, {}}, limits(func(c *mux.Config) {
		c.Limits.MaxConnections = 1
		c.Limits.OnLimit = pool.Wait
	}))
	time.Sleep(100 * time.Millisecond) // Both wait in Accept.
	first := ports[0].busy(t)
	waiting := ports[1].dial(t)
	send(t, waiting, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
	r := bufio.NewReader(waiting)
	_ = waiting.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	var timeout net.Error
	if resp, err := http.ReadResponse(r, nil); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("a connection too many does not wait: %v, %v; rejected %v", resp, err, ports[0].Stats().Rejected)
	}
	_ = first.Close()
}

// TestRefusedAreNotServed: a connection that is being refused takes no place. A client
// that retries every 200 ms is served as soon as there is room.
func TestRefusedAreNotServed(t *testing.T) {
	const room = 3
	for name, edit := range map[string]func(*mux.Config){
		"total":       func(c *mux.Config) { c.Limits.MaxConnections = room },
		"per address": func(c *mux.Config) { c.Limits.PerAddress = room },
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, false, limits(edit))
			var open []net.Conn
			for range room {
				open = append(open, s.busy(t))
			}
			attempt := func() int {
				conn := s.dial(t) // It stays open.
				return roundTrip(t, conn, bufio.NewReader(conn), "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n").StatusCode
			}
			for range room + 1 {
				if got := attempt(); got != http.StatusServiceUnavailable {
					t.Fatalf("one too many: %d", got)
				}
			}
			for _, conn := range open {
				_ = conn.Close()
			}
			eventually(t, "all places are free", func() bool { return s.active("http1") == 0 })
			for range 20 {
				if attempt() == http.StatusOK {
					return
				}
				time.Sleep(200 * time.Millisecond)
			}
			t.Errorf("4 s after the last connection was closed, clients are still refused: pools %v, limit %d", s.counts(), room)
		})
	}
}

// TestRefusedLeave: an HTTP/2 client that a limit keeps out, and that does not open its window
// for the answer, is closed, and can send no more than the least window.
func TestRefusedLeave(t *testing.T) {
	t.Parallel()
	for name, isTLS := range map[string]bool{"h2c": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, isTLS, limits(func(c *mux.Config) { c.Limits.MaxConnections = 1 }))
			s.busy(t)
			conn := s.dial(t, "h2")
			c := newH2Client(t, conn, conn, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			c.get(1, "/x")
			if got := c.header(1)[":status"]; got != "503" {
				t.Fatalf("status %q", got)
			}
			c.sync()
			if c.window != 65535 {
				t.Errorf("the client may send %d bytes", c.window)
			}
			if s.active("refused") != 1 {
				t.Fatal(s.counts())
			}
			if code := c.goneAway(); code != http2.ErrCodeNo {
				t.Errorf("GOAWAY %v", code)
			}
			eventually(t, "nothing is left of it", func() bool { return s.active("refused") == 0 })
		})
	}
}

// TestLimitSetTwice: setting the same limit again closes no further connection.
func TestLimitSetTwice(t *testing.T) {
	t.Parallel()
	s := start(t, false)
	codes := make(chan websocket.StatusCode, 10)
	var open []*websocket.Conn
	for range 10 {
		open = append(open, s.webSocket(t))
	}
	for i := range 3 {
		s.reload(t, func(c *mux.Config) { c.WebSocket.MaxConnections, c.Limits.PerAddress = 5, 100+i })
	}
	for _, c := range open {
		go func() {
			_, _, err := c.Read(t.Context())
			codes <- websocket.CloseStatus(err)
		}()
	}
	time.Sleep(500 * time.Millisecond)
	if got := s.active("websocket"); got != 5 {
		t.Errorf("%d WebSockets are left, want 5", got)
	}
	for _, c := range open {
		_ = c.CloseNow()
	}
	for range open {
		<-codes
	}
}

// TestForeignWebSocketLimit: a full WebSocket pool also refuses handshakes of a WebSocket
// library other than coder/websocket.
func TestForeignWebSocketLimit(t *testing.T) {
	s := start(t, false, limits(func(c *mux.Config) { c.WebSocket.MaxConnections = 1 }),
		mux.WithHandler(switching(t, "websocket", func(_ net.Conn, r io.Reader) { _, _ = io.Copy(io.Discard, r) })))
	for i := range 3 {
		conn := s.dial(t)
		resp := roundTrip(t, conn, bufio.NewReader(conn), handshake)
		if i > 0 && resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("handshake %d with a limit of 1: %s; pools %v", i+1, resp.Status, s.counts())
		}
	}
}

// TestWaitersAtDrain: with on_limit wait, a drain serves a connection that waits in the
// kernel's queue.
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
		t.Errorf("the connection that waited for room: %v, %v", resp, err)
	}
	_ = second.Close()
	if got := <-done; got.err != nil {
		t.Error(got.err)
	}
}

// TestReloadBesideWaiters: a connection that waits for a place holds no reload up. It is
// refused where that is the new rule, and clients of servers that were replaced are told.
func TestReloadBesideWaiters(t *testing.T) {
	t.Parallel()
	waiting := limits(func(c *mux.Config) { c.Limits.MaxConnections, c.Limits.OnLimit = 1, pool.Wait })
	t.Run("refuse", func(t *testing.T) {
		s := start(t, false, waiting)
		s.busy(t)
		var conns []net.Conn
		for range 3 {
			conn := s.dial(t)
			send(t, conn, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
			conns = append(conns, conn)
		}
		eventually(t, "one waits", func() bool { return s.Waits() })
		s.reload(t, func(c *mux.Config) { c.Limits.OnLimit = pool.Refuse })
		for _, conn := range conns {
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || resp.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("%v, %v", resp, err)
			}
		}
	})
	t.Run("servers", func(t *testing.T) {
		ports := startOn(t, false, make([]listeners.Config, 2), waiting)
		ws := ports[0].webSocket(t)
		for _, port := range ports {
			send(t, port.dial(t), "GET /busy HTTP/1.1\r\nHost: x\r\n\r\n")
		}
		eventually(t, "one waits", func() bool { return ports[0].Waits() })
		ports[0].reload(t, func(c *mux.Config) { c.HTTP2.MaxStreams = 17 })
		if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
			t.Errorf("the WebSocket: %v, want 1001", err)
		}
	})
}
