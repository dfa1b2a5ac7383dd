package demo

import (
	"bytes"
	"context"
	"net/http"
	"unicode/utf8"

	"github.com/coder/websocket"
)

// keptBuffer is how large a message may be whose buffer is kept for the next
// one. A connection that once sent a huge message does not hold its size for ever.
const keptBuffer = 64 << 10

// echoWebSocket sends every message back as it came, until the peer closes. A
// text message that is not UTF-8 closes the connection with 1007 (RFC 6455,
// section 8.1), which coder/websocket leaves to its user; one beyond the read
// limit is closed with 1009 by the library.
func echoWebSocket(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
	var message bytes.Buffer
	for {
		kind, r, err := c.Reader(ctx)
		if err != nil {
			return closedByPeer(err)
		}
		message.Reset()
		if _, err := message.ReadFrom(r); err != nil {
			return closedByPeer(err)
		}
		if kind == websocket.MessageText && !utf8.Valid(message.Bytes()) {
			// Whether or not the peer answers, it has been told.
			_ = c.Close(websocket.StatusInvalidFramePayloadData, "text is not UTF-8")
			return nil
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
