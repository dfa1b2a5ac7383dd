package rfc6455

import (
	"bytes"
	"context"
	"net/http"
	"testing"

	"github.com/coder/websocket"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/testdata/conformance/internal/served"
)

// suiteReadLimit is enough for the largest message of the suite.
const suiteReadLimit = 8 << 20

// start serves the echo handler.
func start(t *testing.T, withTLS bool, readLimit int64) served.Server {
	t.Helper()
	return served.Mux(t, withTLS,
		mux.Configure(func(c *mux.Config) { c.WebSocket.ReadLimit = readLimit }),
		mux.WithWebSocket(echo))
}

// echo sends every message back. Text that is not UTF-8 is closed by ReadMessage.
func echo(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
	var message bytes.Buffer
	for {
		kind, err := mux.ReadMessage(ctx, c, &message)
		if err != nil {
			return err
		}
		if err := c.Write(ctx, kind, message.Bytes()); err != nil {
			return err
		}
	}
}
