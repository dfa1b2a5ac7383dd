package mux_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

// These tests have a WebSocket that is in a long message to a slow client.
const (
	longMessage = 3 << 20
	// deepMessage is more than the kernel takes in.
	deepMessage = 8 << 20
)

// shallow is a listener whose sockets take in little of what is written.
func shallow(l net.Listener) net.Listener {
	return wrapListener{l, func(conn net.Conn) net.Conn {
		_ = conn.(*net.TCPConn).SetWriteBuffer(64 << 10)
		return conn
	}}
}

// startShallow is start on such a listener.
func startShallow(t *testing.T, withTLS bool, options ...mux.Option) *server {
	t.Helper()
	m, roots := newServer(t, withTLS, options...)
	s := serveOn(t, m, shallow(listen(t))).server
	s.roots = roots
	return s
}

// slowClient reads WebSocket frames slowly, and answers pings and close frames.
type slowClient struct {
	conn  net.Conn
	r     *bufio.Reader
	pause time.Duration // before each 64 KB
}

// Read implements [io.Reader].
func (c *slowClient) Read(p []byte) (int, error) {
	time.Sleep(c.pause)
	return c.conn.Read(p[:min(len(p), 64<<10)])
}

// outcome is what a client has seen.
type outcome struct {
	Bytes int // of messages
	Code  int // of the close frame; 0 without one
}

// dialSlowly opens a WebSocket at /ws whose client has little room. config is nil for
// plaintext.
func dialSlowly(t *testing.T, addr string, config *tls.Config, pause time.Duration) *slowClient {
	t.Helper()
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		return errors.Join(raw.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 64<<10)
		}), err)
	}}
	conn, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if config != nil {
		conn = tls.Client(conn, config)
	}
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	c := &slowClient{conn: conn}
	c.r = bufio.NewReaderSize(c, 64<<10)
	if resp := roundTrip(t, conn, c.r, handshake); resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("status %s", resp.Status)
	}
	c.pause = pause
	return c
}

// take reads until the connection ends.
func (c *slowClient) take() (seen outcome) {
	defer c.conn.Close()
	for {
		var head [10]byte
		if _, err := io.ReadFull(c.r, head[:2]); err != nil {
			return seen
		}
		n := uint64(head[1])
		var err error
		switch n {
		case 126:
			_, err = io.ReadFull(c.r, head[2:4])
			n = uint64(binary.BigEndian.Uint16(head[2:]))
		case 127:
			_, err = io.ReadFull(c.r, head[2:])
			n = binary.BigEndian.Uint64(head[2:])
		}
		if err != nil {
			return seen
		}
		if head[0]&8 == 0 {
			taken, err := io.CopyN(io.Discard, c.r, int64(n))
			if seen.Bytes += int(taken); err != nil {
				return seen
			}
			continue
		}
		payload := make([]byte, n)
		if _, err := io.ReadFull(c.r, payload); err != nil {
			return seen
		}
		switch head[0] & 15 {
		case opPing:
			_, _ = c.conn.Write(clientFrame(true, opPong, payload))
		case opClose:
			seen.Code = int(binary.BigEndian.Uint16(payload))
			_, _ = c.conn.Write(clientFrame(true, opClose, payload[:2]))
			return seen
		}
	}
}

const (
	opPing = 9
	opPong = 10
)

// The handlers send longMessage while another goroutine reads, and return.
var longMessageHandlers = map[string]mux.WebSocketHandler{
	"CloseRead": closeReader(longMessage),
	"two goroutines": func(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
		go discardMessages(ctx, c)
		return c.Write(ctx, websocket.MessageBinary, make([]byte, longMessage))
	},
	"fragments": func(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
		go discardMessages(ctx, c)
		w, err := c.Writer(ctx, websocket.MessageBinary)
		if err != nil {
			return err
		}
		for range longMessage >> 20 {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return err
			}
		}
		return w.Close()
	},
	"many messages": func(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
		go discardMessages(ctx, c)
		for range longMessage >> 15 {
			if err := c.Write(ctx, websocket.MessageBinary, make([]byte, 1<<15)); err != nil {
				return err
			}
		}
		return nil
	},
}

// closeReader returns a handler that sends a message behind CloseRead.
func closeReader(size int) mux.WebSocketHandler {
	return func(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
		return c.Write(c.CloseRead(ctx), websocket.MessageBinary, make([]byte, size))
	}
}

func discardMessages(ctx context.Context, c *websocket.Conn) {
	for {
		if _, _, err := c.Read(ctx); err != nil {
			return
		}
	}
}

// plainWebSocket serves h with net/http and coder/websocket alone.
func plainWebSocket(t *testing.T, l net.Listener, h mux.WebSocketHandler) (addr string) {
	t.Helper()
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		if h(r.Context(), c, r) == nil {
			_ = c.Close(websocket.StatusNormalClosure, "")
		}
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return l.Addr().String()
}

// expectWhole reads until the end, which must come with code behind all of the message.
func (c *slowClient) expectWhole(t *testing.T, size int, code websocket.StatusCode) {
	t.Helper()
	if diff := cmp.Diff(outcome{size, int(code)}, c.take()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestLongMessage: a message to a slow client takes longer than a client has to answer a
// ping. It arrives whole, as without the mux, while another goroutine reads and pings are
// due.
func TestLongMessage(t *testing.T) {
	t.Parallel()
	pings := mux.Configure(func(c *mux.Config) {
		c.WebSocket.PingInterval, c.WebSocket.PongTimeout = 50*time.Millisecond, 500*time.Millisecond
	})
	const pause = 25 * time.Millisecond
	for name, h := range longMessageHandlers {
		t.Run(name+"/coder", func(t *testing.T) {
			t.Parallel()
			addr := plainWebSocket(t, shallow(listen(t)), h)
			dialSlowly(t, addr, nil, pause).expectWhole(t, longMessage, websocket.StatusNormalClosure)
		})
		t.Run(name+"/plaintext", func(t *testing.T) {
			t.Parallel()
			s := startShallow(t, false, pings, mux.WithWebSocket(h))
			dialSlowly(t, s.addr, nil, pause).expectWhole(t, longMessage, websocket.StatusNormalClosure)
		})
		t.Run(name+"/TLS", func(t *testing.T) {
			t.Parallel()
			s := startShallow(t, true, pings, mux.WithWebSocket(h))
			config := &tls.Config{RootCAs: s.roots, ServerName: "server.test"}
			dialSlowly(t, s.addr, config, pause/4).expectWhole(t, longMessage, websocket.StatusNormalClosure)
		})
	}
	// Here the ping waits in the kernel's queue.
	t.Run("deep queue", func(t *testing.T) {
		t.Parallel()
		s := start(t, false, pings, mux.WithWebSocket(closeReader(deepMessage)))
		dialSlowly(t, s.addr, nil, pause).expectWhole(t, deepMessage, websocket.StatusNormalClosure)
	})
}

// untilTold sends a message and waits to be told to leave. With reading, another goroutine
// reads.
func untilTold(size int, reading bool) mux.WebSocketHandler {
	return func(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
		if reading {
			go discardMessages(ctx, c)
		}
		if err := c.Write(ctx, websocket.MessageBinary, make([]byte, size)); err != nil {
			return err
		}
		if reading {
			<-ctx.Done()
			return ctx.Err()
		}
		_, _, err := c.Read(ctx)
		return err
	}
}

// TestLeaveBehindMessage: a WebSocket that is told to leave within a long message gets 1001
// behind it, however long that takes, and as long to answer. coder/websocket's Close waits
// 5 s for each.
func TestLeaveBehindMessage(t *testing.T) {
	t.Parallel()
	// 3 MB take 5 s, and so does each half of a deep message: the one that is written when
	// it is told, and the one that the kernel has taken in.
	const pause, deepPause = 110 * time.Millisecond, 80 * time.Millisecond
	drain := func(t *testing.T, s *server) {
		done := s.drain(context.WithoutCancel(t.Context()))
		t.Cleanup(func() {
			if got := <-done; got.err != nil || got.report.ForcedTotal() != 0 {
				t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
			}
			if closed := s.Stats().Closed["websocket"]; closed["drain"] != 1 {
				t.Errorf("closed %v", closed)
			}
		})
	}
	for name, test := range map[string]struct {
		size    int
		reading bool
		start   func(t *testing.T, withTLS bool, options ...mux.Option) *server
		age     time.Duration
		clients int
		tell    func(t *testing.T, s *server)
		code    websocket.StatusCode
	}{
		"drain":               {longMessage, false, startShallow, 0, 1, drain, websocket.StatusGoingAway},
		"drain, reading":      {longMessage, true, startShallow, 0, 1, drain, websocket.StatusGoingAway},
		"drain, a deep queue": {deepMessage, true, start, 0, 1, drain, websocket.StatusGoingAway},
		"max_age":             {longMessage, true, startShallow, 500 * time.Millisecond, 1, func(*testing.T, *server) {}, websocket.StatusGoingAway},
		"a lower limit": {longMessage, true, startShallow, 0, 2, func(t *testing.T, s *server) {
			lower := s.Config()
			lower.WebSocket.MaxConnections = 1
			if _, err := s.Reload(lower, "test"); err != nil {
				t.Error(err)
			}
		}, websocket.StatusTryAgainLater},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := test.start(t, false, mux.WithWebSocket(untilTold(test.size, test.reading)),
				mux.Configure(func(c *mux.Config) { c.WebSocket.MaxAge = test.age }))
			seen := make(chan outcome, 2)
			for range test.clients {
				c := dialSlowly(t, s.addr, nil, map[bool]time.Duration{false: pause, true: deepPause}[test.size == deepMessage])
				if _, err := c.r.Peek(1); err != nil { // The message has begun.
					t.Fatal(err)
				}
				go func() { seen <- c.take() }()
			}
			test.tell(t, s)
			got := <-seen // The handler of a client that is not told does not end.
			if diff := cmp.Diff(outcome{test.size, int(test.code)}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestDrainCutsLongMessage: at the drain's timeout a message under way is cut, without a
// close frame, and counted.
func TestDrainCutsLongMessage(t *testing.T) {
	t.Parallel()
	s := startShallow(t, false, mux.WithWebSocket(longMessageHandlers["two goroutines"]),
		mux.Configure(func(c *mux.Config) { c.Drain.Timeout = 300 * time.Millisecond }))
	c := dialSlowly(t, s.addr, nil, 60*time.Millisecond)
	if _, err := c.r.Peek(1); err != nil {
		t.Fatal(err)
	}
	seen := make(chan outcome, 1)
	go func() { seen <- c.take() }()
	got := within(t, "the drain", s.drain(t.Context()))
	if diff := cmp.Diff(map[string]int{"websocket": 1}, got.report.Forced); diff != "" || !errors.Is(got.err, lifecycle.ErrForced) {
		t.Errorf("%v, forced (-want +got):\n%s", got.err, diff)
	}
	if seen := <-seen; seen.Code != 0 || seen.Bytes == 0 || seen.Bytes >= longMessage {
		t.Errorf("the client got %+v", seen)
	}
}

// TestWebSocketIdle is websocket.idle_timeout: a WebSocket that exchanges no message is
// closed with 1001, though its client answers pings. One that does, or is in a long
// message, stays. The timeout is reloaded live.
func TestWebSocketIdle(t *testing.T) {
	t.Parallel()
	idle := func(c *mux.Config) {
		c.WebSocket.IdleTimeout = 500 * time.Millisecond
		c.WebSocket.PingInterval = 50 * time.Millisecond
	}
	t.Run("silent", func(t *testing.T) {
		t.Parallel()
		s := start(t, false)
		c := dialSlowly(t, s.addr, nil, 0)
		eventually(t, "open", func() bool { return s.active("websocket") == 1 })
		reloaded := s.Config()
		idle(&reloaded)
		if _, err := s.Reload(reloaded, "test"); err != nil {
			t.Fatal(err)
		}
		c.expectWhole(t, 0, websocket.StatusGoingAway)
		eventually(t, "closed", func() bool { return s.Stats().Closed["websocket"]["idle_timeout"] == 1 })
	})
	t.Run("talking", func(t *testing.T) {
		t.Parallel()
		// A pause of the whole machine is no silence of the client.
		c := start(t, false, mux.Configure(idle), mux.Configure(func(c *mux.Config) { c.WebSocket.IdleTimeout = 2 * time.Second })).webSocket(t)
		for range 30 {
			time.Sleep(100 * time.Millisecond)
			if err := c.Write(t.Context(), websocket.MessageText, []byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, _, err := c.Read(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("in a message", func(t *testing.T) {
		t.Parallel()
		s := startShallow(t, false, mux.Configure(idle), mux.WithWebSocket(closeReader(longMessage)))
		dialSlowly(t, s.addr, nil, 25*time.Millisecond).expectWhole(t, longMessage, websocket.StatusNormalClosure)
	})
}

// TestWebSocketDrainReason: the close reason of a WebSocket that a drain has told is
// "drain", however the client takes it.
func TestWebSocketDrainReason(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*slowClient){
		"answers": func(c *slowClient) { c.take() },
		"closes":  func(c *slowClient) { _ = c.conn.Close() },
		"is mute": func(c *slowClient) { _, _ = io.Copy(io.Discard, c.r) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for first, request := range map[string]string{"first": "", "second": "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"} {
				if request != "" && name == "is mute" {
					continue // It takes coder/websocket's 5 s.
				}
				s := start(t, false)
				conn := s.dial(t)
				c := &slowClient{conn: conn, r: bufio.NewReader(conn)}
				if request != "" {
					_, _ = io.Copy(io.Discard, roundTrip(t, conn, c.r, request).Body)
				}
				roundTrip(t, conn, c.r, handshake)
				eventually(t, "open", func() bool { return s.active("websocket") == 1 })
				done := s.drain(t.Context())
				if _, err := c.r.Peek(1); err != nil {
					t.Error(err)
				}
				leave(c)
				<-done
				if diff := cmp.Diff(map[string]uint64{"drain": 1}, s.Stats().Closed["websocket"]); diff != "" {
					t.Errorf("%s: closed (-want +got):\n%s", first, diff)
				}
			}
		})
	}
}
