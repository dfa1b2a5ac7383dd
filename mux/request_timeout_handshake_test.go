package mux_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// TestRequestTimeoutOfHandshake: a handshake of a WebSocket that no handler accepts has the
// time of any other request.
func TestRequestTimeoutOfHandshake(t *testing.T) {
	t.Parallel()
	for name, form := range map[string]struct {
		protocols []string
		begins    bool
		want      string
	}{
		"unanswered":             {nil, false, "503 Service Unavailable"},
		"answer that moves":      {nil, true, "200 OK, broken off"},
		"listener of WebSockets": {[]string{"websocket"}, false, "503 Service Unavailable"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			over, ended := make(chan struct{}), make(chan struct{})
			handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				defer close(ended)
				for form.begins {
					_, _ = io.WriteString(w, "more")
					if http.NewResponseController(w).Flush() != nil {
						return
					}
					time.Sleep(time.Millisecond)
				}
				<-over
			})
			s := startOn(t, false, []listeners.Config{{Protocols: form.protocols}}, mux.WithHandler(handler), requestTimeout(500*time.Millisecond))[0]
			events := observe(t, s.Server)
			conn := s.dial(t)
			resp := roundTrip(t, conn, bufio.NewReader(conn), handshake)
			got := resp.Status
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				got += ", broken off"
			}
			if got != form.want {
				t.Errorf("the client sees %s, want %s", got, form.want)
			}
			close(over)
			within(t, "the handler", ended)
			eventually(t, "the event", func() bool {
				return events.count(mux.EventTimeout, protocols.WebSocket, "request_timeout")+events.count(mux.EventTimeout, protocols.HTTP1, "request_timeout") == 1
			})
			eventually(t, "the request is over", func() bool { return s.Stats().Requests["websocket"].InFlight == 0 })
		})
	}
}

// TestWebSocketOutlivesRequestTimeout: the time of a request ends where its connection is
// hijacked, however that comes about.
func TestWebSocketOutlivesRequestTimeout(t *testing.T) {
	t.Parallel()
	returned := make(chan struct{}, 1)
	for name, option := range map[string]mux.Option{
		"WebSocket":     mux.WithHandler(mux.WebSocket(echoWebSocket)),
		"WithWebSocket": mux.WithWebSocket(echoWebSocket),
		"middleware":    mux.WithHandler(middlewares["unwrapper"].wrap(mux.WebSocket(echoWebSocket))),
		"late header":   mux.WithHandler(delayed(mux.WebSocket(echoWebSocket))),
		"coder":         mux.WithHandler(coderEcho),
		"hijacker":      mux.WithHandler(switching(t, "websocket", func(conn net.Conn, rw io.Reader) { _, _ = io.Copy(conn, rw) })),
		"handler that returns": mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			conn, rw, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, rw)
				returned <- struct{}{}
			}()
		})),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bothForms(t, func(t *testing.T, s *server) {
				conn := s.dial(t)
				r := bufio.NewReader(conn)
				if resp := roundTrip(t, conn, r, handshake); resp.StatusCode != http.StatusSwitchingProtocols {
					t.Fatal(resp.Status)
				}
				time.Sleep(1500 * time.Millisecond) // What is under test is time.
				want := string(clientFrame(true, opText, []byte("hello")))
				if name != "hijacker" && name != "handler that returns" {
					want = "\x81\x05hello"
				}
				send(t, conn, string(clientFrame(true, opText, []byte("hello"))))
				got := make([]byte, len(want))
				if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
					t.Errorf("echoed %q, %v; want %q", got, err, want)
				}
				_ = conn.Close()
				if name == "handler that returns" {
					within(t, "the end", returned)
				}
			}, option, requestTimeout(time.Second))
		})
	}
}

// coderEcho echoes by coder/websocket alone.
var coderEcho = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = c.CloseNow() }()
	_ = echoWebSocket(r.Context(), c, r)
})

// TestRequestTimeoutOfStreamHandshake: the same for the streams of HTTP/2.
func TestRequestTimeoutOfStreamHandshake(t *testing.T) {
	t.Parallel()
	if !inOwnProcess(t) {
		return
	}
	over := make(chan struct{})
	own := http.NewServeMux()
	own.Handle("/ws", mux.WebSocket(echoWebSocket))
	own.Handle("/coder", coderEcho)
	own.Handle("/delayed", delayed(mux.WebSocket(echoWebSocket)))
	own.HandleFunc("/page", func(http.ResponseWriter, *http.Request) { <-over })
	s := start(t, false, mux.WithHandler(own), mux.Configure(overHTTP2), requestTimeout(time.Second))
	defer close(over)
	c := s.http2(t)
	webSockets := []string{"/ws", "/coder", "/delayed"}
	for i, path := range webSockets {
		c.webSocket(uint32(2*i+1), path)
	}
	c.connect(101, "/page", "origin", "https://x")
	if got := c.header(101)[":status"]; got != "503" {
		t.Errorf("/page: status %q", got)
	}
	for i := range webSockets {
		stream := uint32(2*i + 1)
		c.send(stream, clientFrame(true, opText, []byte("hello")), 100)
		if opcode, got := c.serverFrame(stream); opcode != opText || got != "hello" {
			t.Errorf("%s: echoed %d %q", webSockets[i], opcode, got)
		}
		c.closed(stream)
	}
}
