package protocols

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols/internal/h2"
)

// HTTPHooks is what an HTTP server here is built around: live code, as opposed
// to the settings of its section.
type HTTPHooks struct {
	Handler     http.Handler
	ConnContext func(context.Context, net.Conn) context.Context
	ConnState   func(net.Conn, http.ConnState)
	Logger      *slog.Logger
}

// NewHTTP1Server returns a net/http server that speaks HTTP/1.0 and HTTP/1.1 on
// the connections that its listener gives it.
func NewHTTP1Server(c HTTP1Config, h HTTPHooks) *http.Server {
	srv := newHTTPServer(h)
	srv.ReadHeaderTimeout = c.HeaderTimeout
	srv.IdleTimeout = orNever(c.IdleTimeout)
	srv.MaxHeaderBytes = c.MaxHeaderBytes
	srv.Protocols.SetHTTP1(true)
	return srv
}

// headerListSlack is what net/http's HTTP/2 server adds to MaxHeaderBytes before
// it announces SETTINGS_MAX_HEADER_LIST_SIZE: 32 bytes for each of ten fields.
const headerListSlack = 10 * 32

// NewHTTP2Server returns a net/http server that speaks HTTP/2 on the
// connections that its listener gives it, and nothing else. Whether TLS was
// underneath is not its business: a TLS connection must hide that it is one.
func NewHTTP2Server(c HTTP2Config, h HTTPHooks) *http.Server {
	srv := newHTTPServer(h)
	srv.IdleTimeout = orNever(c.IdleTimeout)
	srv.MaxHeaderBytes = int(c.MaxHeaderListBytes) - headerListSlack
	srv.Protocols.SetUnencryptedHTTP2(true)
	srv.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams:          int(c.MaxStreams),
		MaxReadFrameSize:              int(c.MaxFrameBytes),
		SendPingTimeout:               c.PingInterval,
		PingTimeout:                   c.PingTimeout,
		MaxReceiveBufferPerConnection: int(c.ConnectionWindow),
		MaxReceiveBufferPerStream:     int(c.StreamWindow),
	}
	return srv
}

func newHTTPServer(h HTTPHooks) *http.Server {
	return &http.Server{ //nolint:gosec // The callers set the timeouts that their protocol knows.
		Handler:     h.Handler,
		ConnContext: h.ConnContext,
		ConnState:   h.ConnState,
		ErrorLog:    errorLog(h.Logger),
		Protocols:   new(http.Protocols),
		// The connections are past their TLS handshake when they come here.
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12},
	}
}

// orNever translates "0: no bound" to net/http, where an IdleTimeout of 0 means
// "take ReadTimeout's" and a negative one means none.
func orNever(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// errorLog brings net/http's own messages into logger. All but a handler's
// panic are caused by a peer, so they stand at Debug.
func errorLog(logger *slog.Logger) *log.Logger {
	return log.New(errorLogWriter{logger}, "", 0)
}

type errorLogWriter struct{ logger *slog.Logger }

func (w errorLogWriter) Write(p []byte) (int, error) {
	msg := strings.TrimSuffix(string(p), "\n")
	level := slog.LevelDebug
	if strings.Contains(msg, ": panic serving ") {
		level = slog.LevelError
	}
	w.logger.Log(context.Background(), level, msg)
	return len(p), nil
}

// ErrNoExtendedConnect is returned where WebSockets over HTTP/2 are asked for and
// this process's net/http does not offer them. It reads its own switch once,
// when the process starts, so that neither a program nor a //go:debug line can set it:
// the environment must have it before.
var ErrNoExtendedConnect = errors.New("protocols: http2.websocket: net/http has extended CONNECT (RFC 8441) switched off; start the process with GODEBUG=http2xconnect=1 in its environment")

// settingEnableConnectProtocol is SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 section 3).
const settingEnableConnectProtocol = 0x8

// announcesExtendedConnect reports whether a SETTINGS frame lets the client open streams
// by extended CONNECT.
func announcesExtendedConnect(frame []byte) bool {
	payload := frame[min(h2.HeaderLen, len(frame)):]
	for ; len(payload) >= h2.SettingLen; payload = payload[h2.SettingLen:] {
		if binary.BigEndian.Uint16(payload) == settingEnableConnectProtocol {
			return binary.BigEndian.Uint32(payload[2:]) == 1
		}
	}
	return false
}

// settingsTimeout bounds ServerSettings, which talks to a server in this process.
const settingsTimeout = 5 * time.Second

// ServerSettings returns the SETTINGS frame with which a server that
// [NewHTTP2Server] makes from c opens every connection. It asks
// such a server over a pipe, so that the answer is right for each version of net/http and
// each of its debug settings. The error is [ErrNoExtendedConnect] where c asks for
// WebSockets and the answer does not offer them.
func ServerSettings(c HTTP2Config) ([]byte, error) {
	client, server := net.Pipe()
	defer client.Close()
	srv := NewHTTP2Server(c, HTTPHooks{
		Handler: http.NotFoundHandler(),
		Logger:  slog.New(slog.DiscardHandler),
	})
	l := &onceListener{conn: server, done: make(chan struct{})}
	defer srv.Close()
	go srv.Serve(l) //nolint:errcheck // It ends when the server is closed; what it says then is of no use.
	if err := client.SetDeadline(time.Now().Add(settingsTimeout)); err != nil {
		return nil, fmt.Errorf("protocols: settings of the HTTP/2 server: %w", err)
	}
	frame, err := firstFrame(client)
	if err != nil {
		return nil, fmt.Errorf("protocols: settings of the HTTP/2 server: %w", err)
	}
	if c.WebSocket && !announcesExtendedConnect(frame) {
		return nil, ErrNoExtendedConnect
	}
	return frame, nil
}

// firstFrame sends the client's preface and returns the first frame of the
// answer, which has to be SETTINGS.
func firstFrame(conn io.ReadWriter) ([]byte, error) {
	// If this fails, the read below fails. It runs aside because on a pipe a server and a
	// client that both speak first would wait for each other.
	go io.WriteString(conn, http2.ClientPreface)
	var frame bytes.Buffer
	if _, err := io.CopyN(&frame, conn, h2.HeaderLen); err != nil {
		return nil, err
	}
	h := h2.ParseHeader(frame.Bytes())
	if h.Type != http2.FrameSettings {
		return nil, fmt.Errorf("its first frame is of type %v", h.Type)
	}
	if _, err := io.CopyN(&frame, conn, int64(h.Length)); err != nil {
		return nil, err
	}
	return frame.Bytes(), nil
}

// onceListener accepts one connection, and then waits to be closed.
type onceListener struct {
	conn   net.Conn
	done   chan struct{}
	used   bool
	closed sync.Once
}

func (l *onceListener) Accept() (net.Conn, error) {
	if l.used {
		<-l.done
		return nil, net.ErrClosed
	}
	l.used = true
	return l.conn, nil
}

func (l *onceListener) Close() error {
	l.closed.Do(func() { close(l.done) })
	return nil
}

func (l *onceListener) Addr() net.Addr { return l.conn.LocalAddr() }
