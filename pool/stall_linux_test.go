//go:build !386

package pool_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/muxserve/muxserve/pool"
)

// limit is a stall for which a server would close a connection. A peer on the loopback
// takes the next bytes when it has read up to 130 KB, for which a slow reader needs 65
// seconds.
const limit = 2 * time.Minute

// endless is a source of which only so much is needed.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// writing starts to write to c without an end, and returns what waits for the end that a
// close brings.
func writing(c *pool.Conn, write func(*pool.Conn)) (wait func()) {
	var wg sync.WaitGroup
	wg.Go(func() { write(c) })
	return wg.Wait
}

// fill asks watch about c once in a second of its own time until it has stood still for
// the limit, which it does when all buffers are full.
func fill(t *testing.T, watch *pool.StallWatch, now time.Time, c *pool.Conn) time.Time {
	t.Helper()
	for giveUp := time.Now().Add(30 * time.Second); watch.Check(now, c) < limit; now = now.Add(time.Second) {
		if time.Now().After(giveUp) {
			t.Fatal("a peer that reads nothing never stalls")
		}
		time.Sleep(time.Millisecond)
	}
	return now
}

// TestStallTCP: one big write to a peer that reads nothing stands still, and to one that
// reads 2 KB in a second it does not, though the write ends in neither case. Seconds are
// shortened to 5 ms.
func TestStallTCP(t *testing.T) {
	for _, tt := range []struct {
		name  string
		write func(*pool.Conn)
	}{
		{"write", func(c *pool.Conn) { _, _ = c.Write(make([]byte, 64<<20)) }},
		{"copy", func(c *pool.Conn) { _, _ = c.ReadFrom(endless{}) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var set pool.Set
			var watch pool.StallWatch
			client, raw := pair(t)
			c := add(&set, raw)
			now := time.Now()
			if got := watch.Check(now, c); got != 0 {
				t.Errorf("without a write it stalls for %v", got)
			}
			wait := writing(c, tt.write)
			now = fill(t, &watch, now, c)

			var longest time.Duration
			steps := 0 // in which the peer takes something
			ticker := time.NewTicker(5 * time.Millisecond)
			defer ticker.Stop()
			for range 300 {
				<-ticker.C
				if _, err := io.ReadFull(client, make([]byte, 2048)); err != nil {
					t.Fatal(err)
				}
				now = now.Add(time.Second)
				stalled := watch.Check(now, c)
				if stalled == 0 {
					steps++
				}
				if steps > 0 { // Until then it is the stall of before.
					longest = max(longest, stalled)
				}
			}
			t.Logf("the slow reader stood still for at most %v, and moved on %d times", longest, steps)
			if steps < 3 || longest >= limit {
				t.Errorf("a slow reader stalls for %v, and moved on %d times", longest, steps)
			}
			fill(t, &watch, now, c)
			_ = c.Close()
			wait()
			if got := watch.Check(now.Add(time.Hour), c); got != 0 {
				t.Errorf("after the close it stalls for %v", got)
			}
		})
	}
}

// TestStallOfSource: a copy that waits for its source is not the peer's fault.
func TestStallOfSource(t *testing.T) {
	var set pool.Set
	var watch pool.StallWatch
	_, raw := pair(t)
	c := add(&set, raw)
	source, feed := io.Pipe()
	wait := writing(c, func(c *pool.Conn) { _, _ = c.ReadFrom(source) })
	if _, err := feed.Write([]byte("the first of it")); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for range 200 {
		now = now.Add(time.Second)
		if got := watch.Check(now, c); got >= limit {
			t.Fatalf("it stalls for %v", got)
		}
		time.Sleep(time.Millisecond)
	}
	_ = feed.CloseWithError(errors.New("enough"))
	wait()
}

// layer is a connection above another, as a listener with the PROXY protocol has it.
type layer struct {
	net.Conn

	holds bool
}

func (l *layer) NetConn() net.Conn { return l.Conn }
func (l *layer) HasUnread() bool   { return l.holds }

// TestLayers: the socket below other layers is looked at like a bare one.
func TestLayers(t *testing.T) {
	for name, above := range map[string]func(net.Conn) net.Conn{
		"bare":         func(c net.Conn) net.Conn { return c },
		"PROXY header": func(c net.Conn) net.Conn { return &layer{Conn: c} },
		"TLS":          func(c net.Conn) net.Conn { return tls.Server(&layer{Conn: c}, nil) },
		"embedded":     func(c net.Conn) net.Conn { return struct{ *net.TCPConn }{c.(*net.TCPConn)} },
	} {
		t.Run(name, func(t *testing.T) {
			client, raw := pair(t)
			c := add(new(pool.Set), above(raw))
			if _, _, known := c.SendQueue(); !known {
				t.Error("what the peer takes is not known")
			}
			if c.HasUnread() {
				t.Error("bytes before any were sent")
			}
			mustWrite(t, client, []byte("x"))
			until(t, "the byte is seen", c.HasUnread)
			if err := client.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			until(t, "the end is seen", func() bool { ended, _ := c.PeerLeft(); return ended })
			if _, err := raw.Read(make([]byte, 1)); err != nil { // What is unread would be answered by a reset.
				t.Fatal(err)
			}
			_ = c.Abort()
			if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the peer gets %v, want a reset", err)
			}
		})
	}
	_, raw := pair(t)
	if !add(new(pool.Set), &layer{raw, true}).HasUnread() {
		t.Error("what a layer holds is not seen")
	}
}

// until waits for a state of the kernel.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for giveUp := time.Now().Add(30 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(giveUp) {
			t.Fatalf("never: %s", what)
		}
	}
}

// TestUnixSocket: the kernel is asked for what is unread there, too. TLS above it says no
// farewell where the connection is aborted, so that the peer can tell.
func TestUnixSocket(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	raw, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := add(new(pool.Set), raw)
	mustWrite(t, client, []byte("x"))
	until(t, "the byte is seen", c.HasUnread)
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	farewell := &saysFarewell{layer{Conn: raw}}
	_ = add(new(pool.Set), farewell).Abort()
	if b, err := io.ReadAll(client); len(b) != 0 || err != nil {
		t.Errorf("the peer gets %q, %v", b, err)
	}
}

// TestCloseBelow: what was written goes out, and layers above the socket say no farewell.
func TestCloseBelow(t *testing.T) {
	client, raw := pair(t)
	var set pool.Set
	c := add(&set, &saysFarewell{layer{Conn: raw}})
	mustWrite(t, c, []byte("answer"))
	if err := c.CloseBelow(); err != nil || set.Len() != 0 {
		t.Errorf("%v, %d are left", err, set.Len())
	}
	if b, err := io.ReadAll(client); string(b) != "answer" || err != nil {
		t.Errorf("the peer gets %q, %v", b, err)
	}
}

// saysFarewell writes when it is closed, as TLS does.
type saysFarewell struct{ layer }

func (s *saysFarewell) Close() error {
	_, _ = s.Write([]byte("farewell"))
	return s.Conn.Close()
}

// TestSendQueue: it shows whether bytes wait to be sent, and that the peer takes some. A
// pipe does not know.
func TestSendQueue(t *testing.T) {
	var set pool.Set
	client, raw := pair(t)
	c := add(&set, raw)
	if acked, unsent, known := c.SendQueue(); acked != 0 || unsent || !known {
		t.Errorf("of a new connection: %d, %v, %v", acked, unsent, known)
	}
	wait := writing(c, func(c *pool.Conn) { _, _ = c.Write(make([]byte, 64<<20)) })
	queueIs := func(what string, ok func(acked uint64, unsent bool) bool) {
		t.Helper()
		until(t, what, func() bool {
			acked, unsent, known := c.SendQueue()
			return known && ok(acked, unsent)
		})
	}
	queueIs("bytes wait", func(_ uint64, unsent bool) bool { return unsent })
	const most = 32 << 20 // It is more than both buffers hold.
	if _, err := io.CopyN(io.Discard, client, most); err != nil {
		t.Fatal(err)
	}
	queueIs("the peer has taken them", func(acked uint64, _ bool) bool { return acked >= most })
	if _, err := io.CopyN(io.Discard, client, 64<<20-most); err != nil {
		t.Fatal(err)
	}
	wait()
	queueIs("all is sent", func(acked uint64, unsent bool) bool { return acked >= 64<<20 && !unsent })
	_ = c.Close()

	pipe, _ := net.Pipe()
	if _, _, known := add(&set, pipe).SendQueue(); known {
		t.Error("a pipe knows")
	}
}

// TestSendQueueOfReset: nothing waits on a connection that the peer has reset. The kernel
// goes on counting the bytes that it has thrown away.
func TestSendQueueOfReset(t *testing.T) {
	var set pool.Set
	client, raw := pair(t)
	c := add(&set, raw)
	wait := writing(c, func(c *pool.Conn) { _, _ = c.Write(make([]byte, 64<<20)) })
	if _, err := client.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_ = client.Close() // It has not read the rest, so this is a reset.
	wait()
	if _, reset := c.PeerLeft(); !reset {
		t.Error("the peer has not left by a reset")
	}
	if acked, unsent, known := c.SendQueue(); acked == 0 || unsent || !known {
		t.Errorf("the queue: %d, %v, %v", acked, unsent, known)
	}
	if acked, waiting := c.Unacknowledged(); acked == 0 || waiting {
		t.Errorf("not acknowledged: %d, %v", acked, waiting)
	}
}
