package mux_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// download is what these tests have a system hold for its client, which reads it later. At 16
// KiB a second it takes a minute.
const download = 1 << 20

// wide lets the server send a download at once.
var wide = http2.Setting{ID: http2.SettingInitialWindowSize, Val: 2 * download}

// downloads returns a handler that answers a GET by a download, reports on sent that this is
// sent, and waits for the client. It reports on outcomes how it has read the body of a POST.
func downloads(sent chan<- struct{}, outcomes chan<- error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPost:
			_, err := io.Copy(io.Discard, r.Body)
			outcomes <- err
		case http.MethodGet:
			_, _ = w.Write(make([]byte, download))
			sent <- struct{}{}
			<-r.Context().Done()
		}
	})
}

// TestUploadBehindDownload: the client of an upload may have to read what the same connection
// has for it before it knows that it may send more, on connections of net/http and of x/net's
// server. When it has read that, it goes on.
func TestUploadBehindDownload(t *testing.T) {
	t.Parallel()
	for name, progress := range map[string]protocols.ProgressConfig{
		"timeout": {ProgressTimeout: 200 * time.Millisecond},
		"rate":    {MinBodyRate: 1000, BodyGrace: 200 * time.Millisecond},
	} {
		for form, open := range map[string]func(t *testing.T, s *server) *h2Client{
			"prior knowledge": func(t *testing.T, s *server) *h2Client {
				conn := s.dial(t)
				return newH2Client(t, conn, conn, wide)
			},
			"upgraded": func(t *testing.T, s *server) *h2Client {
				c, _ := s.upgrade(t, "HEAD / HTTP/1.1\r\n"+upgradeFields+"\r\n")
				c.must(c.WriteSettings(wide))
				return c
			},
		} {
			t.Run(name+", "+form, func(t *testing.T) {
				t.Parallel()
				sent, outcomes := make(chan struct{}, 1), make(chan error, 1)
				s := start(t, false, mux.WithHandler(downloads(sent, outcomes)), impatient(progress), mux.Configure(upgradesOn))
				c := open(t, s)
				c.must(c.WriteWindowUpdate(0, download))
				c.get(3, "/")
				within(t, "the download", sent)
				c.request(5, false, posting("/", 200)...)
				c.must(c.WriteData(5, false, make([]byte, 100)))
				select {
				case err := <-outcomes:
					t.Fatalf("an upload whose client has a download to read: %v", err)
				case <-time.After(2 * time.Second):
				}
				for c.stream(3).body.Len() < download {
					c.step()
				}
				c.must(c.WriteData(5, true, make([]byte, 100)))
				if err := within(t, "the upload", outcomes); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestStalledUploadBehindDownload: a client that has read its download, and has said so to a
// PING, has no more time for an upload, also where silent clients get no PINGs.
func TestStalledUploadBehindDownload(t *testing.T) {
	t.Parallel()
	outcomes := make(chan error, 1)
	s := start(t, false, mux.WithHandler(downloads(make(chan struct{}, 1), outcomes)),
		impatient(protocols.ProgressConfig{ProgressTimeout: 200 * time.Millisecond}),
		mux.Configure(func(c *mux.Config) { c.HTTP2.PingInterval = 0 }))
	conn := s.dial(t)
	c := newH2Client(t, conn, conn, wide)
	c.get(1, "/")
	c.readAsked(1, download)
	c.request(3, false, posting("/", 200)...)
	if err := within(t, "the upload", outcomes); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

// testStreamPong: the client of a WebSocket may have to read what other streams of its
// connection have for it before it sees the ping.
func testStreamPong(t *testing.T) {
	sent := make(chan struct{}, 1)
	routes := http.NewServeMux()
	routes.Handle("/", downloads(sent, nil))
	opened := make(chan struct{})
	routes.Handle("/ws", mux.WebSocket(func(ctx context.Context, c *websocket.Conn, r *http.Request) error {
		close(opened)
		return echoWebSocket(ctx, c, r)
	}))
	s := start(t, true, mux.WithHandler(routes), mux.Configure(overHTTP2), mux.Configure(func(c *mux.Config) {
		c.WebSocket.PingInterval, c.WebSocket.PongTimeout = 300*time.Millisecond, time.Second
	}))
	events := observe(t, s.Server)
	conn := s.dial(t, "h2")
	c := newH2Client(t, conn, conn, wide)
	c.must(c.WriteWindowUpdate(0, download))
	c.get(1, "/")
	within(t, "the download", sent)
	c.connect(3, "/ws", "origin", "https://x")
	within(t, "the WebSocket", opened)
	time.Sleep(3 * time.Second) // What is under test is time.
	if n := events.count(mux.EventTimeout, protocols.WebSocket, "ping_timeout"); n != 0 {
		t.Fatalf("%d ping timeouts", n)
	}
	ping := []byte{0x80 | opPing, 0}
	for !bytes.HasPrefix(c.stream(3).body.Bytes(), ping) {
		c.step()
	}
	c.must(c.WriteData(3, false, append(clientFrame(true, opPong, nil), clientFrame(true, opText, []byte("here"))...)))
	for !bytes.Contains(c.stream(3).body.Bytes(), []byte("here")) {
		c.step()
	}
}

// TestPongOfLaterWebSocket: what the client has read, and said so to a PING, before a WebSocket
// was opened adds to no wait for its pong.
func TestPongOfLaterWebSocket(t *testing.T) {
	if !inOwnProcess(t) {
		return
	}
	routes := http.NewServeMux()
	routes.Handle("/", downloads(make(chan struct{}, 1), nil))
	routes.Handle("/ws", mux.WebSocket(func(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
		_, _, err := c.Read(ctx)
		return err
	}))
	s := start(t, false, mux.WithHandler(routes), mux.Configure(overHTTP2), mux.Configure(func(c *mux.Config) {
		c.WebSocket.PingInterval, c.WebSocket.PongTimeout = 300*time.Millisecond, 500*time.Millisecond
	}))
	events := observe(t, s.Server)
	conn := s.dial(t)
	c := newH2Client(t, conn, conn, wide)
	c.get(1, "/")
	c.readAsked(1, download)
	c.sync() // The server has its answer.
	c.webSocket(3, "/ws")
	go func() { _, _ = io.Copy(io.Discard, conn) }() // It answers no ping.
	eventually(t, "the WebSocket ends for its ping", func() bool {
		return events.count(mux.EventTimeout, protocols.WebSocket, "ping_timeout") == 1
	})
}
