package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/coder/websocket"
)

// webSocket is a client that holds a WebSocket until it is told to leave.
type webSocket struct {
	dialer *dialer
	conn   *websocket.Conn // nil for none
}

var _ client = (*webSocket)(nil)

// operate implements [client]: one message and its answer. A message that crosses the close frame 1001 is sent again over the
// next WebSocket, once: that the next one is told to leave at once is possible, but would be no way to treat a client.
func (w *webSocket) operate(ctx context.Context, n int) error {
	err := w.echo(ctx, n)
	if websocket.CloseStatus(err) != websocket.StatusGoingAway {
		return err
	}
	w.dialer.t.retried.Add(1)
	return w.echo(ctx, n)
}

func (w *webSocket) echo(ctx context.Context, n int) error {
	if w.conn == nil {
		tr := &http.Transport{DialContext: w.dialer.dial}
		//nolint:bodyclose // The package's documentation says that the body need not be closed.
		c, _, err := websocket.Dial(ctx, "ws://muxserve.test/ws", &websocket.DialOptions{HTTPClient: &http.Client{Transport: tr}})
		if err != nil {
			return fmt.Errorf("opening a WebSocket: %w", err)
		}
		w.conn = c
	}
	message := strconv.Itoa(n)
	// Where it cannot be written, reading says why.
	_ = w.conn.Write(ctx, websocket.MessageText, []byte(message))
	_, text, err := w.conn.Read(ctx)
	if err == nil && string(text) != message {
		err = fmt.Errorf("answered %q", text)
	}
	if err != nil {
		_ = w.conn.CloseNow()
		w.conn = nil
	}
	return err
}

// close implements [client].
func (w *webSocket) close() {
	if w.conn != nil {
		_ = w.conn.Close(websocket.StatusNormalClosure, "")
	}
}
