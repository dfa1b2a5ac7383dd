package mux_test

import (
	"bufio"
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"

	"github.com/muxserve/muxserve/mux"
)

// faultyLog is a log that panics.
type faultyLog struct {
	slog.Handler
	lines *atomic.Int64
}

func (faultyLog) Enabled(context.Context, slog.Level) bool { return true }

func (l faultyLog) Handle(context.Context, slog.Record) error {
	l.lines.Add(1)
	panic("fault of the log")
}

// TestFaultyAccessLog: a WebSocket that is served behind the return of its handler has no net/http to catch a panic of the
// access log. The server survives it.
func TestFaultyAccessLog(t *testing.T) {
	ended := func(context.Context, *websocket.Conn, *http.Request) error { return nil }
	var lines atomic.Int64
	s := start(t, false, mux.WithLogger(discard), mux.WithWebSocket(ended),
		mux.WithAccessLog(slog.New(faultyLog{slog.DiscardHandler, &lines})))
	for i := range 2 {
		conn := s.dial(t)
		r := bufio.NewReader(conn)
		resp := roundTrip(t, conn, r, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		if resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatal(resp.Status)
		}
		if _, err := r.ReadByte(); err != nil { // It is a close frame, which nobody answers.
			t.Error(err)
		}
		_ = conn.Close()
		eventually(t, "the connection to be gone", func() bool {
			return s.Stats().Pools["websocket"].Active == 0 && lines.Load() == int64(i+1)
		})
	}
}
