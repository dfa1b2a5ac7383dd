package demo

import (
	"bytes"
	"context"
	"net/http"

	"github.com/coder/websocket"

	"github.com/muxserve/muxserve/mux"
)

// keptBuffer is the largest buffer that is kept for the next message. A connection does
// not keep the memory of one huge message for ever.
const keptBuffer = 64 << 10

// echoWebSocket sends every message back until the client closes. Text that is not UTF-8
// closes the connection with 1007, and a message above the read limit with 1009.
func echoWebSocket(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
	var message bytes.Buffer
	for {
		kind, err := mux.ReadMessage(ctx, c, &message)
		if err != nil {
			return closedByPeer(err)
		}
		if err := c.Write(ctx, kind, message.Bytes()); err != nil {
			return closedByPeer(err)
		}
		if message.Cap() > keptBuffer {
			message = bytes.Buffer{}
		}
	}
}

// closedByPeer returns nil for the error of a client that has closed properly.
func closedByPeer(err error) error {
	switch websocket.CloseStatus(err) {
	case websocket.StatusNormalClosure, websocket.StatusGoingAway, websocket.StatusNoStatusRcvd:
		return nil
	default:
		return err
	}
}
