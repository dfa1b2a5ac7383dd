package protocols

import (
	"io"
	"net"
	"testing"

	"google.golang.org/grpc/mem"
)

// This is the shape that grpc-go looks for.
var _ interface {
	ReadOnReady(bufSize int, pool mem.BufferPool) (*[]byte, int, error)
} = (*Conn)(nil)

// A bareTCP is a connection over a bare socket, as pool.Conn is.
type bareTCP struct {
	*net.TCPConn
	ready int // The calls of ReadReady.
}

var _ bareConn = (*bareTCP)(nil)

func (*bareTCP) IsBare() bool { return true }

func (c *bareTCP) ReadAhead(p []byte) (int, error) { return c.Read(p) }

func (c *bareTCP) ReadReady(size int, pool interface {
	Get(length int) *[]byte
	Put(buf *[]byte)
}) (*[]byte, int, error) {
	c.ready++
	return readInto(c, size, pool)
}

// A countingPool counts the buffers that are out.
type countingPool int

func (p *countingPool) Get(n int) *[]byte {
	*p++
	b := make([]byte, n)
	return &b
}

func (p *countingPool) Put(*[]byte) { *p-- }

// TestReadOnReady has what was peeked come first, and then waits without a buffer.
func TestReadOnReady(t *testing.T) {
	client, server := tcpPair(t)
	inner := &bareTCP{TCPConn: server}
	c := newConn(inner)
	var pool countingPool
	head := string(grpcOpening())
	if _, err := io.WriteString(client, head); err != nil {
		t.Fatal(err)
	}
	c.Sniff(nil)
	expect := func(bufSize int, want string, ready int) {
		t.Helper()
		buf, n, err := c.ReadOnReady(bufSize, &pool)
		if err != nil || string((*buf)[:n]) != want {
			t.Fatalf("ReadOnReady = %d, %v; want %q", n, err, want)
		}
		pool.Put(buf)
		if inner.ready != ready {
			t.Errorf("the socket was asked %d times, want %d", inner.ready, ready)
		}
	}
	expect(4, head[:4], 0)
	expect(len(head), head[4:], 0)
	more := string(pingFrame(0, "12345678"))
	if _, err := io.WriteString(client, more); err != nil {
		t.Fatal(err)
	}
	expect(100, more, 1)
	if highest := c.h2.Load().highest.Load(); highest != 1 {
		t.Errorf("the highest stream is %d, want 1", highest)
	}
	client.Close()
	if buf, n, err := c.ReadOnReady(100, &pool); buf != nil || n != 0 || err != io.EOF {
		t.Errorf("ReadOnReady = %v, %d, %v; want EOF", buf, n, err)
	}
	if pool != 0 {
		t.Errorf("%d buffers are missing", pool)
	}
}

// TestReadOnReadyWithoutSocket has what cannot be waited for, as with TLS.
func TestReadOnReadyWithoutSocket(t *testing.T) {
	client, server := net.Pipe()
	c := newConn(server)
	defer c.Close()
	var pool countingPool
	go func() {
		_, _ = io.WriteString(client, "data")
		client.Close()
	}()
	buf, n, err := c.ReadOnReady(100, &pool)
	if err != nil || string((*buf)[:n]) != "data" {
		t.Fatalf("ReadOnReady = %d, %v; want data", n, err)
	}
	pool.Put(buf)
	if buf, n, err := c.ReadOnReady(100, &pool); buf != nil || n != 0 || err != io.EOF {
		t.Errorf("ReadOnReady = %v, %d, %v; want EOF", buf, n, err)
	}
	if pool != 0 {
		t.Errorf("%d buffers are missing", pool)
	}
}
