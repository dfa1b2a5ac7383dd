package mux_test

import (
	"bufio"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
)

// wrapListener hands out the inner listener's connections as wrap makes them.
type wrapListener struct {
	net.Listener
	wrap func(net.Conn) net.Conn
}

func (l wrapListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.wrap(conn), nil
}

// proxiedConn learns its peer's address from its first bytes, as connections with a PROXY header do.
type proxiedConn struct {
	net.Conn
	r    *bufio.Reader
	once sync.Once
}

func (c *proxiedConn) RemoteAddr() net.Addr {
	c.once.Do(func() { _, _ = c.r.Peek(1) })
	return c.Conn.RemoteAddr()
}

func (c *proxiedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// TestRemoteAddrThatBlocks: a peer whose address is not to be had yet holds up
// nobody: neither others on its port, nor the list of connections, nor Close.
func TestRemoteAddrThatBlocks(t *testing.T) {
	s := serveOn(t, mux.New(mux.Configure(patient), mux.WithLogger(discard)), wrapListener{listen(t), func(conn net.Conn) net.Conn {
		return &proxiedConn{Conn: conn, r: bufio.NewReader(conn)}
	}})
	s.dial(t)
	if got := s.status(t, "/livez"); got != http.StatusOK {
		t.Errorf("beside a silent connection: %d", got)
	}
	eventually(t, "the silent one is listed without an address", func() bool {
		conns := s.Connections()
		return len(conns) == 1 && conns[0].RemoteAddr == ""
	})
	if err := within(t, "Close", s.closing()); err != nil {
		t.Errorf("Close: %v", err)
	}
	s.noneLeft(t)
}

// bufferedConn is a *net.TCPConn to those who look at the socket, and has bytes of its own.
type bufferedConn struct {
	*net.TCPConn
	r *bufio.Reader
}

func (c *bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// TestConnThatBuffers: native gRPC reads a connection that has bytes of its own by its
// Read, and not past it.
func TestConnThatBuffers(t *testing.T) {
	const buffer = 64 << 10
	s := serveOn(t, mux.New(mux.Configure(noDelay), mux.WithLogger(discard),
		mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, testService{}) })),
		wrapListener{listen(t), func(conn net.Conn) net.Conn {
			return &bufferedConn{conn.(*net.TCPConn), bufio.NewReaderSize(conn, buffer)}
		}})
	// More than the recogniser reads, and less than the connection does: the rest is in its buffer.
	conn := s.dial(t)
	send(t, conn, firstCall(t, "grpc-test/1", buffer/2))
	if err := answered(conn); err != nil {
		t.Errorf("a call in the first bytes: %v", err)
	}
	c := testpb.NewTestServiceClient(s.grpcClient(t))
	for range 20 {
		body := strings.Repeat("x", buffer-5000)
		resp, err := c.UnaryCall(t.Context(), &testpb.SimpleRequest{Payload: payload(body)})
		if err != nil || string(resp.GetPayload().GetBody()) != body {
			t.Fatalf("%d bytes, %v", len(resp.GetPayload().GetBody()), err)
		}
	}
	if got := s.Stats().Pools["grpc"].Accepted; got != 2 {
		t.Errorf("%d native connections, want 2", got)
	}
}
