package protocols

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime/debug"

	"golang.org/x/net/http2"
)

// nextProtoUnencrypted is the key under which net/http keeps the function that serves
// HTTP/2 on a connection without TLS. golang.org/x/net/http2 uses it as well. The
// function is called when the client's preface has been read.
const nextProtoUnencrypted = "unencrypted_http2"

// ServeHTTP2 has srv, a server of [NewHTTP2Server], serve the connections of l, which
// were recognised as HTTP2. It does what srv.Serve does, but spares each
// connection the 8 KB of buffers and the context that HTTP/1.1 needs. So
// [http.Server.Shutdown] tells the connections to leave and does not wait for them, and
// [http.Server.Close] leaves them open.
//
// If net/http has no such way to hand a connection to HTTP/2, ServeHTTP2 is srv.Serve.
func ServeHTTP2(srv *http.Server, l net.Listener) error {
	base := context.Background()
	if srv.BaseContext != nil {
		base = srv.BaseContext(l)
	}
	return srv.Serve(&prefacedListener{Listener: l, server: srv, base: base})
}

// A prefacedListener serves the connections that it accepts. Its Accept returns errors
// only.
type prefacedListener struct {
	net.Listener
	server *http.Server
	base   context.Context //nolint:containedctx // It is the listener's.
}

// A handOver is net/http's function for a connection that speaks another protocol.
type handOver func(*http.Server, *tls.Conn, http.Handler)

// Accept implements [net.Listener]. The server calls it after it has set up its
// protocols.
func (l *prefacedListener) Accept() (net.Conn, error) {
	serve, ok := l.server.TLSNextProto[nextProtoUnencrypted]
	for {
		conn, err := l.Listener.Accept()
		if err != nil || !ok {
			return conn, err
		}
		go l.serve(conn, serve)
	}
}

// serve serves a connection until it ends. It does what a goroutine of net/http's does.
func (l *prefacedListener) serve(conn net.Conn, serve handOver) {
	l.changed(conn, http.StateNew)
	defer l.changed(conn, http.StateClosed)
	defer conn.Close()
	defer func() {
		if v := recover(); v != nil && v != http.ErrAbortHandler { //nolint:errorlint // As net/http compares it.
			l.server.ErrorLog.Printf("http: panic serving %v: %v\n%s", conn.RemoteAddr(), v, debug.Stack())
		}
	}()
	if readPreface(conn) != nil {
		return
	}
	serve(l.server, tls.Client(unencrypted{conn: conn}, nil), l.handler(conn))
}

func (l *prefacedListener) changed(conn net.Conn, state http.ConnState) {
	if l.server.ConnState != nil {
		l.server.ConnState(conn, state)
	}
}

var errNoPreface = errors.New("protocols: the connection does not begin with the HTTP/2 preface")

// readPreface reads the client's preface (RFC 9113, section 3.4).
func readPreface(r io.Reader) error {
	var preface [len(http2.ClientPreface)]byte
	if _, err := io.ReadFull(r, preface[:]); err != nil {
		return err
	}
	if string(preface[:]) != http2.ClientPreface {
		return errNoPreface
	}
	return nil
}

// unencrypted passes a connection without TLS as a *tls.Conn. net/http looks for its
// method.
type unencrypted struct {
	net.Conn // Nil: no other method is called.
	conn     net.Conn
}

// UnencryptedNetConn returns the connection.
func (u unencrypted) UnencryptedNetConn() net.Conn { return u.conn }

// handler returns the root handler of a connection.
func (l *prefacedListener) handler(conn net.Conn) http.Handler {
	ctx := l.base
	if l.server.ConnContext != nil {
		ctx = l.server.ConnContext(ctx, conn)
	}
	return &connHandler{l.server.Handler, ctx}
}

// A connHandler is a connection's handler. The HTTP/2 server takes its requests' context
// from BaseContext.
type connHandler struct {
	http.Handler
	ctx context.Context //nolint:containedctx // It is the connection's, for BaseContext.
}

// BaseContext returns the parent of the contexts of the connection's requests. The HTTP/2
// server adds itself and the local address.
func (h *connHandler) BaseContext() context.Context { return h.ctx }
