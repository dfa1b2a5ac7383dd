package mux_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muxserve/muxserve/mux"
)

// fullConn is a socket whose client has taken so little that nothing more fits into its send
// buffer once it is full. It has no deadline then, so that nothing ends a write but a close.
type fullConn struct {
	net.Conn

	full *atomic.Bool
	deaf bool // no deadline ends a read either
}

// filling is more than the buffers of both systems hold where nothing is read.
var filling = make([]byte, 2<<20)

func (c fullConn) NetConn() net.Conn { return c.Conn }

func (c fullConn) Write(p []byte) (int, error) {
	if c.full.Load() {
		_, _ = c.Conn.Write(filling)
	}
	return c.Conn.Write(p)
}

func (c fullConn) SetWriteDeadline(t time.Time) error {
	if c.full.Load() {
		return nil
	}
	return c.Conn.SetWriteDeadline(t)
}

func (c fullConn) SetReadDeadline(t time.Time) error {
	if c.deaf && c.full.Load() {
		return nil
	}
	return c.Conn.SetReadDeadline(t)
}

// fullListener has the sockets that it has accepted be full when fill is called.
type fullListener struct {
	net.Listener

	deaf bool
	mu   sync.Mutex
	full []*atomic.Bool
}

func (l *fullListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	_ = c.(*net.TCPConn).SetWriteBuffer(256 << 10)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.full = append(l.full, new(atomic.Bool))
	return fullConn{c, l.full[len(l.full)-1], l.deaf}, nil
}

func (l *fullListener) fill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, full := range l.full {
		full.Store(true)
	}
}

// startFull serves TLS on sockets that can be full. The caller of Serve brings the TLS, or not.
func startFull(t *testing.T, brought, deaf bool, options ...mux.Option) (*server, *fullListener) {
	t.Helper()
	ca := newAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "server.test")}}
	below := &fullListener{Listener: listen(t), deaf: deaf}
	var l net.Listener = below
	if brought {
		l = tls.NewListener(below, config)
	} else {
		options = append(options, mux.WithTLS(config))
	}
	m, _ := newServer(t, false, options...)
	serveToEnd(t, m, func() error { return m.Serve(l) })
	return &server{Server: m, addr: below.Addr().String(), roots: ca.pool}, below
}

// comes opens a connection that stays, and reports whether it is served.
func (s *server) comes(t *testing.T) bool {
	t.Helper()
	patience := net.Dialer{Timeout: 2 * time.Second} // Another comes then.
	conn, err := tls.DialWithDialer(&patience, "tcp", s.addr, &tls.Config{RootCAs: s.roots})
	if err != nil {
		return false
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience.Timeout))
	if _, err := io.WriteString(conn, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return false
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	return err == nil && resp.StatusCode == http.StatusOK
}

// TestUnsaidGoodbyeMakesRoom: an idle connection keeps nobody out whose client takes so little
// that the goodbye of TLS cannot be written, also within the head of its next request, or where
// no deadline ends the wait for one. A client that reads later has its last answer whole.
func TestUnsaidGoodbyeMakesRoom(t *testing.T) {
	const limit, size = 3, 200 << 10 // More than the client's system takes.
	for _, brought := range []bool{false, true} {
		for _, test := range []struct {
			next string
			deaf bool
		}{{"", false}, {"G", false}, {"", true}} {
			t.Run(fmt.Sprintf("brought %t, next %q, deaf %t", brought, test.next, test.deaf), func(t *testing.T) {
				t.Parallel()
				s, l := startFull(t, brought, test.deaf, limits(func(c *mux.Config) { c.Limits.MaxConnections = limit }),
					mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
						_, _ = w.Write(make([]byte, size))
					})))
				s.SetLeaving(1, time.Hour)
				var conns []net.Conn
				for i := range limit {
					conn := s.dial(t)
					send(t, conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
					eventually(t, "it is idle", func() bool { return s.inState("idle") == i+1 })
					before := s.received(conn)
					send(t, conn, test.next)
					eventually(t, "the next has begun", func() bool { return test.next == "" || s.received(conn) > before })
					conns = append(conns, conn)
				}
				l.fill()
				for i := range 2 * limit {
					eventually(t, fmt.Sprintf("newcomer %d is served", i), func() bool { return s.comes(t) })
				}
				for i, conn := range conns {
					_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
					resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
					if err != nil {
						t.Fatalf("%d: %v", i, err)
					}
					if n, err := io.Copy(io.Discard, resp.Body); n != size || err != nil {
						t.Errorf("%d: the answer has %d bytes, %v", i, n, err)
					}
				}
			})
		}
	}
}
