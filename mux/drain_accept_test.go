package mux_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
)

// checkServedAtDrain sends a part of a connection's first bytes, begins the drain, and sends
// the rest when the listener is closed. The request must be served.
func (s *server) checkServedAtDrain(t *testing.T, part, rest string) {
	t.Helper()
	conn := s.dial(t)
	send(t, conn, part)
	eventually(t, "sniffing", func() bool { return s.active("sniffing") == 1 })
	done := s.drain(t.Context())
	s.stopsListening(t)
	resp := roundTrip(t, conn, bufio.NewReader(conn), rest)
	if resp.StatusCode != http.StatusOK {
		t.Errorf("status %s", resp.Status)
	}
	if got := <-done; got.err != nil {
		t.Errorf("drain: %v", got.err)
	}
}

// TestDrainServesUnclassified: a connection in the middle of its first bytes when the
// listener closes is served if the rest comes in time.
func TestDrainServesUnclassified(t *testing.T) {
	t.Parallel()
	start(t, false).checkServedAtDrain(t, "GET /ec", "ho HTTP/1.1\r\nHost: x\r\n\r\n")
}

// TestProxyHeaderAtDrain: a connection in the middle of its PROXY header when the
// listener closes is served.
func TestProxyHeaderAtDrain(t *testing.T) {
	t.Parallel()
	l, err := listeners.NewProxyListener(listen(t), listeners.ProxyConfig{Mode: listeners.ProxyRequired, Trusted: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	s := serveOn(t, mux.New(mux.Configure(noDelay), mux.WithLogger(discard), mux.WithHandler(routes())), l)
	s.checkServedAtDrain(t, "PROXY TCP4 192.0.2.1 ", "192.0.2.2 1 2\r\nGET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
}

// heldConn blocks its server in LocalAddr, which the server calls before it reads, until
// it is released. The first call is the mux's, before it looks at the first bytes.
type heldConn struct {
	net.Conn
	release chan struct{}
	asked   atomic.Bool
}

func (c *heldConn) LocalAddr() net.Addr {
	if c.asked.Swap(true) {
		<-c.release
	}
	return c.Conn.LocalAddr()
}

// TestDrainWaitsForFirstRequest: a drain tells clients to leave only after the first
// request of a connection has reached its server. GOAWAY would refuse it earlier.
func TestDrainWaitsForFirstRequest(t *testing.T) {
	for name, request := range map[string]string{
		"native gRPC": firstCall(t, "grpc-go/1.85.0", 10),
		"HTTP/2":      firstCall(t, "other", 10),
	} {
		t.Run(name, func(t *testing.T) {
			release := make(chan chan struct{}, 1)
			hold := func(m *mux.Server, l net.Listener) error {
				return m.Serve(wrapListener{l, func(conn net.Conn) net.Conn {
					held := &heldConn{Conn: conn, release: make(chan struct{})}
					release <- held.release
					return held
				}})
			}
			timed(t, func() *mux.Server { return mux.New(mux.Configure(noDelay), mux.WithLogger(discard)) }, hold,
				func(t *testing.T, m *mux.Server, l *pipeListener) {
					s := &server{Server: m}
					conn := l.dial()
					defer conn.Close()
					send(t, conn, request)
					told, done := s.told(t), s.drain(t.Context())
					synctest.Wait()
					select {
					case <-told:
						t.Error("clients were told before the request had come")
					default:
					}
					close(<-release)
					if err := answered(conn); err != nil {
						t.Error(err)
					}
					_ = conn.Close()
					if got := <-done; got.err != nil {
						t.Errorf("drain: %v", got.err)
					}
				})
		})
	}
}

// TestDrainServesBurst: requests that were sent before the drain began are served, at
// whatever stage the drain finds their connections.
func TestDrainServesBurst(t *testing.T) {
	const (
		rounds = 30
		burst  = 40
	)
	for name, request := range map[string]string{
		"native gRPC": firstCall(t, "grpc-go/1.85.0", 10),
		"HTTP/2":      firstCall(t, "other", 10),
	} {
		t.Run(name, func(t *testing.T) {
			for range rounds {
				s := serveOn(t, mux.New(mux.Configure(noDelay), mux.WithLogger(discard)), listen(t))
				if got := s.status(t, "/livez"); got != http.StatusOK {
					t.Fatalf("status %d", got)
				}
				conns := make([]net.Conn, burst)
				for i := range conns {
					conns[i] = s.dial(t)
					send(t, conns[i], request)
				}
				done := s.drain(t.Context())
				for i, conn := range conns {
					if err := answered(conn); err != nil {
						t.Errorf("connection %d: %v", i, err)
					}
					_ = conn.Close()
				}
				if got := <-done; got.err != nil {
					t.Errorf("drain: %v", got.err)
				}
				<-s.served
			}
		})
	}
}

// TestDrainDecidesBesideAccept: a drain hands an undecided HTTP/2 connection to its server,
// which sends GOAWAY, although its listener still has an Accept under way.
func TestDrainDecidesBesideAccept(t *testing.T) {
	port := listen(t)
	defer port.Close()
	conn, err := net.Dial("tcp", port.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	l := &lateListener{release: make(chan struct{})}
	if l.first, err = port.Accept(); err != nil {
		t.Fatal(err)
	}
	l.late, _ = net.Pipe()
	_ = l.late.Close()
	release := sync.OnceFunc(func() { close(l.release) })
	defer release()
	s := serveOn(t, mux.New(mux.Configure(patient), mux.WithLogger(discard)), l)
	c := newH2Client(t, conn, conn)
	eventually(t, "undecided", func() bool {
		conns := s.Connections()
		return len(conns) == 1 && conns[0].BytesSent > 0 // The server's SETTINGS.
	})
	done := s.drain(t.Context())
	eventually(t, "with its server", func() bool { return s.active("http2") == 1 })
	release()
	if code := c.goneAway(); code != http2.ErrCodeNo {
		t.Errorf("GOAWAY with %v", code)
	}
	_ = conn.Close()
	if got := within(t, "the drain", done); got.err != nil {
		t.Errorf("drain: %v", got.err)
	}
}

// TestDrainTellsBesideUndecided: a drain tells the clients that it knows at once, while
// another has not said what it is, and keeps its time. The drain has less time than that.
func TestDrainTellsBesideUndecided(t *testing.T) {
	t.Parallel()
	for name, sniff := range map[string]time.Duration{"a long time": time.Hour, "no bound": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, false, mux.Configure(patient), mux.Configure(func(c *mux.Config) {
				c.Sniff.Timeout, c.Drain.Timeout = sniff, 3*time.Second
			}))
			silent, idle := s.dial(t), s.hold(t)
			ws := s.webSocket(t)
			late := s.dial(t)
			send(t, late, "GET /ec")
			eventually(t, "all accepted", func() bool { return s.active("sniffing") == 2 && s.active("websocket") == 1 })
			done := s.drain(t.Context())
			if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
				t.Errorf("WebSocket ended with %v, want 1001", err)
			}
			if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("idle connection: %v", err)
			}
			select {
			case <-done:
				t.Error("they were told when the time of the others was over")
			default:
			}
			// The one that speaks in time is served and told.
			r := bufio.NewReader(late)
			if resp := roundTrip(t, late, r, "ho HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != http.StatusOK || !resp.Close {
				t.Errorf("the late request: %s, close %v", resp.Status, resp.Close)
			}
			if got := within(t, "the drain", done); got.report.ForcedTotal() != 0 {
				t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
			}
			_ = silent.Close()
		})
	}
}

// TestDrainCountsBegun: a request that the drain cuts within its first bytes counts as
// forced. A connection that has sent nothing does not.
func TestDrainCountsBegun(t *testing.T) {
	t.Parallel()
	for name, withTLS := range map[string]bool{"plaintext": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, withTLS, mux.Configure(patient), mux.Configure(func(c *mux.Config) {
				c.Sniff.Timeout, c.Drain.StepTimeout = time.Hour, 400*time.Millisecond
			}))
			silent, begun := s.dial(t), s.dial(t)
			const length = 8000 // It is more than a handshake takes.
			send(t, begun, "GET /"+strings.Repeat("e", length))
			eventually(t, "accepted", func() bool {
				return slices.ContainsFunc(s.Connections(), func(c mux.ConnInfo) bool { return c.BytesReceived > length })
			})
			got := within(t, "the drain", s.drain(t.Context()))
			if diff := cmp.Diff(map[string]int{"sniffing": 1}, got.report.Forced); diff != "" || !errors.Is(got.err, mux.ErrForced) {
				t.Errorf("%v, forced (-want +got):\n%s", got.err, diff)
			}
			_ = silent.Close()
		})
	}
}

// TestDrainRemainsBegun: it is among those that remain where the drain's time ends first.
func TestDrainRemainsBegun(t *testing.T) {
	t.Parallel()
	s := waiting(t, "GET /ec", false, func(c *mux.Config) { c.Drain.Timeout = 300 * time.Millisecond })
	got := within(t, "the drain", s.drain(t.Context()))
	remaining := make(map[string]int)
	for _, step := range got.report.Steps {
		if step.Name == mux.StepStopAccepting {
			remaining = step.Remaining
		}
	}
	want := map[string]int{"sniffing": 1}
	if diff := cmp.Diff([]map[string]int{want, want}, []map[string]int{remaining, got.report.Forced}); diff != "" {
		t.Errorf("%v; remaining and forced (-want +got):\n%s", got.err, diff)
	}
}

// TestDrainCutsStalledHandshake: a client that stalls in its TLS handshake has the sniff
// timeout. Cutting it then does not fail the drain.
func TestDrainCutsStalledHandshake(t *testing.T) {
	s := waiting(t, "\x16\x03\x01", true, func(c *mux.Config) { c.Sniff.Timeout = 100 * time.Millisecond })
	if got := within(t, "the drain", s.drain(t.Context())); got.err != nil || got.report.ForcedTotal() != 0 {
		t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
	}
	want := map[string]map[string]uint64{"sniffing": {"draining": 1}}
	if diff := cmp.Diff(want, s.Stats().Rejected); diff != "" {
		t.Errorf("rejected (-want +got):\n%s", diff)
	}
}

// queued returns a server with n connections in the kernel's queue, each of which has
// sent text. open lets the server accept them.
func queued(t *testing.T, m *mux.Server, n int, text string) (conns []net.Conn, s *running, open func()) {
	t.Helper()
	gate := &gatedListener{TCPListener: listen(t).(*net.TCPListener), open: make(chan struct{})}
	s = serveOn(t, m, gate)
	eventually(t, "serving", func() bool { return s.Phase() == "serving" })
	for range n {
		conn := s.dial(t)
		send(t, conn, text)
		conns = append(conns, conn)
	}
	return conns, s, sync.OnceFunc(func() { close(gate.open) })
}

// TestWebSocketQueuedAtDrain: a WebSocket handshake in the kernel's queue when the
// listener closes is served, and the client gets 1001.
func TestWebSocketQueuedAtDrain(t *testing.T) {
	m := mux.New(mux.Configure(noDelay), mux.WithHandler(routes()), mux.WithLogger(discard))
	conns, s, open := queued(t, m, 50, handshake)
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

// TestHandshakeAtDrain: a TLS handshake in progress when the listener closes is finished,
// and its request served.
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
	s.stopsListening(t)
	close(slow.release)
	if err := within(t, "the answer", answer); err != nil {
		t.Error(err)
	}
	if got := <-done; got.err != nil {
		t.Errorf("drain: %v", got.err)
	}
}

// halfConn sends the first 20 bytes, and the rest on release.
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

// TestDrainIsNotComeBackTo: no client that is told to leave comes back to the listener that
// it was told to leave. It would be told again at once, and come back again.
func TestDrainIsNotComeBackTo(t *testing.T) {
	t.Parallel()
	const clients = 100
	s := start(t, false, mux.Configure(func(c *mux.Config) {
		noDelay(c)
		c.Drain.Spread = 200 * time.Millisecond // The first are told before a listener can close.
	}))
	for range clients {
		// These connect again as soon as they are told.
		cc := s.grpcClient(t, grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`))
		if _, err := testpb.NewTestServiceClient(cc).UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-s.drain(t.Context()); got.err != nil {
		t.Errorf("drain: %v", got.err)
	}
	if got := s.Stats().Pools["sniffing"].Accepted; got != clients {
		t.Errorf("%d connections of %d clients", got, clients)
	}
}
