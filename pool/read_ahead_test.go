package pool_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/net/nettest"

	"github.com/muxserve/muxserve/pool"
)

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// aheadPair returns a client, and a connection that can be read ahead.
func aheadPair(tb testing.TB) (client net.Conn, c *pool.Conn) {
	tb.Helper()
	client, server := pair(tb)
	c = add(new(pool.Set), server)
	if !c.IsBare() {
		tb.Skip("no raw sockets on this platform")
	}
	tb.Cleanup(func() { _ = c.Close() })
	return client, c
}

func mustWrite(tb testing.TB, w io.Writer, p []byte) {
	tb.Helper()
	if _, err := w.Write(p); err != nil {
		tb.Fatal(err)
	}
}

// TestReadAheadAsNetHTTPReads reads frames as net/http does: the header, then the
// payload.
func TestReadAheadAsNetHTTPReads(t *testing.T) {
	client, c := aheadPair(t)
	const headerLen = 9
	var sent []byte
	for i := range 100 {
		sent = append(sent, 0, 0, byte(i), 0, 0, 0, 0, 0, 0)
		sent = append(sent, bytes.Repeat([]byte{byte(i)}, i)...)
	}
	mustWrite(t, client, sent)
	client.Close()
	r := readerFunc(c.ReadAhead)
	var got []byte
	for {
		header := make([]byte, headerLen)
		if _, err := io.ReadFull(r, header); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		payload := make([]byte, header[2])
		if _, err := io.ReadFull(r, payload); err != nil {
			t.Fatal(err)
		}
		got = append(append(got, header...), payload...)
	}
	if !bytes.Equal(got, sent) {
		t.Error("other bytes were read than were sent")
	}
	if c.Received() != uint64(len(sent)) {
		t.Errorf("%d bytes were counted, want %d", c.Received(), len(sent))
	}
	_ = c.Close()
	if got := c.CloseReason(); got != "peer_closed" {
		t.Errorf("closed for %q, want %q", got, "peer_closed")
	}
}

// TestReadAheadHoldsNoBuffer while a connection is idle: before the first byte, and
// when all is read.
func TestReadAheadHoldsNoBuffer(t *testing.T) {
	client, c := aheadPair(t)
	one := make([]byte, 1)
	for range 3 {
		if c.HoldsBuffer() {
			t.Fatal("a buffer is held while nothing is buffered")
		}
		mustWrite(t, client, []byte("ab"))
		for _, want := range "ab" {
			if _, err := io.ReadFull(readerFunc(c.ReadAhead), one); err != nil || rune(one[0]) != want {
				t.Fatalf("read %q, %v; want %q", one, err, want)
			}
		}
	}
	if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ReadAhead(one); !errors.Is(err, os.ErrDeadlineExceeded) || c.HoldsBuffer() {
		t.Errorf("read: %v, buffered: %t; want a timeout and no buffer", err, c.HoldsBuffer())
	}
}

// TestReadAheadOnlyWhereMoreWaits: no buffer is taken for messages that come one by one
// and are shorter than the caller's.
func TestReadAheadOnlyWhereMoreWaits(t *testing.T) {
	client, c := aheadPair(t)
	const room = 128
	p := make([]byte, room)
	for _, size := range []int{10, room - 1, 5 * room, 7, 7} {
		sent := bytes.Repeat([]byte{byte(size)}, size)
		mustWrite(t, client, sent)
		var got []byte
		ahead := false
		for len(got) < size {
			n, err := c.ReadAhead(p)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, p[:n]...)
			ahead = ahead || c.HoldsBuffer()
		}
		if !bytes.Equal(got, sent) {
			t.Errorf("%d bytes came as %x", size, got)
		}
		if want := size > 2*room; ahead != want {
			t.Errorf("%d bytes: read ahead is %t, want %t", size, ahead, want)
		}
	}
}

// TestReadAheadOfLongFrames takes no buffer for the header behind a long payload.
func TestReadAheadOfLongFrames(t *testing.T) {
	client, c := aheadPair(t)
	const headerLen, short, long = 9, 100, 16 << 10
	frames := []struct {
		payload int
		ahead   bool // its header is read ahead
	}{{short, false}, {short, true}, {long, true}, {long, false}, {short, false}, {short, true}}
	for _, f := range frames {
		mustWrite(t, client, make([]byte, headerLen+f.payload))
	}
	mustWrite(t, client, make([]byte, 1))
	read := func(n int) {
		t.Helper()
		if _, err := io.ReadFull(readerFunc(c.ReadAhead), make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
	for i, f := range frames {
		read(headerLen)
		if c.HoldsBuffer() != f.ahead {
			t.Errorf("header %d: read ahead is %t, want %t", i, c.HoldsBuffer(), f.ahead)
		}
		read(f.payload)
	}
}

// TestLargeReads get what was sent, as small ones do, and hold nothing of it.
func TestLargeReads(t *testing.T) {
	client, c := aheadPair(t)
	large := make([]byte, pool.MaxLargeRead)
	for _, tt := range []struct {
		length int
		reader bool // A large read has made it.
	}{{pool.MinLargeRead - 1, false}, {pool.MaxLargeRead + 1, false}, {pool.MinLargeRead, true}, {1, true}, {pool.MaxLargeRead, true}} {
		before := c.Received()
		mustWrite(t, client, []byte("a"))
		p := make([]byte, tt.length)
		if n, err := c.Read(p); n != 1 || p[0] != 'a' || err != nil || c.Received() != before+1 {
			t.Fatalf("read of %d = %q, %v; %d bytes are counted", tt.length, p[:n], err, c.Received()-before)
		}
		if c.HasReader() != tt.reader {
			t.Errorf("behind a read of %d: a reader %t, want %t", tt.length, c.HasReader(), tt.reader)
		}
	}
	if allocs := testing.AllocsPerRun(100, func() {
		mustWrite(t, client, large[:1])
		if _, err := c.Read(large); err != nil {
			t.Fatal(err)
		}
	}); allocs != 0 {
		t.Errorf("a large read allocates %v times", allocs)
	}
}

// TestLargeReadsAtOnce have each byte read once, also while SetReadDeadline wakes readers.
func TestLargeReadsAtOnce(t *testing.T) {
	client, c := aheadPair(t)
	const readers, total = 4, 4 << 20
	var wg sync.WaitGroup
	var got atomic.Int64
	for range readers {
		wg.Go(func() {
			p := make([]byte, pool.MinLargeRead)
			for {
				n, err := c.Read(p)
				got.Add(int64(n))
				if n > 0 && !bytes.Equal(p[:n], bytes.Repeat([]byte("x"), n)) {
					t.Error("other bytes were read than were sent")
				}
				clear(p)
				if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
					if err != io.EOF {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	sent := bytes.Repeat([]byte("x"), total>>6)
	for range 1 << 6 {
		mustWrite(t, client, sent)
		_ = c.SetReadDeadline(time.Unix(1, 0))
		_ = c.SetReadDeadline(time.Time{})
	}
	client.Close()
	wg.Wait()
	if got.Load() != total || c.Received() != total {
		t.Errorf("%d bytes were read and %d counted, want %d", got.Load(), c.Received(), total)
	}
}

// endings are the ways in which reads end, with the error, nil for one that net returns only
// once, and the reason that is booked.
var endings = []struct {
	name   string
	end    func(client net.Conn, c *pool.Conn) error
	want   error
	reason string
}{
	{"end", func(client net.Conn, _ *pool.Conn) error { return client.Close() }, io.EOF, "peer_closed"},
	{"reset", func(client net.Conn, _ *pool.Conn) error {
		_ = client.(*net.TCPConn).SetLinger(0)
		return client.Close()
	}, nil, "reset"},
	{"deadline", func(_ net.Conn, c *pool.Conn) error {
		return c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	}, os.ErrDeadlineExceeded, "timeout"},
	{"close", func(_ net.Conn, c *pool.Conn) error { return c.NetConn().Close() }, net.ErrClosed, "server_closed"},
}

// expectEnding checks how a read has ended.
func expectEnding(t *testing.T, c *pool.Conn, n int, err, want error, reason string) {
	t.Helper()
	if n != 0 || err == nil || want != nil && !errors.Is(err, want) {
		t.Errorf("read = %d, %v; want %v", n, err, want)
	}
	if _, own := c.NetConn().Read(make([]byte, 1)); want != nil && err.Error() != own.Error() {
		t.Errorf("read: %v; the connection says %v", err, own)
	}
	_ = c.Close()
	if got := c.CloseReason(); got != reason {
		t.Errorf("closed for %q, want %q", got, reason)
	}
}

// TestReadAheadErrors come as the connection's own Read brings them, behind the bytes
// before them, and are booked.
func TestReadAheadErrors(t *testing.T) {
	for _, tt := range endings {
		t.Run(tt.name, func(t *testing.T) {
			client, c := aheadPair(t)
			mustWrite(t, client, []byte("abcd"))
			p := make([]byte, 1)
			for range 2 { // The second of them takes a buffer.
				if _, err := c.ReadAhead(p); err != nil {
					t.Fatal(err)
				}
			}
			if err := tt.end(client, c); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if n, err := c.ReadAhead(p); n != 1 || err != nil {
					t.Fatalf("buffered: %d, %v", n, err)
				}
			}
			n, err := c.ReadAhead(p)
			expectEnding(t, c, n, err, tt.want, tt.reason)
		})
	}
}

// TestLargeReadErrors come and are booked in the same way.
func TestLargeReadErrors(t *testing.T) {
	for _, tt := range endings {
		t.Run(tt.name, func(t *testing.T) {
			client, c := aheadPair(t)
			if err := tt.end(client, c); err != nil {
				t.Fatal(err)
			}
			n, err := c.Read(make([]byte, pool.MinLargeRead))
			expectEnding(t, c, n, err, tt.want, tt.reason)
		})
	}
}

// TestReadAheadGoesOn behind a timeout, which then says nothing about the end.
func TestReadAheadGoesOn(t *testing.T) {
	client, c := aheadPair(t)
	p := make([]byte, 1)
	if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ReadAhead(p); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read: %v, want a timeout", err)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, client, p)
	if _, err := c.ReadAhead(p); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if got := c.CloseReason(); got != "server_closed" {
		t.Errorf("closed for %q, want %q", got, "server_closed")
	}
}

// TestReadAheadEndsWithClose, also while it waits.
func TestReadAheadEndsWithClose(t *testing.T) {
	_, c := aheadPair(t)
	done := make(chan error)
	go func() {
		_, err := c.ReadAhead(make([]byte, 1))
		done <- err
	}()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("read: %v, want that the connection is closed", err)
	}
}

// TestOtherReadsBehindReadAhead get what it has left in the buffer before what the
// socket holds.
func TestOtherReadsBehindReadAhead(t *testing.T) {
	for name, rest := range map[string]func(c *pool.Conn, n int) ([]byte, error){
		"Read": func(c *pool.Conn, n int) ([]byte, error) {
			b := make([]byte, n)
			_, err := io.ReadFull(c, b)
			return b, err
		},
		"WriteTo": func(c *pool.Conn, _ int) ([]byte, error) {
			var b bytes.Buffer
			_, err := c.WriteTo(&b)
			return b.Bytes(), err
		},
		"ReadReady": func(c *pool.Conn, n int) (b []byte, err error) {
			var buffers watchedPool
			for len(b) < n {
				buf, n, err := c.ReadReady(100, &buffers)
				if err != nil {
					return b, err
				}
				b = append(b, (*buf)[:n]...)
				buffers.Put(buf)
			}
			return b, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			client, c := aheadPair(t)
			mustWrite(t, client, []byte("PRI * HTTP/2.0"))
			p := make([]byte, 2)
			for range 2 {
				if _, err := io.ReadFull(readerFunc(c.ReadAhead), p); err != nil {
					t.Fatal(err)
				}
			}
			if !c.HoldsBuffer() {
				t.Fatal("nothing was read ahead: the test shows nothing")
			}
			mustWrite(t, client, []byte("\r\n"))
			client.Close()
			const want = "* HTTP/2.0\r\n"
			if got, err := rest(c, len(want)); err != nil || string(got) != want {
				t.Errorf("read %q, %v; want %q", got, err, want)
			}
		})
	}
}

// TestReadAheadWithoutSocket reads as Read does.
func TestReadAheadWithoutSocket(t *testing.T) {
	client, server := net.Pipe()
	c := add(new(pool.Set), server)
	defer c.Close()
	if c.IsBare() {
		t.Error("a pipe is bare")
	}
	go func() {
		_, _ = io.WriteString(client, "data")
		_, _ = io.WriteString(client, "more")
		client.Close()
	}()
	p := make([]byte, 10)
	if n, err := c.ReadAhead(p); err != nil || string(p[:n]) != "data" {
		t.Errorf("ReadAhead = %q, %v", p[:n], err)
	}
	var buffers watchedPool
	buf, n, err := c.ReadReady(100, &buffers)
	if err != nil || string((*buf)[:n]) != "more" {
		t.Fatalf("ReadReady = %d, %v", n, err)
	}
	buffers.Put(buf)
	if buf, n, err := c.ReadReady(100, &buffers); buf != nil || n != 0 || err != io.EOF {
		t.Errorf("ReadReady = %v, %d, %v; want EOF", buf, n, err)
	}
	if buffers.out != 0 {
		t.Errorf("%d buffers are missing", buffers.out)
	}
}

// A watchedPool counts the buffers that are out, and tells when one is given back.
type watchedPool struct {
	out int
	put chan int // Receives how many are out, if a goroutine waits for that.
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

// TestReadReadyHoldsNoBuffer while a connection is idle.
func TestReadReadyHoldsNoBuffer(t *testing.T) {
	client, c := aheadPair(t)
	buffers := &watchedPool{put: make(chan int, 1)}
	go func() {
		if out := <-buffers.put; out != 0 {
			t.Errorf("%d buffers are out while the connection is idle", out)
		}
		_, _ = io.WriteString(client, "more")
	}()
	buf, n, err := c.ReadReady(100, buffers)
	if err != nil || string((*buf)[:n]) != "more" {
		t.Fatalf("ReadReady = %d, %v; want more", n, err)
	}
	buffers.Put(buf)
	if c.Received() != uint64(n) {
		t.Errorf("%d bytes were counted, want %d", c.Received(), n)
	}
	if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.ReadReady(100, buffers); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("ReadReady: %v, want a timeout", err)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	client.Close()
	if buf, n, err := c.ReadReady(100, buffers); buf != nil || n != 0 || err != io.EOF {
		t.Errorf("ReadReady = %v, %d, %v; want EOF", buf, n, err)
	}
	if buffers.out != 0 {
		t.Errorf("%d buffers are missing", buffers.out)
	}
}

// TestHasUnread looks at a socket and leaves it as it is.
func TestHasUnread(t *testing.T) {
	client, c := aheadPair(t)
	if c.HasUnread() {
		t.Error("bytes before any were sent")
	}
	mustWrite(t, client, []byte("x"))
	for started := time.Now(); !c.HasUnread(); time.Sleep(time.Millisecond) {
		if time.Since(started) > 10*time.Second {
			t.Fatal("a byte is not seen")
		}
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	if c.HasUnread() {
		t.Error("a byte that was read is seen")
	}
}

// aheadConn is read by ReadAhead, by one reader at a time.
type aheadConn struct {
	*pool.Conn
	mu sync.Mutex
}

func (c *aheadConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ReadAhead(p)
}

func TestReadAheadIsANetConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		client, c := aheadPair(t)
		return &aheadConn{Conn: c}, client, func() { client.Close(); c.Close() }, nil
	})
}

// FuzzReadAhead reads the bytes that were sent, however they are sent and read.
func FuzzReadAhead(f *testing.F) {
	f.Add([]byte("abc"), uint16(1), uint16(1), false)
	f.Add(bytes.Repeat([]byte("0123456789"), 1000), uint16(4096), uint16(9), false)
	f.Add(bytes.Repeat([]byte("0123456789"), 1000), uint16(5000), uint16(4096), true)
	f.Fuzz(func(t *testing.T, sent []byte, writes, reads uint16, byByte bool) {
		if len(sent) > 64<<10 {
			return
		}
		client, c := aheadPair(t)
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
		var from io.Reader = readerFunc(c.ReadAhead)
		if byByte {
			from = iotest.OneByteReader(from)
		}
		var got bytes.Buffer
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.CopyBuffer(struct{ io.Writer }{&got}, from, make([]byte, int(reads)+1)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), sent) {
			t.Fatalf("%d bytes were read that are not the %d that were sent", got.Len(), len(sent))
		}
		if c.Received() != uint64(len(sent)) || c.HoldsBuffer() {
			t.Fatalf("%d of %d bytes were counted; a buffer is held: %t", c.Received(), len(sent), c.HoldsBuffer())
		}
	})
}
