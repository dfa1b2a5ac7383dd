package protocols

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/mem"
)

// This is the shape that grpc-go looks for.
var _ interface {
	ReadOnReady(bufSize int, pool mem.BufferPool) (*[]byte, int, error)
} = (*Conn)(nil)

// A countedConn is told of raw reads.
type countedConn struct {
	*net.TCPConn
	counted int
	noted   error
}

func (c *countedConn) CountRead(n int) { c.counted += n }

func (c *countedConn) NoteError(err error) { c.noted = err }

func (c *countedConn) ReadConn() (syscall.RawConn, bool) {
	raw, err := c.SyscallConn()
	return raw, err == nil
}

// A watchedPool tells when a buffer is given back. It is used by one
// goroutine, apart from its channel.
type watchedPool struct {
	out int
	put chan int // Receives how many buffers are out, if somebody waits.
}

func (p *watchedPool) Get(n int) *[]byte {
	p.out++
	b := make([]byte, n)
	return &b
}

func (p *watchedPool) Put(*[]byte) {
	p.out--
	select {
	case p.put <- p.out:
	default:
	}
}

// TestReadBuffersArePooled is point 13: an idle connection holds no buffer.
func TestReadBuffersArePooled(t *testing.T) {
	client, server := tcpPair(t)
	inner := &countedConn{TCPConn: server}
	c := newConn(inner)
	pool := &watchedPool{put: make(chan int, 1)}
	head := string(grpcOpening())
	if _, err := io.WriteString(client, head); err != nil {
		t.Fatal(err)
	}
	c.Sniff(nil)
	expect := func(bufSize int, want string) {
		t.Helper()
		buf, n, err := c.ReadOnReady(bufSize, pool)
		if err != nil || string((*buf)[:n]) != want {
			t.Fatalf("ReadOnReady = %d, %v; want %q", n, err, want)
		}
		pool.Put(buf)
	}
	expect(4, head[:4])
	expect(len(head), head[4:])
	if inner.counted != 0 {
		t.Errorf("%d bytes of the peek buffer were counted again", inner.counted)
	}

	<-pool.put
	go func() {
		if out := <-pool.put; out != 0 {
			t.Errorf("%d buffers are out while the connection is idle", out)
		}
		_, _ = io.WriteString(client, "more")
	}()
	expect(100, "more")
	if inner.counted != len("more") {
		t.Errorf("%d raw bytes were counted, want %d", inner.counted, len("more"))
	}

	if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.ReadOnReady(100, pool); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("ReadOnReady: %v, want a timeout", err)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	client.Close()
	if buf, n, err := c.ReadOnReady(100, pool); buf != nil || n != 0 || err != io.EOF {
		t.Errorf("ReadOnReady = %v, %d, %v; want EOF", buf, n, err)
	}
	if pool.out != 0 {
		t.Errorf("%d buffers are missing", pool.out)
	}
}

// TestReadOnReadyWithoutSocket has what cannot be waited for, as with TLS.
func TestReadOnReadyWithoutSocket(t *testing.T) {
	client, server := net.Pipe()
	c := newConn(server)
	defer c.Close()
	pool := &watchedPool{put: make(chan int)}
	go func() {
		_, _ = io.WriteString(client, "data")
		client.Close()
	}()
	buf, n, err := c.ReadOnReady(100, pool)
	if err != nil || string((*buf)[:n]) != "data" {
		t.Fatalf("ReadOnReady = %d, %v; want data", n, err)
	}
	pool.Put(buf)
	if buf, n, err := c.ReadOnReady(100, pool); buf != nil || n != 0 || err != io.EOF {
		t.Errorf("ReadOnReady = %v, %d, %v; want EOF", buf, n, err)
	}
	if pool.out != 0 {
		t.Errorf("%d buffers are missing", pool.out)
	}
}
