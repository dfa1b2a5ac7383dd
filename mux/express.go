package mux

import (
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

// Most connections speak HTTP/1.1, and show it in their first packet. To recognise them in one goroutine and serve them in
// another costs the switch between the two, and the growth of a second stack: some 5 % of a connection with one
// request. So they are accepted by the HTTP/1.1 server itself, whose first Read takes the look. A
// connection that turns out to be anything else, or does not show it at once, leaves that server, which takes
// it for one that was closed by its peer, and goes the way of all others: through cmux.
//
// That detour is dearer than the short way is cheap, so it is only taken while there is reason to expect HTTP/1.1: see forecast.

// A forecast guesses, from the connections that came before, whether the next one speaks HTTP/1.1, as a processor guesses
// where a branch goes. All that hangs on it is which goroutine recognises the connection.
type forecast struct{ level atomic.Int32 }

// maxForecast is how sure a forecast can be: so many surprises in a row turn it around.
const maxForecast = 4

// maxLooking is how many connections at a time the HTTP/1.1 server may be waiting to hear from. Each of them has that server's
// buffers already, of 8 KB, which who says nothing is not worth.
const maxLooking = 256

// isHTTP1 is the guess. It is yes as long as nothing is known.
func (f *forecast) isHTTP1() bool { return f.level.Load() >= 0 }

// learn takes in what a connection has turned out to be. Of two at the same moment, one may be forgotten.
func (f *forecast) learn(isHTTP1 bool) {
	level := f.level.Load()
	switch {
	case isHTTP1 && level < maxForecast:
		f.level.Store(level + 1)
	case !isHTTP1 && level > -maxForecast:
		f.level.Store(level - 1)
	}
}

// hasExpress reports whether this is done: where there may be HTTP/1.1 at all, nobody is to be
// asked before, and no handshake comes first.
func (r *root) hasExpress() bool {
	return r.allow.http1 && r.tlsConfig == nil && len(r.server.customs(false)) == 0
}

// An expressListener gives the HTTP/1.1 server what a root accepts.
type expressListener struct{ root *root }

// Accept implements [net.Listener]. A connection whose address stands in a header, that brings its own TLS or is to be refused is not for it.
func (l *expressListener) Accept() (net.Conn, error) {
	r := l.root
	for {
		c, err := r.accept()
		if err != nil {
			r.endQueue(err)
			return nil, net.ErrClosed
		}
		switch c.account.NetConn().(type) {
		case *net.TCPConn, *net.UnixConn:
			if c.refused == notRefused && r.forecast.isHTTP1() && r.looking.Load() < maxLooking {
				return c, nil
			}
		}
		r.enqueue(&c.conn)
	}
}

// enqueue sends a connection through cmux.
func (r *root) enqueue(c *conn) {
	select {
	case r.queue <- c:
	case <-r.queueEnd:
		_ = c.Close()
	}
}

// endQueue ends what comes by the queue. The first error counts.
func (r *root) endQueue(err error) {
	r.queueOnce.Do(func() {
		r.failure = err
		close(r.queueEnd)
	})
}

// Close implements [net.Listener] and does nothing.
func (l *expressListener) Close() error { return nil }

// Addr implements [net.Listener].
func (l *expressListener) Addr() net.Addr { return l.root.Addr() }

// An expressConn is a connection as the HTTP/1.1 server sees it that has accepted it.
type expressConn struct{ conn }

// asConn returns the connection behind what one of the servers has.
func asConn(nc net.Conn) (*conn, bool) {
	switch c := nc.(type) {
	case *conn:
		return c, true
	case *expressConn:
		return &c.conn, true
	default:
		return nil, false
	}
}

// RemoteAddr implements [net.Conn]. It is the first that net/http's goroutine for the connection asks for.
func (c *expressConn) RemoteAddr() net.Addr {
	if !c.has(flagExpress) {
		growStack()
	}
	return c.conn.RemoteAddr()
}

// growStack makes the goroutine's stack 8 KB, as big as it will be in any case before the first request is answered, or the
// connection is recognised. To grow from 2 KB by way of 4 KB later, when it is deep, and each frame has to be copied and
// adjusted, takes twice as long: 3 % of a connection with one request. The compiler must not leave out the array, of which the stack has to have room for.
//
//go:noinline
func growStack() {
	var room [3 << 10]byte
	runtime.KeepAlive(&room)
}

// Read implements [net.Conn]. The first one finds out what the peer speaks.
func (c *expressConn) Read(p []byte) (int, error) {
	if !c.has(flagExpress) && !c.conn.look() {
		return 0, io.EOF
	}
	return c.conn.Read(p)
}

// Close implements [net.Conn]. It does not close a connection that has gone another way.
func (c *expressConn) Close() error {
	if c.has(flagMoved) {
		return nil
	}
	return c.conn.Close()
}

// look reports whether the connection speaks HTTP/1.1, and is to be served. If not, it has been handed over.
func (c *conn) look() bool {
	c.set(flagExpress | flagSniffing)
	c.root.looking.Add(1)
	isHTTP1 := c.SniffHTTP1(&c.root.sniffs.Load().normal)
	c.root.looking.Add(-1)
	if !isHTTP1 {
		c.set(flagMoved)
		c.root.forecast.learn(false)
		c.root.enqueue(c)
		return false
	}
	c.set(flagPrepared | flagDecided)
	if !c.root.server.dispatch(c, pool.Tag(protocols.HTTP1)) {
		c.set(flagMoved) // It is being refused, or is closed.
		return false
	}
	if d := c.root.backend.config.HTTP1.HeaderTimeout; d > 0 {
		_ = c.SetReadDeadline(time.Now().Add(d)) // The server's own has been in the way of the look.
	}
	return true
}
