package mux

import (
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/soheilhy/cmux"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

// This file is all that knows cmux: the root as cmux's listener, the matchers, and the
// sub-listeners that take our connections back out of cmux's wrapper.

// cmuxListener is a root as cmux sees it.
type cmuxListener struct{ root *root }

// Accept implements [net.Listener].
func (l cmuxListener) Accept() (net.Conn, error) {
	c, err := l.root.accept()
	if err != nil {
		return nil, err // Not c, which would be a net.Conn that is not nil.
	}
	return c, nil
}

// Close implements [net.Listener]. cmux does not own the root.
func (l cmuxListener) Close() error { return nil }

// Addr implements [net.Listener].
func (l cmuxListener) Addr() net.Addr { return l.root.listener.Addr() }

// divide has cmux divide the connections of the root among the servers of the built-in
// protocols, and custom ones that are asked before and after them. It returns when the root
// has ended and all of its connections are with their servers or closed.
func (r *root) divide(before, after []*custom) {
	var wg sync.WaitGroup
	defer wg.Wait()
	m := cmux.New(cmuxListener{r})
	attach := func(tag protocols.Protocol, serve func(net.Listener) error) {
		l := &subListener{root: r, tag: pool.Tag(tag), inner: m.MatchWithWriters(isProtocol(tag))}
		wg.Go(func() {
			err := serve(l)
			r.books.logger.Debug("server left its listener", keyProtocol, string(tag), keyLocalAddr, l.Addr().String(), keyErr, err)
			l.closeRest()
		})
	}
	attachCustoms := func(customs []*custom) {
		for _, custom := range customs {
			l := &subListener{root: r, tag: pool.Tag(custom.name), inner: m.MatchWithWriters(custom.match)}
			wg.Go(func() { custom.pump(l) })
		}
	}
	attachCustoms(before)
	attach(protocols.HTTP1, r.backend.http1.Serve)
	attach(protocols.WebSocket, r.backend.http1.Serve)
	attach(protocols.GRPC, r.backend.grpc.Native.Serve)
	attach(protocols.HTTP2, func(l net.Listener) error { return protocols.ServeHTTP2(r.backend.http2, l) })
	attachCustoms(after)
	_ = m.Serve() // It returns what accept does.
}

// isProtocol is the cmux matcher of a built-in protocol. As its writer cmux passes the
// very connection that the root has accepted. So the first matcher recognises the
// connection, and the others compare.
func isProtocol(p protocols.Protocol) cmux.MatchWriter {
	return func(w io.Writer, _ io.Reader) bool {
		c, ok := w.(*conn)
		return ok && c.classify() == p
	}
}

// subListener gives a server the connections of one tag. Closing it closes neither the
// root nor its siblings; it ends with the root.
type subListener struct {
	root  *root
	tag   pool.Tag
	inner net.Listener // cmux's
}

// Accept implements [net.Listener]. It takes our connection out of cmux's wrapper, which
// has read nothing and would hide sendfile.
func (l *subListener) Accept() (net.Conn, error) {
	for {
		wrapped, err := l.inner.Accept()
		if err != nil {
			return nil, fmt.Errorf("mux: %s: %w", l.tag, net.ErrClosed)
		}
		mc, ok := wrapped.(*cmux.MuxConn)
		if !ok {
			return nil, fmt.Errorf("mux: cmux delivered a %T", wrapped)
		}
		c, ok := mc.Conn.(*conn)
		if !ok {
			return nil, fmt.Errorf("mux: cmux wrapped a %T", mc.Conn)
		}
		if l.root.admission.dispatch(c, l.tag) {
			return c, nil
		}
	}
}

// closeRest closes the connections that still come after the server has left the listener.
func (l *subListener) closeRest() {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_ = c.Close()
	}
}

// Close implements [net.Listener] and does nothing.
func (l *subListener) Close() error { return nil }

// Addr implements [net.Listener].
func (l *subListener) Addr() net.Addr { return l.root.listener.Addr() }
