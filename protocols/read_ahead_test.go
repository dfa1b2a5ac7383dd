package protocols

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/iotest"
	"time"
	"unsafe"

	"golang.org/x/net/nettest"
)

// aheadPair returns a client, and a server's end that is read through a readAhead.
func aheadPair(tb testing.TB) (client *net.TCPConn, inner *countedConn, r *readAhead) {
	tb.Helper()
	client, server := tcpPair(tb)
	inner = &countedConn{TCPConn: server}
	r = newReadAhead(inner)
	if r == nil {
		tb.Skip("no raw sockets on this platform")
	}
	return client, inner, r
}

func mustWrite(tb testing.TB, w io.Writer, p []byte) {
	tb.Helper()
	if _, err := w.Write(p); err != nil {
		tb.Fatal(err)
	}
}

// TestReadAheadAsNetHTTPReads has frames read as net/http reads them: the header, then the payload.
func TestReadAheadAsNetHTTPReads(t *testing.T) {
	client, inner, r := aheadPair(t)
	var sent []byte
	for i := range 100 {
		sent = appendFrame(sent, 0, 0, bytes.Repeat([]byte{byte(i)}, i))
	}
	mustWrite(t, client, sent)
	client.Close()
	var got []byte
	for {
		header := make([]byte, frameHeaderLen)
		if _, err := io.ReadFull(r, header); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		payload := make([]byte, parseFrameHeader(header).length)
		if _, err := io.ReadFull(r, payload); err != nil {
			t.Fatal(err)
		}
		got = append(append(got, header...), payload...)
	}
	if !bytes.Equal(got, sent) {
		t.Error("other bytes were read than were sent")
	}
	if inner.counted != len(sent) {
		t.Errorf("%d bytes were counted, want %d", inner.counted, len(sent))
	}
	if inner.noted != io.EOF {
		t.Errorf("noted %v, want EOF", inner.noted)
	}
}

// TestReadAheadHoldsNoBuffer has an idle connection hold none: before the first byte, and when all is read.
func TestReadAheadHoldsNoBuffer(t *testing.T) {
	client, inner, r := aheadPair(t)
	one := make([]byte, 1)
	for range 3 {
		if r.buffered() {
			t.Fatal("a buffer is held while nothing is buffered")
		}
		mustWrite(t, client, []byte("ab"))
		for _, want := range "ab" {
			if _, err := io.ReadFull(r, one); err != nil || rune(one[0]) != want {
				t.Fatalf("read %q, %v; want %q", one, err, want)
			}
		}
	}
	if err := inner.SetReadDeadline(longAgo); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(one); !errors.Is(err, os.ErrDeadlineExceeded) || r.buffered() {
		t.Errorf("read: %v, buffered: %t; want a timeout and no buffer", err, r.buffered())
	}
}

// TestReadAheadErrors has errors come as the connection's own Read brings them, behind the bytes before them.
func TestReadAheadErrors(t *testing.T) {
	tests := []struct {
		name string
		end  func(client, server net.Conn) error
		want error
	}{
		{"end", func(client, _ net.Conn) error { return client.Close() }, io.EOF},
		{"deadline", func(_, server net.Conn) error { return server.SetReadDeadline(longAgo) }, os.ErrDeadlineExceeded},
		{"close", func(_, server net.Conn) error { return server.Close() }, net.ErrClosed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			client, inner, r := aheadPair(t)
			mustWrite(t, client, []byte("abc"))
			p := make([]byte, 1)
			if _, err := r.Read(p); err != nil {
				t.Fatal(err)
			}
			if err := tt.end(client, inner.TCPConn); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if n, err := r.Read(p); n != 1 || err != nil {
					t.Fatalf("buffered: %d, %v", n, err)
				}
			}
			n, err := r.Read(p)
			_, want := inner.TCPConn.Read(p)
			if n != 0 || !errors.Is(err, tt.want) || err.Error() != want.Error() {
				t.Errorf("read = %d, %v; the connection says %v", n, err, want)
			}
			if inner.noted != err {
				t.Errorf("noted %v, want %v", inner.noted, err)
			}
		})
	}
}

// TestReadAheadEndsWithClose has Close end a Read that waits.
func TestReadAheadEndsWithClose(t *testing.T) {
	_, inner, r := aheadPair(t)
	done := make(chan error)
	go func() {
		_, err := r.Read(make([]byte, 1))
		done <- err
	}()
	if err := inner.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("read: %v, want that the connection is closed", err)
	}
}

func TestReadAheadNeedsARawSocket(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	if newReadAhead(server) != nil {
		t.Error("there is a readAhead for a pipe")
	}
}

// aheadConn is a connection that is read through a readAhead, by one reader at a time.
type aheadConn struct {
	*countedConn
	mu sync.Mutex
	r  *readAhead
}

func (c *aheadConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.r.Read(p)
}

func TestReadAheadIsANetConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		client, inner, r := aheadPair(t)
		return &aheadConn{countedConn: inner, r: r}, client, func() { client.Close(); inner.Close() }, nil
	})
}

// TestReadOnReadyBehindRead has what Read has left in the buffer come before what the socket holds.
func TestReadOnReadyBehindRead(t *testing.T) {
	client, server := tcpPair(t)
	c, _ := newTracked(&countedConn{TCPConn: server}, new(SniffConfig))
	mustWrite(t, client, []byte("PRI * HTTP"))
	p := make([]byte, 4)
	if _, err := io.ReadFull(c, p); err != nil {
		t.Fatal(err)
	}
	pool := &watchedPool{put: make(chan int)}
	buf, n, err := c.ReadOnReady(100, pool)
	if err != nil || string((*buf)[:n]) != "* HTTP" {
		t.Errorf("ReadOnReady = %d, %v; want the rest", n, err)
	}
}

// TestHTTP2ReadsAndWritesAllocateNothing has a connection in use: a frame in two reads, and one write.
func TestHTTP2ReadsAndWritesAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes pools drop what they are given")
	}
	client, server := tcpPair(t)
	c, _ := newTracked(&countedConn{TCPConn: server}, new(SniffConfig))
	mustWrite(t, client, []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	p := make([]byte, 24)
	if _, err := io.ReadFull(c, p); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, c, serverSettings())
	frame := pingFrame(0, "12345678")
	got := make([]byte, len(frame))
	n := testing.AllocsPerRun(100, func() {
		mustWrite(t, client, frame)
		for _, part := range [][]byte{p[:frameHeaderLen], p[frameHeaderLen:len(frame)]} {
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

// maxWriteStack is what Write may take of the 2 KB of a new goroutine's stack. net/http's flush and the layers below leave some 130 bytes,
// of which the account takes 48.
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

// TestWriteStack has the stack that a goroutine begins with be enough for a flush of net/http's HTTP/2.
func TestWriteStack(t *testing.T) {
	if raceEnabled || testing.CoverMode() != "" {
		t.Skip("instrumented code needs more")
	}
	inner := new(depthConn)
	c, _ := newTracked(inner, new(SniffConfig))
	settings, ping := serverSettings(), pingFrame(0, "12345678")
	through := func(w io.Writer, p []byte) uintptr {
		if _, err := w.Write(p); err != nil {
			t.Fatal(err)
		}
		return inner.at
	}
	through(c, settings)
	direct, tracked := through(inner, ping), through(c, ping)
	if took := direct - tracked; took > maxWriteStack {
		t.Errorf("Write takes %d bytes of the stack, want at most %d", took, maxWriteStack)
	}
}

// FuzzReadAhead has the bytes that are read be those that were sent, however they are sent and read.
func FuzzReadAhead(f *testing.F) {
	f.Add([]byte("abc"), uint16(1), uint16(1), false)
	f.Add(bytes.Repeat([]byte("0123456789"), 1000), uint16(4096), uint16(9), false)
	f.Add(bytes.Repeat([]byte("0123456789"), 1000), uint16(5000), uint16(4096), true)
	f.Fuzz(func(t *testing.T, sent []byte, writes, reads uint16, byByte bool) {
		if len(sent) > 64<<10 {
			return
		}
		client, inner, r := aheadPair(t)
		go func() {
			defer client.Close()
			for rest := sent; len(rest) > 0; {
				n, err := client.Write(rest[:min(len(rest), int(writes)+1)])
				if err != nil {
					return
				}
				rest = rest[n:]
			}
		}()
		var from io.Reader = r
		if byByte {
			from = iotest.OneByteReader(r)
		}
		var got bytes.Buffer
		_ = inner.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.CopyBuffer(struct{ io.Writer }{&got}, from, make([]byte, int(reads)+1)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), sent) {
			t.Fatalf("%d bytes were read that are not the %d that were sent", got.Len(), len(sent))
		}
		small := byByte || int(reads)+1 < readAheadSize // Bigger reads are the connection's own to count.
		if small && inner.counted != len(sent) || r.buffered() {
			t.Fatalf("%d of %d bytes were counted; a buffer is held: %t", inner.counted, len(sent), r.buffered())
		}
	})
}
