package demo

import (
	"bytes"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// dialEcho opens a WebSocket to the demo's routes behind net/http's own server.
func dialEcho(t *testing.T) *websocket.Conn {
	t.Helper()
	server := httptest.NewServer(Routes(nil))
	t.Cleanup(server.Close)
	c, resp, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(server.URL, "http")+"/ws",
		&websocket.DialOptions{HTTPClient: server.Client()})
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body != nil {
		_ = resp.Body.Close()
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

func TestWebSocketEcho(t *testing.T) {
	t.Parallel()
	c := dialEcho(t)
	messages := []struct {
		kind websocket.MessageType
		data []byte
	}{
		{websocket.MessageText, []byte("grüße ✓")},
		{websocket.MessageBinary, []byte{0xff, 0x00, 0xfe}},
		{websocket.MessageText, nil},
		{websocket.MessageBinary, bytes.Repeat([]byte{7}, 32<<10)},
		{websocket.MessageText, []byte("after a large one")},
	}
	for _, m := range messages {
		if err := c.Write(t.Context(), m.kind, m.data); err != nil {
			t.Fatal(err)
		}
		kind, data, err := c.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if kind != m.kind || !bytes.Equal(data, m.data) {
			t.Errorf("%v of %d bytes came back as %v of %d bytes", m.kind, len(m.data), kind, len(data))
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestWebSocketCloseCodes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		kind websocket.MessageType
		data []byte
		want websocket.StatusCode
	}{
		{"text that is not UTF-8", websocket.MessageText, []byte("a\xc3("), websocket.StatusInvalidFramePayloadData},
		{"text that ends within a character", websocket.MessageText, []byte("a\xe4\xb8"), websocket.StatusInvalidFramePayloadData},
		{"beyond the read limit", websocket.MessageBinary, make([]byte, 32<<10+1), websocket.StatusMessageTooBig},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := dialEcho(t)
			if err := c.Write(t.Context(), tt.kind, tt.data); err != nil {
				t.Fatal(err)
			}
			_, _, err := c.Read(t.Context())
			if got := websocket.CloseStatus(err); got != tt.want {
				t.Errorf("closed with %v (%v), want %v", got, err, tt.want)
			}
		})
	}
}
