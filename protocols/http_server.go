package protocols

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// HTTPHooks is what an HTTP server here is built around: live code, as opposed
// to the settings of its section.
type HTTPHooks struct {
	Handler     http.Handler
	BaseContext func(net.Listener) context.Context // nil: the background
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
		BaseContext: h.BaseContext,
		ConnContext: h.ConnContext,
		ConnState:   h.ConnState,
		ErrorLog:    errorLog(h.Logger),
		Protocols:   new(http.Protocols),
		// The connections are past their TLS handshake when they come here.
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12},
		// net/http's own handler of "OPTIONS *" would read a body that nothing bounds.
		DisableGeneralOptionsHandler: true,
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

// ErrNoExtendedConnect is returned where WebSockets over HTTP/2 are asked for and
// this process's net/http does not offer them. It reads its own switch once,
// when the process starts, so that neither a program nor a //go:debug line can set it:
// the environment must have it before.
var ErrNoExtendedConnect = errors.New("protocols: http2.websocket: net/http has extended CONNECT (RFC 8441) switched off; start the process with GODEBUG=http2xconnect=1 in its environment")
