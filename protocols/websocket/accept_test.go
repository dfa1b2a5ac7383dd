package websocket

import (
	"bufio"
	"bytes"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	coder "github.com/coder/websocket"

	"github.com/muxserve/muxserve/protocols"
)

// pipeWriter is a ResponseWriter that can be hijacked.
type pipeWriter struct {
	*httptest.ResponseRecorder

	conn net.Conn
}

func (w *pipeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.conn, bufio.NewReadWriter(bufio.NewReader(w.conn), bufio.NewWriter(w.conn)), nil
}

// FuzzAccept has net/http's parser and coder/websocket as its oracles: a handshake is
// accepted where coder/websocket accepts it, but for tokens that are the same only by
// Unicode's rules.
func FuzzAccept(f *testing.F) {
	const head = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + upgradeKey + "\r\n"
	for _, seed := range []string{
		head + "\r\n", head + "Origin: http://x\r\n\r\n", head + "Origin: https://y\r\n\r\n", head + "Origin: wss://x\r\n\r\n", head + "Origin: null\r\n\r\n",
		head + "Origin: file://\r\n\r\n", head + "Origin: 0#://\r\n\r\n",
		strings.Replace(head, "websocket", "web\u017focket", 1) + "\r\n",
		strings.Replace(head, "websocket", "h2c,\u00a0websocket", 1) + "\r\n",
		strings.Replace(head, "Connection: Upgrade", "Connection: keep-alive , uPGRADE", 1) + "\r\n",
		strings.Replace(head, "GET", "POST", 1) + "\r\n", strings.Replace(head, "1.1", "1.0", 1) + "\r\n",
		strings.Replace(head, "13", "8", 1) + "\r\n", strings.Replace(head, "dGhl", "dGh", 1) + "\r\n",
	} {
		f.Add([]byte(seed))
	}
	logger := slog.New(slog.DiscardHandler)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		ask := func(accept func(http.ResponseWriter) bool) (accepted bool, status int) {
			client, server := net.Pipe()
			defer client.Close()
			w := &pipeWriter{httptest.NewRecorder(), server}
			accepted = accept(w)
			return accepted, w.Code
		}
		want, _ := ask(func(w http.ResponseWriter) bool {
			c, err := coder.Accept(w, r, nil)
			if err == nil {
				_ = c.CloseNow()
			}
			return err == nil
		})
		got, status := ask(func(w http.ResponseWriter) bool {
			s := New(protocols.WebSocketConfig{}, 0, logger).Accept(t.Context(), w, r, nil, nil)
			if s != nil {
				s.raw.abrupt.Store(true)
				s.end()
			}
			return s != nil
		})
		origin := r.Header.Get("Origin")
		scheme, _, _ := strings.Cut(origin, "://")
		if want && !namesUpgrade(r.Header) ||
			want && strings.Contains(origin, "://") && !slices.Contains([]string{"http", "https", "ws", "wss"}, strings.ToLower(scheme)) {
			want = false
		}
		if got != want {
			t.Errorf("accepted %t, want %t: %d", got, want, status)
		}
	})
}
