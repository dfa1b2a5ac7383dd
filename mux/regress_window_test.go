package mux_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// TestUploadBehindSlowHandlers: an upload whose client may not send, because handlers of the same connection
// have not read what fills its window, is not too slow: the server is.
func TestUploadBehindSlowHandlers(t *testing.T) {
	t.Parallel()
	outcomes, finish := make(chan error, 1), make(chan struct{})
	defer sync.OnceFunc(func() { close(finish) })()
	s := start(t, false, impatient(protocols.ProgressConfig{MinBodyRate: 1000, BodyGrace: 200 * time.Millisecond, ProgressTimeout: 500 * time.Millisecond}),
		mux.WithHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/busy" {
				select {
				case <-finish:
				case <-r.Context().Done():
				}
				return
			}
			_, err := io.Copy(io.Discard, r.Body)
			outcomes <- err
		})))
	conn := s.dial(t)
	c := newH2Client(t, conn, conn)
	post := func(stream uint32, path string) {
		c.request(stream, false, ":method", "POST", ":scheme", "http", ":authority", "x", ":path", path, "content-length", "65535")
	}
	post(1, "/busy")
	for c.settings == nil || c.window == 65535 { // The server widens the connection's window behind its SETTINGS.
		c.step()
	}
	c.send(1, make([]byte, 65535), 16<<10)
	stream := uint32(3)
	for c.window >= 65535 {
		post(stream, "/busy")
		c.send(stream, make([]byte, 65535), 16<<10)
		stream += 2
	}
	rest := c.window
	post(stream, "/read")
	c.send(stream, make([]byte, rest), 16<<10) // All that it may.
	t.Logf("%d streams are open, of 100; the last has sent %d bytes", (stream+1)/2, rest)
	select {
	case err := <-outcomes:
		t.Errorf("an upload whose client has no window: %v", err)
	case <-time.After(1500 * time.Millisecond):
	}
}

// TestBusyWebSocketHandler: a peer that answers each ping at once is not dead, also where the answer stands behind a
// message that the handler takes long over.
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

// TestAgedStreamWebSocket: a WebSocket on a stream of an HTTP/2 connection that has reached its age is closed with 1001.
func TestAgedStreamWebSocket(t *testing.T) {
	if !inOwnProcess(t) {
		return
	}
	s := start(t, false, mux.Configure(overHTTP2), aged(100*time.Millisecond, 300*time.Millisecond))
	c := s.http2(t)
	c.request(1, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", s.addr, ":path", "/ws",
		"sec-websocket-version", "13")
	if got := c.header(1)[":status"]; got != "200" {
		t.Fatal(got)
	}
	var body []byte
	for {
		f, err := c.ReadFrame()
		if err != nil {
			t.Fatalf("cut without a close frame, after % x: %v", body, err)
		}
		switch f := f.(type) {
		case *http2.DataFrame:
			body = append(body, f.Data()...)
			if strings.Contains(string(body), "\x03\xe9") {
				return
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = c.WritePing(true, f.Data)
			}
		}
	}
}

// TestMaxBytes: http.MaxBytesReader has the connection closed behind its answer, as on net/http's own server.
func TestMaxBytes(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var tooLong *http.MaxBytesError
		if _, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 10)); errors.As(err, &tooLong) {
			http.Error(w, "too long", http.StatusRequestEntityTooLarge)
		}
	})
	s := start(t, false, mux.WithHandler(handler))
	conn := s.dial(t)
	resp := roundTrip(t, conn, bufio.NewReader(conn), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n"+strings.Repeat("x", 20))
	if !resp.Close {
		t.Errorf("%s %v: net/http says Connection: close", resp.Status, resp.Header)
	}
}

// TestAddressLimitRecovers: a client that tries again every 200 ms is served when it has room again.
func TestAddressLimitRecovers(t *testing.T) {
	s := start(t, false, limits(func(c *mux.Config) { c.Limits.PerAddress = 2 }))
	first, second := s.hold(t), s.hold(t)
	attempt := func() int {
		conn := s.dial(t)
		return roundTrip(t, conn, bufio.NewReader(conn), "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n").StatusCode
	}
	for range 3 {
		attempt()
	}
	_, _ = first.Close(), second.Close()
	eventually(t, "both are free", func() bool { return s.active("http1") == 0 })
	for range 20 {
		if attempt() == http.StatusOK {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	t.Errorf("none of the client's connections is served, and it is refused for 4 s: %v", s.counts())
}

// TestLimitOfStreamWebSockets: the excess is taken from the WebSockets that are in the pool.
func TestLimitOfStreamWebSockets(t *testing.T) {
	t.Parallel()
	if !inOwnProcess(t) {
		return
	}
	s := start(t, false, mux.Configure(overHTTP2))
	for range 2 {
		ws := s.webSocket(t)
		go func() { _, _, _ = ws.Read(t.Context()) }()
	}
	c := s.http2(t)
	const streams = 20
	for i := range uint32(streams) {
		c.request(2*i+1, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", s.addr, ":path", "/ws",
			"sec-websocket-version", "13")
		c.header(2*i + 1)
	}
	s.reload(t, func(c *mux.Config) { c.WebSocket.MaxConnections = 1 })
	time.Sleep(time.Second)
	if got := s.active("websocket"); got != 1 {
		t.Errorf("%d WebSockets in the pool, of which there may be 1", got)
	}
}
