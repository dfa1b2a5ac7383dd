package mux_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"google.golang.org/grpc"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// manyProtocols are names that fill a ClientHello, and quoted four times as much.
func manyProtocols() []string { return slices.Repeat([]string{strings.Repeat("\x01", 255)}, 240) }

// TestClosedHoldsNoTextsOfPeers: what the server remembers of connections whose handshake or
// PROXY header has failed are words of its own, however much the peer has sent.
func TestClosedHoldsNoTextsOfPeers(t *testing.T) {
	t.Parallel()
	s := start(t, false, mux.WithLogger(discard),
		mux.WithTLS(&tls.Config{Certificates: selfMade(t).Certificates, NextProtos: []string{"h2", "http/1.1"}}))
	const connections, kept = 300, 200
	for range connections {
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", s.addr,
			&tls.Config{InsecureSkipVerify: true, NextProtos: manyProtocols()})
		if err == nil {
			_ = conn.Close()
			t.Fatal("the handshake has succeeded")
		}
	}
	eventually(t, "all are counted", func() bool { return s.rejected("sniffing", "tls_handshake") == connections && len(s.Closed()) == kept })
	s.hasOwnWords(t)
}

// hasOwnWords checks that the texts of what is remembered are those of the server.
func (s *server) hasOwnWords(t *testing.T) {
	t.Helper()
	refusals, closed := s.Stats().Refusals, s.Closed()
	for _, c := range closed {
		if !slices.ContainsFunc(refusals, func(r mux.Refusal) bool { return r.Reason == c.Reason && r.Detail == c.Detail }) {
			t.Errorf("%s, %d bytes: %.300q", c.Reason, len(c.Detail), c.Detail)
			return
		}
	}
	page, err := json.Marshal(closed)
	if most := 1000 * len(closed); err != nil || len(page) > most {
		t.Errorf("the page has %d bytes, more than %d; %v", len(page), most, err)
	}
}

// TestProxyFaultsAreConstants: the error of a PROXY header has no place behind its end either.
func TestProxyFaultsAreConstants(t *testing.T) {
	t.Parallel()
	for name, header := range map[string]string{
		"broken": "PROXY TCP4 " + strings.Repeat("\x01", 80) + "\r\n",
		"silent": "",
	} {
		t.Run(name, func(t *testing.T) {
			s := startOn(t, false, []mux.ListenerConfig{behindProxy("required", "127.0.0.1")}, mux.WithLogger(discard))[0]
			conn := s.dial(t)
			send(t, conn, header)
			_ = conn.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, conn)
			eventually(t, "it is remembered", func() bool { return len(s.Closed()) == 1 })
			s.hasOwnWords(t)
		})
	}
}

// textLog is a log that keeps its lines as texts by key. The message has the key "msg".
type textLog struct {
	slog.Handler

	mu    sync.Mutex
	lines []map[string]string
}

func (*textLog) Enabled(context.Context, slog.Level) bool { return true }

func (l *textLog) Handle(_ context.Context, r slog.Record) error {
	line := map[string]string{"msg": r.Message}
	r.Attrs(func(a slog.Attr) bool {
		line[a.Key] = a.Value.Resolve().String()
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	return nil
}

// find returns the text under key in a line whose message begins so.
func (l *textLog) find(message, key string) (text string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if text, ok = line[key]; ok && strings.HasPrefix(line["msg"], message) {
			return text, true
		}
	}
	return "", false
}

// longest returns the longest text of the log.
func (l *textLog) longest() (text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		for _, s := range line {
			if len(s) > len(text) {
				text = s
			}
		}
	}
	return text
}

// TestTextsOfPeersAreShort: a peer's text of 5,000 bytes becomes a short one in every line of
// the log and of the access log.
func TestTextsOfPeersAreShort(t *testing.T) {
	t.Parallel()
	const (
		short  = protocols.MaxText
		target = 1 << 10
	)
	long := strings.Repeat("1234567é", 5000/9)
	get := func(fields string) func(*testing.T, *server) {
		return func(t *testing.T, s *server) {
			t.Helper()
			conn := s.dial(t)
			_ = roundTrip(t, conn, bufio.NewReader(conn), fmt.Sprintf(fields, long))
		}
	}
	get2 := func(path, userAgent string) func(*testing.T, *server) {
		return func(t *testing.T, s *server) {
			t.Helper()
			conn := s.dial(t)
			c := newH2Client(t, conn, conn)
			c.request(1, true, ":method", "GET", ":scheme", "http", ":authority", "x", ":path", path, "user-agent", userAgent)
			c.rest(1)
		}
	}
	dials := func(do func(*testing.T, *websocket.Conn)) func(*testing.T, *server) {
		return func(t *testing.T, s *server) {
			t.Helper()
			do(t, s.webSocket(t))
		}
	}
	calls := func(method, userAgent string) func(*testing.T, *server) {
		return func(t *testing.T, s *server) {
			t.Helper()
			_, _ = call(t.Context(), s.grpcClient(t, grpc.WithUserAgent(userAgent)), method)
		}
	}
	own := mux.WithWebSocket(func(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
		_, text, err := c.Read(ctx)
		if err != nil {
			return err
		}
		return errors.New(string(text))
	})
	unknown := mux.WithGRPC(nil, grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return nil }))
	tests := map[string]struct {
		message, key string
		limit        int
		client       func(*testing.T, *server)
		options      []mux.Option
	}{
		"handshake": {"connection recognised", "err", short, shakesHands(&tls.Config{NextProtos: manyProtocols()}), []mux.Option{
			mux.WithTLS(&tls.Config{Certificates: selfMade(t).Certificates, NextProtos: []string{"h2"}}),
		}},
		"websocket version": {"websocket handshake refused", "err", short, get(strings.Replace(handshake, "Version: 13", "Version: %s", 1)), nil},
		"websocket close": {"websocket closed", "err", short, dials(func(_ *testing.T, c *websocket.Conn) {
			_ = c.Close(websocket.StatusInternalError, strings.Repeat("\x01", 123)) // Quoted, four times as much.
		}), []mux.Option{own}},
		"websocket message": {"websocket handler failed", "err", short, dials(func(t *testing.T, c *websocket.Conn) {
			t.Helper()
			if err := c.Write(t.Context(), websocket.MessageText, []byte(long)); err != nil {
				t.Error(err)
			}
			_, _, _ = c.Read(t.Context())
		}), []mux.Option{own}},
		"http1 method":     {"request", "method", short, get("AAAA" + strings.Repeat("A", 5000) + " /%.0sx HTTP/1.1\r\nHost: x\r\n\r\n"), nil},
		"http1 path":       {"request", "path", target, get("GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"), nil},
		"http1 user agent": {"request", "user_agent", target, get("GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: %s\r\n\r\n"), nil},
		"http1 request id": {"request", "request_id", short, get("GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: " + strings.Repeat("a", 5000) + "%.0s\r\n\r\n"), nil},
		"http2 path":       {"request", "path", target, get2("/"+long, "x"), nil},
		"http2 user agent": {"request", "user_agent", target, get2("/echo", long), nil},
		"grpc method":      {"request", "path", target, calls("/"+long+"/x", "x"), []mux.Option{unknown}},
		"no grpc method":   {"request", "path", target, calls("/"+long+"/x", "x"), []mux.Option{mux.WithHandler(nil)}},
		"grpc user agent":  {"request", "user_agent", target, calls("/grpc.testing.TestService/EmptyCall", long), nil},
		"handled call":     {"request", "path", target, calls("/"+long+"/x", "x"), []mux.Option{mux.WithHandler(handlesCalls())}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, access := &textLog{Handler: slog.DiscardHandler}, &textLog{Handler: slog.DiscardHandler}
			s := start(t, false, append(tt.options, mux.WithLogger(slog.New(server)), mux.WithAccessLog(slog.New(access)))...)
			tt.client(t, s)
			log := server
			if tt.message == "request" {
				log = access
			}
			var text string
			eventually(t, "the line", func() (ok bool) { text, ok = log.find(tt.message, tt.key); return ok })
			switch {
			case tt.key == "request_id":
				if text != "1-1" {
					t.Errorf("%.300q", text)
				}
			case len(text) > tt.limit || len(text) < tt.limit/2 || !strings.HasSuffix(text, "…") || !utf8.ValidString(text):
				t.Errorf("%s has %d bytes: %.300q", tt.key, len(text), text)
			}
			if text := server.longest(); len(text) > short {
				t.Errorf("the log has a text of %d bytes: %.300q", len(text), text)
			}
			if text := access.longest(); len(text) > target {
				t.Errorf("the access log has a text of %d bytes: %.300q", len(text), text)
			}
		})
	}
}

// TestNamesOfTLSAreShort in the list of connections.
func TestNamesOfTLSAreShort(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("12345678", 30_000/8)
	client := newAuthority(t).issue(t, long)
	s := start(t, false, mux.WithTLS(&tls.Config{Certificates: selfMade(t).Certificates, ClientAuth: tls.RequireAnyClientCert}))
	conn, err := tls.Dial("tcp", s.addr, &tls.Config{
		InsecureSkipVerify: true, ServerName: long, Certificates: []tls.Certificate{client},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = roundTrip(t, conn, bufio.NewReader(conn), "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
	c := s.Connections()[0]
	for _, text := range []string{c.TLS.ServerName, c.TLS.ClientSubject} {
		if len(text) > protocols.MaxText || !strings.HasSuffix(text, "…") || !strings.Contains(text, "12345678") {
			t.Errorf("%d bytes: %.300q", len(text), text)
		}
	}
}
