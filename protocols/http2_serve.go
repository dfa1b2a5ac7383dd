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

// nextProtoUnencrypted is the key under which net/http keeps what serves HTTP/2 on a connection without TLS. As with
// golang.org/x/net/http2, which uses it as well, that is called when the client's preface has been read.
const nextProtoUnencrypted = "unencrypted_http2"

// ServeHTTP2 has srv, a server of [NewHTTP2Server], serve the connections of l, which were recognised as HTTP2 or GRPC. It is
// srv.Serve but for what that keeps of a connection until it ends: the 8 KB of buffers and the context that an
// HTTP/1.1 connection would have needed. It follows that [http.Server.Shutdown] tells the connections to
// leave and does not wait for them, and that [http.Server.Close] leaves them open.
//
// Where net/http has no such way to hand a connection to HTTP/2, it is srv.Serve.
func ServeHTTP2(srv *http.Server, l net.Listener) error {
	return srv.Serve(&prefacedListener{Listener: l, server: srv})
}

// A prefacedListener serves the connections that it accepts. Its server's accept loop is left with the errors.
type prefacedListener struct {
	net.Listener
	server *http.Server
}

// A handOver is how net/http gives a connection away that speaks another protocol.
type handOver func(*http.Server, *tls.Conn, http.Handler)

// Accept implements [net.Listener]. It is called by the server, which has found its protocols by then.
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

// unencrypted brings a connection past a parameter that is a *tls.Conn: what takes it there looks for this method.
type unencrypted struct {
	net.Conn // Nil: nothing else is asked of it.
	conn     net.Conn
}

// UnencryptedNetConn returns the connection.
func (u unencrypted) UnencryptedNetConn() net.Conn { return u.conn }

// handler returns the root handler of a connection.
func (l *prefacedListener) handler(conn net.Conn) http.Handler {
	ctx := context.Background()
	if l.server.ConnContext != nil {
		ctx = l.server.ConnContext(ctx, conn)
	}
	return &connHandler{ctx, l.server.Handler}
}

// A connHandler is a connection's handler and, where HTTP/2 looks for it, the context of its requests.
type connHandler struct {
	ctx     context.Context //nolint:containedctx // It is the connection's, for BaseContext.
	handler http.Handler
}

// BaseContext returns the context that those of the connection's requests come from. HTTP/2 adds the server and the local address.
func (h *connHandler) BaseContext() context.Context { return h.ctx }

// maxOptionsBody is how much of the body of "OPTIONS *" is read, as in net/http. No use is defined for it (RFC 9110, section 9.3.7).
const maxOptionsBody = 4 << 10

// ServeHTTP implements [http.Handler]. Like net/http it answers "OPTIONS *", which asks for no resource.
func (h *connHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodOptions || r.RequestURI != "*" {
		h.handler.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Content-Length", "0")
	if r.ContentLength != 0 {
		_, _ = io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxOptionsBody))
	}
}
