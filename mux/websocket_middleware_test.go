package mux_test

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/muxserve/muxserve/mux"
)

// lateWriter waits with the header for the body or for WriteHeaderNow, as gin's writer does.
type lateWriter struct {
	http.ResponseWriter
	status int
	sent   bool
}

func (w *lateWriter) WriteHeader(status int) { w.status = status }

func (w *lateWriter) WriteHeaderNow() {
	if !w.sent {
		w.sent = true
		w.ResponseWriter.WriteHeader(w.status)
	}
}

func (w *lateWriter) Write(p []byte) (int, error) {
	w.WriteHeaderNow()
	return w.ResponseWriter.Write(p)
}

func (w *lateWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.sent = true
	return w.ResponseWriter.(http.Hijacker).Hijack()
}

// delayed is a middleware with a lateWriter.
func delayed(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lw := &lateWriter{ResponseWriter: w, status: http.StatusOK}
		h.ServeHTTP(lw, r)
		lw.WriteHeaderNow()
	})
}

// lateUnwrapper is a lateWriter of a newer gin.
type lateUnwrapper struct{ lateWriter }

func (w *lateUnwrapper) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func lateUnwrapping(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lw := &lateUnwrapper{lateWriter{ResponseWriter: w, status: http.StatusOK}}
		h.ServeHTTP(lw, r)
		lw.WriteHeaderNow()
	})
}

// unwrapper can be unwrapped, and no more.
type unwrapper struct{ http.ResponseWriter }

func (w unwrapper) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// hopeful has Hijack whatever it wraps, as echo's writer does.
type hopeful struct{ unwrapper }

func (w hopeful) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// wrapped is a middleware with a writer of its own.
func wrapped[W http.ResponseWriter](wrap func(http.ResponseWriter) W) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(wrap(w), r) })
	}
}

// overHopeful is a middleware with such a writer.
var overHopeful = wrapped(func(w http.ResponseWriter) hopeful { return hopeful{unwrapper{w}} })

// timeLimit is [http.TimeoutHandler], whose writer can neither be hijacked nor unwrapped.
func timeLimit(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Hour, "") }

// middlewares are what a WebSocket's handler may stand below.
var middlewares = map[string]struct {
	wrap  func(http.Handler) http.Handler
	coder int // what coder/websocket's Accept answers
	want  int
}{
	"none":                         {func(h http.Handler) http.Handler { return h }, 101, 101},
	"late":                         {delayed, 101, 101},
	"late, unwrapped":              {lateUnwrapping, 101, 101},
	"unwrapper":                    {wrapped(func(w http.ResponseWriter) unwrapper { return unwrapper{w} }), 101, 101},
	"hopeful":                      {overHopeful, 101, 101},
	"hopeful over late, unwrapped": {func(h http.Handler) http.Handler { return lateUnwrapping(overHopeful(h)) }, 0, 101},
	"opaque":                       {wrapped(func(w http.ResponseWriter) http.ResponseWriter { return struct{ http.ResponseWriter }{w} }), 501, 501},
	"time limit":                   {timeLimit, 501, 501},
	"time limit over hopeful":      {func(h http.Handler) http.Handler { return timeLimit(overHopeful(h)) }, 0, 501},
	"time limit over late":         {func(h http.Handler) http.Handler { return timeLimit(lateUnwrapping(h)) }, 0, 501},
}

// echoStatus returns the status of a handshake. Where that is 101, the WebSocket must echo.
func echoStatus(t *testing.T, addr string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, resp, err := websocket.Dial(ctx, "ws://"+addr+"/ws", nil)
	if err != nil {
		if resp == nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	defer func() { _ = c.CloseNow() }()
	if err := c.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := c.Read(ctx); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	return resp.StatusCode
}

// TestWebSocketMiddleware: a WebSocket works below every middleware below which
// coder/websocket's own Accept works, and is refused with 501 where it cannot work, behind
// the mux and behind net/http alone.
func TestWebSocketMiddleware(t *testing.T) {
	own := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		_ = echoWebSocket(r.Context(), c, r)
	})
	for name, m := range middlewares {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for where, h := range map[string]http.Handler{"coder": m.wrap(own), "elsewhere": m.wrap(mux.WebSocket(echoWebSocket))} {
				want := m.want
				if where == "coder" {
					want = m.coder
				}
				if want == 0 {
					continue // It does not answer, or it answers 101 and speaks no WebSocket.
				}
				direct := httptest.NewServer(h)
				if got := echoStatus(t, direct.Listener.Addr().String()); got != want {
					t.Errorf("%s: %d, want %d", where, got, want)
				}
				direct.Close()
			}
			for _, limit := range []time.Duration{0, time.Hour} {
				s := start(t, false, mux.WithHandler(m.wrap(mux.WebSocket(echoWebSocket))), requestTimeout(limit))
				if got := echoStatus(t, s.addr); got != m.want {
					t.Errorf("mux, request timeout %v: %d, want %d", limit, got, m.want)
				}
			}
		})
	}
}

// TestWebSocketOptions: what a handler agrees on with its client.
func TestWebSocketOptions(t *testing.T) {
	for name, tt := range map[string]struct {
		options []mux.WebSocketOption
		dial    websocket.DialOptions
		status  int
		want    [2]string // Sec-WebSocket-Protocol and Sec-WebSocket-Extensions
	}{
		"none": {
			nil, websocket.DialOptions{Subprotocols: []string{"mqtt"}, CompressionMode: websocket.CompressionContextTakeover}, 101, [2]string{},
		},
		"subprotocol": {
			[]mux.WebSocketOption{mux.Subprotocols("graphql-transport-ws", "mqtt")},
			websocket.DialOptions{Subprotocols: []string{"mqtt", "graphql-transport-ws"}}, 101, [2]string{"graphql-transport-ws"},
		},
		"other subprotocol": {
			[]mux.WebSocketOption{mux.Subprotocols("mqtt")}, websocket.DialOptions{Subprotocols: []string{"wamp"}}, 101, [2]string{},
		},
		"origin": {
			[]mux.WebSocketOption{mux.OriginPatterns("*.example.com")},
			websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"https://app.example.com"}}}, 101, [2]string{},
		},
		"foreign origin": {
			[]mux.WebSocketOption{mux.OriginPatterns("*.example.com")},
			websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"https://configured.test"}}}, 403, [2]string{},
		},
		"no other origin": {
			[]mux.WebSocketOption{mux.OriginPatterns()},
			websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"https://configured.test"}}}, 403, [2]string{},
		},
		"configured origin": {
			[]mux.WebSocketOption{mux.Subprotocols("mqtt")},
			websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"https://configured.test"}}}, 101, [2]string{},
		},
		"compression": {
			[]mux.WebSocketOption{mux.Compression(mux.CompressionTakeover)},
			websocket.DialOptions{CompressionMode: websocket.CompressionContextTakeover}, 101, [2]string{"", "permessage-deflate"},
		},
	} {
		h := func(ctx context.Context, c *websocket.Conn, r *http.Request) error {
			if c.Subprotocol() != tt.want[0] {
				t.Errorf("%s: the handler's subprotocol is %q", name, c.Subprotocol())
			}
			return nil
		}
		for form, option := range map[string]mux.Option{
			"WebSocket":     mux.WithHandler(mux.WebSocket(h, tt.options...)),
			"WithWebSocket": mux.WithWebSocket(h, tt.options...),
		} {
			t.Run(name+" "+form, func(t *testing.T) {
				t.Parallel()
				s := start(t, false, option, limits(func(c *mux.Config) {
					c.WebSocket.OriginPatterns = []string{"configured.test"}
					c.WebSocket.Compression = mux.CompressionOff
				}))
				c, resp, err := websocket.Dial(t.Context(), "ws://"+s.addr+"/ws", &tt.dial)
				if resp == nil || resp.StatusCode != tt.status {
					t.Fatalf("%v, %v", resp, err)
				}
				got := [2]string{resp.Header.Get("Sec-WebSocket-Protocol"), resp.Header.Get("Sec-WebSocket-Extensions")}
				if got != tt.want {
					t.Errorf("agreed on %q, want %q", got, tt.want)
				}
				if err == nil {
					_, _, _ = c.Read(t.Context())
				}
			})
		}
	}
}

// TestBadWebSocketOptions: a mistake in an option shows when the program starts.
func TestBadWebSocketOptions(t *testing.T) {
	for name, use := range map[string]func(){
		"pattern":     func() { mux.OriginPatterns("[") },
		"compression": func() { mux.Compression("zip") },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			use()
		})
	}
}
