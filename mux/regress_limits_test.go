package mux_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/soheilhy/cmux"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
)

// TestWaitOnTwoListeners: back-pressure refuses nobody, however many listeners there are.
func TestWaitOnTwoListeners(t *testing.T) {
	t.Parallel()
	ports := startOn(t, false, []listeners.Config{{}, {}}, limits(func(c *mux.Config) {
		c.Limits.MaxConnections = 1
		c.Limits.OnLimit = pool.Wait
	}))
	time.Sleep(100 * time.Millisecond) // Both wait in Accept.
	first := ports[0].hold(t)
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

// TestRefusedAreNotServed: connections that are being refused take no place from those that could be served.
func TestRefusedAreNotServed(t *testing.T) {
	s := start(t, false, limits(func(c *mux.Config) { c.Limits.MaxConnections = 3 }))
	var open []net.Conn
	for range 3 {
		open = append(open, s.hold(t))
	}
	// A few clients too many try again every 200 ms, and leave their connections open.
	attempt := func() int {
		conn := s.dial(t)
		return roundTrip(t, conn, bufio.NewReader(conn), "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n").StatusCode
	}
	for range 4 {
		if got := attempt(); got != http.StatusServiceUnavailable {
			t.Fatalf("one too many: %d", got)
		}
	}
	for _, conn := range open {
		_ = conn.Close()
	}
	eventually(t, "all places are free", func() bool { return s.active("http1") == 0 })
	for i := range 20 {
		if attempt() == http.StatusOK {
			t.Logf("served at attempt %d", i)
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	t.Errorf("4 s after the last connection was closed, everybody is still refused: pools %v, limit 3", s.counts())
}

func (s *server) counts() map[string]int64 {
	counts := make(map[string]int64)
	for tag, p := range s.Stats().Pools {
		if p.Active > 0 {
			counts[tag] = p.Active
		}
	}
	return counts
}

// TestLimitSetTwice: the same limit set twice closes no more than is too many.
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

// TestForeignWebSocketLimit: a full pool of WebSockets refuses handshakes also where the embedder's own
// library answers them, as all but coder/websocket do.
func TestForeignWebSocketLimit(t *testing.T) {
	s := start(t, false, limits(func(c *mux.Config) { c.WebSocket.MaxConnections = 1 }),
		mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			_, _ = io.Copy(io.Discard, conn)
		})))
	for i := range 3 {
		conn := s.dial(t)
		resp := roundTrip(t, conn, bufio.NewReader(conn), handshake)
		if i > 0 && resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("handshake %d with a limit of 1: %s; pools %v", i+1, resp.Status, s.counts())
		}
	}
}

// TestObserverAtClose: an observer may ask the server, also when the drain drops what a custom listener has queued.
func TestObserverAtClose(t *testing.T) {
	t.Parallel()
	m := mux.New(mux.Configure(noDelay), mux.WithLogger(discard))
	m.Match("ssh", cmux.PrefixMatcher("SSH-2.0-")) // Nobody accepts.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = m.Serve(l) }()
	m.Observe(func(e mux.Event) {
		if e.Kind == mux.EventRemoved {
			_ = m.Stats()
		}
	})
	s := &server{Server: m, addr: l.Addr().String()}
	conn := s.dial(t)
	send(t, conn, "SSH-2.0-x\r\n")
	eventually(t, "queued", func() bool { return m.Stats().Pools["ssh"].Active == 1 })
	done := make(chan error, 1)
	go func() { done <- m.Shutdown(t.Context()) }()
	select {
	case err := <-done:
		t.Log(err)
	case <-time.After(10 * time.Second):
		t.Fatal("the drain hangs: the observer is called under the server's lock")
	}
}

// TestNames: names that mean something else cannot be those of custom protocols.
func TestNames(t *testing.T) {
	for _, name := range []string{"total", "refused"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q was taken", name)
				}
			}()
			mux.New(mux.WithLogger(discard)).Match(name, cmux.Any())
		}()
	}
}
