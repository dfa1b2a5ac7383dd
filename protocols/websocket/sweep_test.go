package websocket

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	coder "github.com/coder/websocket"

	"github.com/muxserve/muxserve/protocols"
)

// served returns a client of a handler behind a WebSockets.
func served(t *testing.T, c protocols.WebSocketConfig, h Handler) *coder.Conn {
	t.Helper()
	srv := httptest.NewServer(newService(c, h))
	t.Cleanup(srv.Close)
	conn, resp, err := coder.Dial(t.Context(), strings.Replace(srv.URL, "http", "ws", 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("status %s", resp.Status)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

// quick has times that pass in a test.
func quick() protocols.WebSocketConfig {
	c := protocols.DefaultWebSocketConfig()
	c.PingInterval, c.PongTimeout = 50*time.Millisecond, 200*time.Millisecond
	return c
}

// TestDeadPeerIsFound: a peer that reads nothing, and so answers no ping, is closed.
func TestDeadPeerIsFound(t *testing.T) {
	ended := make(chan error, 1)
	served(t, quick(), func(ctx context.Context, c *coder.Conn, _ *http.Request) error {
		_, _, err := c.Read(ctx)
		ended <- err
		return err
	})
	if err := <-ended; err == nil {
		t.Error("a message came from a peer that sends none")
	}
}

// TestQuietPeerIsKept: a peer that says nothing and answers pings is kept, and so is one whose handler does not read.
func TestQuietPeerIsKept(t *testing.T) {
	t.Parallel()
	for name, reads := range map[string]bool{"read": true, "not read": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			release := make(chan struct{})
			conn := served(t, quick(), func(ctx context.Context, c *coder.Conn, _ *http.Request) error {
				if reads {
					ctx = c.CloseRead(ctx)
				}
				select {
				case <-release:
				case <-ctx.Done():
				}
				return c.Write(ctx, coder.MessageText, []byte("still here"))
			})
			time.AfterFunc(600*time.Millisecond, func() { close(release) }) // Three times what a dead peer would get.
			if _, msg, err := conn.Read(t.Context()); err != nil || string(msg) != "still here" {
				t.Errorf("read %q, %v", msg, err)
			}
		})
	}
}

// TestWebSocketAge: a WebSocket that has reached its age is closed with 1001.
func TestWebSocketAge(t *testing.T) {
	c := quick()
	c.MaxAge = 100 * time.Millisecond
	cause := make(chan error, 1)
	conn := served(t, c, func(ctx context.Context, c *coder.Conn, _ *http.Request) error {
		_, _, err := c.Read(ctx)
		<-ctx.Done()
		cause <- context.Cause(ctx)
		return err
	})
	if _, _, err := conn.Read(t.Context()); coder.CloseStatus(err) != coder.StatusGoingAway {
		t.Errorf("closed with %v, want 1001", err)
	}
	if err := <-cause; !errors.Is(err, ErrDraining) {
		t.Errorf("the handler's context ended with %v", err)
	}
}
