package mux_test

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muxserve/muxserve/mux"
)

// TestCloseBreaksBlockedWrite: a handler that is stuck in a Write, on TLS that the
// caller of Serve brought, does not hold up Close.
func TestCloseBreaksBlockedWrite(t *testing.T) {
	ca := newAuthority(t)
	stall := &stallListener{Listener: listen(t), stalled: make(chan struct{})}
	ended := make(chan error, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		stall.on.Store(true)
		_, err := w.Write(make([]byte, 1<<20))
		ended <- err
	})
	s := serveOn(t, mux.New(mux.Configure(patient), mux.WithLogger(discard), mux.WithHandler(handler)),
		tls.NewListener(stall, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "server.test")}}))
	s.roots = ca.pool
	send(t, s.dial(t), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	within(t, "the handler to be stuck", stall.stalled)
	if err := within(t, "Close", s.closing()); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := within(t, "the handler", ended); err == nil {
		t.Error("the write did not fail")
	}
	within(t, "Serve", s.served)
	s.noStepLate(t)
	s.noneLeft(t)
}

// stallListener makes connections whose Write blocks until they are closed, once it is on.
type stallListener struct {
	net.Listener
	on      atomic.Bool
	once    sync.Once
	stalled chan struct{} // closed when a Write blocks
}

func (l *stallListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &stallConn{Conn: conn, l: l, closed: make(chan struct{})}, nil
}

type stallConn struct {
	net.Conn
	l      *stallListener
	once   sync.Once
	closed chan struct{}
}

func (c *stallConn) Write(b []byte) (int, error) {
	if !c.l.on.Load() {
		return c.Conn.Write(b)
	}
	c.l.once.Do(func() { close(c.l.stalled) })
	<-c.closed
	return 0, net.ErrClosed
}

func (c *stallConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// TestCloseMeetsAccept: a connection that is accepted while Close is closing all
// that it has found is closed as well.
func TestCloseMeetsAccept(t *testing.T) {
	l := &lateListener{release: make(chan struct{})}
	met := make(chan struct{})
	client, server := net.Pipe()
	defer client.Close()
	l.first = &hookedConn{Conn: server, onClose: sync.OnceFunc(func() {
		close(l.release)
		<-met
	})}
	client, server = net.Pipe()
	defer client.Close()
	meet := sync.OnceFunc(func() { close(met) })
	l.late = &hookedConn{Conn: server, onClose: meet, onRemoteAddr: meet}
	s := serveOn(t, mux.New(mux.Configure(patient), mux.WithLogger(discard)), l)
	eventually(t, "accepted", func() bool { return s.active("sniffing") == 1 })
	if err := within(t, "Close", s.closing()); err != nil {
		t.Errorf("Close: %v", err)
	}
	within(t, "Serve", s.served)
	s.noStepLate(t)
	s.noneLeft(t)
}

// lateListener accepts one connection, and a second one when it is released.
type lateListener struct {
	first, late net.Conn
	accepts     int // Belongs to the goroutine that accepts.
	release     chan struct{}
}

func (l *lateListener) Accept() (net.Conn, error) {
	switch l.accepts++; l.accepts {
	case 1:
		return l.first, nil
	case 2:
		<-l.release
		return l.late, nil
	}
	return nil, net.ErrClosed
}

// SetDeadline lets the server believe that Accept can be woken, so that it does not close the listener.
func (*lateListener) SetDeadline(time.Time) error { return nil }

func (*lateListener) Close() error   { return nil }
func (*lateListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// hookedConn calls its hooks before it does what it is asked.
type hookedConn struct {
	net.Conn
	onClose, onRemoteAddr func() // nil: nothing
}

func (c *hookedConn) Close() error {
	c.onClose()
	return c.Conn.Close()
}

func (c *hookedConn) RemoteAddr() net.Addr {
	if c.onRemoteAddr != nil {
		c.onRemoteAddr()
	}
	return c.Conn.RemoteAddr()
}
