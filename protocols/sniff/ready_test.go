package sniff

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/mem"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/internal/h2"
	"github.com/muxserve/muxserve/protocols/internal/wiretest"
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

var _ h2.BareConn = (*bareTCP)(nil)

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
	client, server := wiretest.TCPPair(t)
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
	client.Close()
	if buf, n, err := c.ReadOnReady(100, &pool); buf != nil || n != 0 || err != io.EOF {
		t.Errorf("ReadOnReady = %v, %d, %v; want EOF", buf, n, err)
	}
	if pool != 0 {
		t.Errorf("%d buffers are missing", pool)
	}
}

// A heldConn notes how many buffers of a pool are out whenever it is read from, and has the
// client send its next record.
type heldConn struct {
	net.Conn
	pool *countingPool
	held []countingPool
	send func()
}

func (c *heldConn) Read(p []byte) (int, error) {
	c.held = append(c.held, *c.pool)
	c.send()
	return c.Conn.Read(p)
}

// TestReadOnReadyOverTLS has a connection wait for each frame without a buffer.
func TestReadOnReadyOverTLS(t *testing.T) {
	ping := string(pingFrame(0, "12345678"))
	ack := string(wiretest.ClientBytes(func(fr *http2.Framer) { _ = fr.WriteSettingsAck() })[len(http2.ClientPreface):])
	for _, tt := range []struct {
		name    string
		records []string // what the client writes before it ends
		size    int      // of the buffers
		want    []string // what the reads return before the end
		held    []countingPool
	}{
		{"a frame", []string{ping}, 100, []string{ping}, []countingPool{0, 0}},
		{"two frames in a record", []string{ping + ack}, 100, []string{ping + ack}, []countingPool{0, 0}},
		{"frames without payload", []string{ack + ack}, 100, []string{ack, ack}, []countingPool{0, 0}},
		{"a header and its payload", []string{ping[:9], ping[9:]}, 100, []string{ping}, []countingPool{0, 1, 0}},
		{"a part of a header", []string{ping[:4], ping[4:]}, 100, []string{ping[:4], ping[4:]}, []countingPool{0, 1, 0}},
		{"small buffers", []string{ping}, 8, []string{ping[:8], ping[8:16], ping[16:]}, []countingPool{0, 0}},
		{"no frame", nil, 100, nil, []countingPool{0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var pool countingPool
			socket, server := wiretest.TCPPair(t)
			client := tls.Client(socket, &tls.Config{InsecureSkipVerify: true})
			inner := &heldConn{Conn: server, pool: &pool, send: func() {}}
			c := newConn(tls.Server(inner, &tls.Config{Certificates: []tls.Certificate{wiretest.Certificate(t)}}))
			sent := make(chan error, 1)
			go func() {
				_, err := client.Write(grpcOpening())
				sent <- err
			}()
			v := c.Sniff(nil)
			if err := <-sent; v.Protocol != protocols.GRPC || err != nil {
				t.Fatalf("verdict %+v, %v", v, err)
			}
			if _, err := io.ReadFull(c, make([]byte, len(grpcOpening()))); err != nil {
				t.Fatal(err)
			}
			inner.held, inner.send = nil, func() {
				if len(tt.records) == 0 {
					_ = client.CloseWrite()
					return
				}
				mustWrite(t, client, []byte(tt.records[0]))
				tt.records = tt.records[1:]
			}
			for _, want := range tt.want {
				buf, n, err := c.ReadOnReady(tt.size, &pool)
				if err != nil || string((*buf)[:n]) != want {
					t.Fatalf("ReadOnReady = %d, %v; want %q", n, err, want)
				}
				pool.Put(buf)
			}
			if buf, n, err := c.ReadOnReady(tt.size, &pool); buf != nil || n != 0 || err != io.EOF {
				t.Errorf("ReadOnReady = %v, %d, %v; want EOF", buf, n, err)
			}
			if d := cmp.Diff(tt.held, inner.held); d != "" {
				t.Errorf("buffers that were out when the socket was read (-want +got):\n%s", d)
			}
			if pool != 0 {
				t.Errorf("%d buffers are missing", pool)
			}
		})
	}
}

// TestReadOnReadyWithoutSocket has what cannot be waited for, before the verdict.
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

// TestHTTP2ReadsAndWritesAllocateNothing has a connection in use: a frame in two reads,
// and one write.
func TestHTTP2ReadsAndWritesAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes pools drop what they are given")
	}
	client, server := wiretest.TCPPair(t)
	c := newHTTP2(&bareTCP{TCPConn: server})
	mustWrite(t, client, []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	p := make([]byte, 24)
	if _, err := io.ReadFull(c, p); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, c, testSettings)
	frame := pingFrame(0, "12345678")
	got := make([]byte, len(frame))
	n := testing.AllocsPerRun(100, func() {
		mustWrite(t, client, frame)
		for _, part := range [][]byte{p[:h2.HeaderLen], p[h2.HeaderLen:len(frame)]} {
			if _, err := io.ReadFull(c, part); err != nil {
				t.Fatal(err)
			}
		}
		mustWrite(t, c, frame)
		if _, err := io.ReadFull(client, got[:1]); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for a frame each way, want none", n)
	}
}

// newHTTP2 returns a Conn over inner that was recognised as HTTP/2.
func newHTTP2(inner net.Conn) *Conn {
	c := newConn(inner)
	c.h2.Store(h2.New(inner, h2.Options{NetHTTP: true}))
	return c
}

// maxWriteStack is what Write may take of the 2 KB of a new goroutine's stack. net/http's
// flush and the layers below leave some 130 bytes, of which the account takes 48.
const maxWriteStack = 80

// depthConn tells where the stack is when it is written to.
type depthConn struct {
	net.Conn
	at uintptr
}

//go:noinline
func (c *depthConn) Write(p []byte) (int, error) {
	var here byte
	c.at = uintptr(unsafe.Pointer(&here))
	return len(p), nil
}

// TestWriteStack has the stack that a goroutine begins with be enough for a flush of
// net/http's HTTP/2.
func TestWriteStack(t *testing.T) {
	if raceEnabled || testing.CoverMode() != "" {
		t.Skip("instrumented code needs more")
	}
	inner := new(depthConn)
	c := newHTTP2(inner)
	settings, ping := testSettings, pingFrame(0, "12345678")
	through := func(w io.Writer, p []byte) uintptr {
		if _, err := w.Write(p); err != nil {
			t.Fatal(err)
		}
		return inner.at
	}
	through(c, settings)
	through(c, ping) // So that the stack has grown, if it does.
	direct, tracked := through(inner, ping), through(c, ping)
	if took := direct - tracked; took > maxWriteStack {
		t.Errorf("Write takes %d bytes of the stack, want at most %d", took, maxWriteStack)
	}
}

func mustWrite(tb testing.TB, w io.Writer, p []byte) {
	tb.Helper()
	if _, err := w.Write(p); err != nil {
		tb.Fatal(err)
	}
}
