package mux_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muxserve/muxserve/mux"
)

// heldConn holds its server, which asks for its address before it reads, until it is released.
type heldConn struct {
	net.Conn
	release chan struct{}
}

func (c *heldConn) LocalAddr() net.Addr {
	<-c.release
	return c.Conn.LocalAddr()
}

// TestDrainWaitsForFirstRequest: clients are not told to leave while the first
// request of a connection is on the way to its server, for GOAWAY would refuse it.
func TestDrainWaitsForFirstRequest(t *testing.T) {
	for name, request := range map[string]string{
		"native gRPC": firstCall(t, "grpc-test/1", 10),
		"HTTP/2":      firstCall(t, "other", 10),
	} {
		t.Run(name, func(t *testing.T) {
			release := make(chan chan struct{}, 1)
			hold := func(m *mux.Server, l net.Listener) error {
				return m.Serve(wrapListener{l, func(conn net.Conn) net.Conn {
					held := &heldConn{conn, make(chan struct{})}
					release <- held.release
					return held
				}})
			}
			timed(t, func() *mux.Server { return mux.New(mux.Configure(noDelay), mux.WithLogger(discard)) }, hold,
				func(t *testing.T, m *mux.Server, l *pipeListener) {
					s := &server{Server: m}
					conn := l.dial()
					defer conn.Close()
					send(t, conn, request)
					told, done := s.told(t), s.drain(t.Context())
					synctest.Wait()
					select {
					case <-told:
						t.Error("clients were told before the request had come")
					default:
					}
					close(<-release)
					if err := answered(conn); err != nil {
						t.Error(err)
					}
					_ = conn.Close()
					if got := <-done; got.err != nil {
						t.Errorf("drain: %v", got.err)
					}
				})
		})
	}
}

// crossedConn lets a request come between the drain's decision that the
// connection is idle, and the deadline which is to end its wait.
type crossedConn struct {
	net.Conn
	armed    atomic.Bool   // Set when it is idle: net/http ends its own reads in the same way.
	deciding chan struct{} // closed when the deadline is about to be set
	parsed   chan struct{} // closed when the request's head has been parsed
	once     sync.Once
}

// SetReadDeadline tells by the deadline what it is for: net/http takes the bound
// of the head off when it has parsed the head.
func (c *crossedConn) SetReadDeadline(t time.Time) error {
	if t.Before(time.Now()) && !t.IsZero() && c.armed.CompareAndSwap(true, false) {
		close(c.deciding)
		<-c.parsed
	}
	err := c.Conn.SetReadDeadline(t)
	if t.IsZero() {
		select {
		case <-c.deciding:
			c.once.Do(func() { close(c.parsed) })
		default:
		}
	}
	return err
}

// TestDrainTakesDeadlineBack: a request that comes at the very moment when the drain
// closes its idle connection is served with its body.
func TestDrainTakesDeadlineBack(t *testing.T) {
	accepted := make(chan *crossedConn, 1)
	begun := make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			close(begun)
		}
		if _, err := io.Copy(w, r.Body); err != nil {
			t.Errorf("body: %v", err)
		}
	})
	s := serveOn(t, mux.New(mux.Configure(patient), mux.WithLogger(discard), mux.WithHandler(handler)),
		wrapListener{listen(t), func(conn net.Conn) net.Conn {
			c := &crossedConn{Conn: conn, deciding: make(chan struct{}), parsed: make(chan struct{})}
			accepted <- c
			return c
		}})
	conn := s.dial(t)
	r := bufio.NewReader(conn)
	roundTrip(t, conn, r, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	eventually(t, "idle", func() bool { return s.Connections()[0].State == "idle" })
	crossed := <-accepted
	crossed.armed.Store(true)
	done := s.drain(context.WithoutCancel(t.Context()))
	within(t, "the drain to find it idle", crossed.deciding)
	send(t, conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n")
	within(t, "the handler", begun)
	resp := roundTrip(t, conn, r, "abc")
	if body, err := io.ReadAll(resp.Body); string(body) != "abc" || err != nil || !resp.Close {
		t.Errorf("%s, %q, %v, close %v", resp.Status, body, err, resp.Close)
	}
	if got := within(t, "the drain", done); got.err != nil {
		t.Errorf("drain: %v", got.err)
	}
}
