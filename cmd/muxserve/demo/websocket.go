package demo

import (
	"bytes"
	"context"
	"net/http"

	"github.com/coder/websocket"

	"github.com/muxserve/muxserve/mux"
)

// keptBuffer is how large a message may be whose buffer is kept for the next
// one. A connection that once sent a huge message does not hold its size for ever.
const keptBuffer = 64 << 10

// echoWebSocket sends every message back as it came, until the peer closes. Text
// that is not UTF-8 closes the connection with 1007, a message beyond the read limit with 1009.
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

// closedByPeer returns nil if err is only that the peer has closed in the way it should.
func closedByPeer(err error) error {
	switch websocket.CloseStatus(err) {
	case websocket.StatusNormalClosure, websocket.StatusGoingAway, websocket.StatusNoStatusRcvd:
		return nil
	default:
		return err
	}
}
