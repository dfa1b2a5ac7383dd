package mux_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// TestPipelinedBehindUpgrade (DESIGN §2 point 6): the WebSocket gets the bytes that a
// client pipelines behind its handshake.
func TestPipelinedBehindUpgrade(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		conn := s.dial(t)
		r := bufio.NewReader(conn)
		resp := roundTrip(t, conn, r, handshake+"\x81\x82\x00\x00\x00\x00hi\x81\x82\x00\x00\x00\x00yo")
		if resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("status %s", resp.Status)
		}
		got := make([]byte, 8)
		if _, err := io.ReadFull(r, got); err != nil || string(got) != "\x81\x02hi\x81\x02yo" {
			t.Errorf("echo %q, %v", got, err)
		}
		if st := s.Stats().Pools; st["websocket"].Accepted != 1 || st["http1"].Accepted != 0 {
			t.Errorf("pools %+v", st)
		}
	})
}

// TestWebSocketBehindTold: a WebSocket whose handshake is answered after its client was
// told to leave is closed with 1001.
func TestWebSocketBehindTold(t *testing.T) {
	begun, answer := make(chan struct{}), make(chan struct{})
	ws := mux.WebSocket(echoWebSocket)
	s := start(t, false, mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-answer // It looks up the client's session, say.
		ws.ServeHTTP(w, r)
	})))
	conn := s.dial(t)
	send(t, conn, handshake)
	within(t, "begun", begun)
	told, done := s.told(t), s.drain(t.Context())
	within(t, "told", told)
	time.Sleep(100 * time.Millisecond) // The last look at connections that are late.
	close(answer)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %v, %v", resp, err)
	}
	if frame, err := r.Peek(4); err != nil || string(frame[2:]) != "\x03\xe9" {
		t.Errorf("%x, %v: want a close frame with 1001", frame, err)
	}
	_ = conn.Close()
	if got := within(t, "the drain", done); got.err != nil || got.report.ForcedTotal() != 0 {
		t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
	}
}

// TestDrainOfAgedWebSocket: a drain tells a WebSocket with 1001 whose connection had
// reached http1.max_age, and so was told, before the handshake was answered.
func TestDrainOfAgedWebSocket(t *testing.T) {
	ws := mux.WebSocket(echoWebSocket)
	s := start(t, false, aged(50*time.Millisecond, time.Hour), mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := mux.ConnOf(r.Context())
		<-c.Draining().Done() // It has reached its age.
		ws.ServeHTTP(w, r)
	})))
	conn := s.dial(t)
	r := bufio.NewReader(conn)
	if resp := roundTrip(t, conn, r, handshake); resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("status %s", resp.Status)
	}
	done := s.drain(t.Context())
	if frame, err := r.Peek(4); err != nil || string(frame[2:]) != "\x03\xe9" {
		t.Errorf("%x, %v: want a close frame with 1001", frame, err)
	}
	_ = conn.Close()
	if got := within(t, "the drain", done); got.err != nil || got.report.ForcedTotal() != 0 {
		t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
	}
}

// TestWebSocketBehindAge: a WebSocket whose handshake is answered after its connection has
// reached the age of HTTP/1.1 stays open. WebSockets have an age of their own.
func TestWebSocketBehindAge(t *testing.T) {
	ws := mux.WebSocket(echoWebSocket)
	s := start(t, false, mux.Configure(func(c *mux.Config) { c.HTTP1.MaxAge, c.HTTP1.MaxAgeGrace = 20*time.Millisecond, time.Hour }),
		mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, _ := mux.ConnOf(r.Context())
			<-c.Draining().Done()
			ws.ServeHTTP(w, r)
		})))
	conn := s.dial(t)
	send(t, conn, handshake)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %v, %v", resp, err)
	}
	send(t, conn, "\x81\x82\x00\x00\x00\x00hi"+"\x88\x82\x00\x00\x00\x00\x03\xe8")
	const want = "\x81\x02hi" + "\x88\x02\x03\xe8" // The echo, and an answer to the client's close.
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Errorf("%q, %v: want %q", got, err, want)
	}
	_ = conn.Close()
}

// TestWebSocketAsSecondRequest: any request of a connection can be a handshake. A refused
// handshake leaves the connection open.
func TestWebSocketAsSecondRequest(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		conn := s.dial(t)
		r := bufio.NewReader(conn)
		const upgrade = "Host: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
		steps := []struct {
			request, pool string
			status        int
		}{
			{"GET /nowhere HTTP/1.1\r\n" + upgrade, "http1", 404},
			{"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n", "http1", 200},
			{"GET /ws HTTP/1.1\r\n" + upgrade, "websocket", 101},
		}
		for _, step := range steps {
			resp := roundTrip(t, conn, r, step.request)
			_, _ = io.Copy(io.Discard, resp.Body)
			if resp.StatusCode != step.status {
				t.Fatalf("%q: %s, want %d", step.request, resp.Status, step.status)
			}
			eventually(t, "connection in pool "+step.pool, func() bool { return s.Stats().Pools[step.pool].Active == 1 })
		}
		// A masked text frame "hi" and its echo.
		if _, err := conn.Write([]byte{0x81, 0x82, 0, 0, 0, 0, 'h', 'i'}); err != nil {
			t.Fatal(err)
		}
		frame := make([]byte, 4)
		if _, err := io.ReadFull(r, frame); err != nil || string(frame) != "\x81\x02hi" {
			t.Fatalf("echo frame %q, %v", frame, err)
		}
	})
}

// TestHijackedQuiet: the progress timeout does not end a hijacked connection, even if its
// handler serves it without returning, as httputil.ReverseProxy does.
func TestHijackedQuiet(t *testing.T) {
	t.Parallel()
	handler := switching(t, "echo", func(conn net.Conn, r io.Reader) { _, _ = io.Copy(conn, r) })
	for name, request := range map[string]string{
		"echo":                    "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
		"CONNECT":                 "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
		"WebSocket as the second": "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" + handshake,
		"WebSocket as the first":  handshake,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, false, mux.WithHandler(handler), impatient(protocols.ProgressConfig{ProgressTimeout: 150 * time.Millisecond}))
			conn := s.dial(t)
			r := bufio.NewReader(conn)
			resp := roundTrip(t, conn, r, request)
			if resp.StatusCode == http.StatusOK {
				_, _ = io.Copy(io.Discard, resp.Body)
				if _, err := http.ReadResponse(r, nil); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(600 * time.Millisecond)
			send(t, conn, "still here")
			b := make([]byte, 10)
			if _, err := io.ReadFull(r, b); err != nil {
				t.Errorf("after a silence: %v; closed %v", err, s.Stats().Closed)
			}
		})
	}
}

// TestBusyWebSocketHandler: a client that answers each ping at once is alive, even if its
// answer waits behind a message that the handler takes long to process.
func TestBusyWebSocketHandler(t *testing.T) {
	t.Parallel()
	s := start(t, false, mux.Configure(func(c *mux.Config) {
		c.WebSocket.PingInterval, c.WebSocket.PongTimeout = 200*time.Millisecond, 200*time.Millisecond
	}), mux.WithWebSocket(func(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
		for {
			kind, b, err := c.Read(ctx)
			if err != nil {
				return err
			}
			time.Sleep(time.Second) // It is busy.
			if err := c.Write(ctx, kind, b); err != nil {
				return err
			}
		}
	}))
	events := observe(t, s.Server)
	conn := s.dial(t)
	r := bufio.NewReader(conn)
	if resp := roundTrip(t, conn, r, handshake); resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp.Status)
	}
	head := make([]byte, 2)
	if _, err := io.ReadFull(r, head); err != nil || head[0] != 0x89 {
		t.Fatalf("%x, %v: want a ping", head, err)
	}
	payload := make([]byte, head[1])
	if _, err := io.ReadFull(r, payload); err != nil {
		t.Fatal(err)
	}
	pong := append([]byte{0x8A, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...)
	send(t, conn, "\x81\x82\x00\x00\x00\x00hi"+string(pong))
	_, err := io.ReadFull(r, head)
	if err != nil || head[0] != 0x81 {
		t.Errorf("%x, %v: want the echo; ping timeouts: %d, closed %v", head, err,
			events.count(mux.EventTimeout, protocols.WebSocket, "ping_timeout"), s.Stats().Closed)
	}
}

// TestWebSocketBehindHandlers: a WebSocket is served after its handler has returned, or
// within it where a middleware waits for the end. Statistics and logs are the same, when
// it is over.
func TestWebSocketBehindHandlers(t *testing.T) {
	t.Parallel()
	routed := func(pattern string, h http.Handler) http.Handler {
		m := http.NewServeMux()
		m.Handle(pattern, h)
		return m
	}
	for name, form := range map[string]struct {
		options  func(mux.WebSocketHandler) mux.Option
		detached bool
	}{
		"bare": {func(h mux.WebSocketHandler) mux.Option { return mux.WithHandler(mux.WebSocket(h)) }, true},
		"routed": {func(h mux.WebSocketHandler) mux.Option {
			return mux.WithHandler(routed("GET /{name}", mux.WebSocket(h)))
		}, true},
		"routed twice": {func(h mux.WebSocketHandler) mux.Option {
			return mux.WithHandler(routed("/", routed("/{name}", mux.WebSocket(h))))
		}, true},
		"all of them": {func(h mux.WebSocketHandler) mux.Option { return mux.WithWebSocket(h) }, true},
		"middleware": {func(h mux.WebSocketHandler) mux.Option {
			return mux.WithHandler(http.StripPrefix("/", mux.WebSocket(h)))
		}, false},
		"middleware behind a route": {func(h mux.WebSocketHandler) mux.Option {
			return mux.WithHandler(routed("/ws", http.StripPrefix("/w", mux.WebSocket(h))))
		}, false},
	} {
		for how, want := range map[string]struct {
			err    error
			panics bool
			code   websocket.StatusCode
		}{
			"returns": {code: websocket.StatusNormalClosure},
			"fails":   {err: errors.New("fault"), code: websocket.StatusInternalError},
			"panics":  {panics: true, code: -1},
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				t.Parallel()
				var log lines
				var serverLog syncBuffer
				contexts := make(chan context.Context, 1)
				h := func(ctx context.Context, c *websocket.Conn, r *http.Request) error {
					if within := strings.Contains(string(debug.Stack()), "(*front).ServeHTTP("); within == form.detached {
						t.Errorf("detached %v, want %v", !within, form.detached)
					}
					if info, ok := mux.ConnOf(ctx); !ok || info.Protocol != "websocket" {
						t.Errorf("connection %v of the context", info)
					}
					contexts <- r.Context()
					kind, message, err := c.Read(ctx)
					if err != nil {
						return err
					}
					if err := c.Write(ctx, kind, message); err != nil {
						return err
					}
					if want.panics {
						panic("fault")
					}
					return want.err
				}
				s := start(t, false, form.options(h), mux.WithAccessLog(slog.New(slog.NewJSONHandler(&log, nil))),
					mux.WithLogger(recordingLog(&serverLog)))
				ws := s.webSocket(t)
				ctx := <-contexts
				if got := s.Stats().Requests["websocket"].InFlight; got != 1 || ctx.Err() != nil || len(log.all(t)) > 0 {
					t.Errorf("%d in flight, context %v, log %v while it is open", got, ctx.Err(), log.all(t))
				}
				if err := echoed(t, ws, "hello"); err != nil {
					t.Fatal(err)
				}
				if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != want.code {
					t.Errorf("closed with %v, want %d", err, want.code)
				}
				<-ctx.Done()
				eventually(t, "the books to be closed", func() bool {
					return s.Stats().Requests["websocket"].InFlight == 0 && len(log.all(t)) > 0
				})
				line := []map[string]any{{
					"msg": "request", "conn_id": 1.0, "request_id": "1-1", "protocol": "websocket",
					"method": "GET", "path": "/ws", "code": 101.0, "messages_read": 1.0, "messages_written": 1.0,
				}}
				if diff := cmp.Diff(line, log.all(t)); diff != "" {
					t.Errorf("access log (-want +got):\n%s", diff)
				}
				eventually(t, "a panic to be logged", func() bool {
					return strings.Contains(serverLog.String(), "http: panic serving ") == want.panics
				})
				failed := s.Stats().Requests["websocket"].ErrorRate > 0
				if failed != want.panics {
					t.Errorf("booked as failed: %v, want %v", failed, want.panics)
				}
			})
		}
	}
}

// TestWebSocketReset: a WebSocket whose client resets the connection ends at once, though
// the client has not taken what was written to it.
func TestWebSocketReset(t *testing.T) {
	t.Parallel()
	const owed = 512 << 10 // More than the client's system takes in, and less than the server's.
	for name, withTLS := range map[string]bool{"plaintext": false, "TLS": true} {
		for _, patience := range []time.Duration{0, time.Minute} {
			t.Run(name+"/"+patience.String(), func(t *testing.T) {
				t.Parallel()
				written := make(chan struct{})
				s := start(t, withTLS, mux.Configure(func(c *mux.Config) { c.HTTP1.Progress.ProgressTimeout = patience }),
					mux.WithWebSocket(func(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
						if err := c.Write(ctx, websocket.MessageBinary, make([]byte, owed)); err != nil {
							return err
						}
						close(written)
						_, _, err := c.Read(ctx)
						return err
					}))
				var config *tls.Config
				if withTLS {
					config = &tls.Config{RootCAs: s.roots, ServerName: "server.test"}
				}
				c := dialSlowly(t, s.addr, config, 0)
				within(t, "the write", written)
				_ = c.conn.Close() // It has read nothing, so this is a reset.
				eventually(t, "the end of the session", func() bool {
					return s.active("websocket") == 0 && s.Stats().Requests["websocket"].InFlight == 0
				})
			})
		}
	}
}
