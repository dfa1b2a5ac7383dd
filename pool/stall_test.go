package pool_test

import (
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muxserve/muxserve/pool"
)

// expectStall checks what watch says about c at the time now.
func expectStall(t *testing.T, watch *pool.StallWatch, c *pool.Conn, want time.Duration) {
	t.Helper()
	if got := watch.Check(time.Now(), c); got != want {
		t.Errorf("it stalls for %v, want %v", got, want)
	}
}

// blocking is a connection each of whose writes waits until its peer takes it. Unlike
// those of a net.Pipe they do not wait for each other by a mutex, which synctest takes
// for being busy.
type blocking chan struct{}

func (b blocking) Write(p []byte) (int, error) {
	<-b
	return len(p), nil
}

func (blocking) Read([]byte) (int, error)         { return 0, io.EOF }
func (blocking) Close() error                     { return nil }
func (blocking) LocalAddr() net.Addr              { return &net.UnixAddr{} }
func (blocking) RemoteAddr() net.Addr             { return &net.UnixAddr{} }
func (blocking) SetDeadline(time.Time) error      { return nil }
func (blocking) SetReadDeadline(time.Time) error  { return nil }
func (blocking) SetWriteDeadline(time.Time) error { return nil }

// TestStallByCount: where nobody says what the peer has taken, a write stalls until it
// ends.
func TestStallByCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var set pool.Set
		var watch pool.StallWatch
		taken := make(blocking)
		c := add(&set, taken)
		expectStall(t, &watch, c, 0)
		var writers sync.WaitGroup
		for range 3 { // at a time
			writers.Go(func() { _, _ = c.Write([]byte("1234")) })
		}
		synctest.Wait()
		for _, want := range []time.Duration{0, time.Second, 2 * time.Second} {
			time.Sleep(time.Second)
			expectStall(t, &watch, c, want)
		}
		for range 2 {
			taken <- struct{}{}
			synctest.Wait()
			time.Sleep(time.Second)
			expectStall(t, &watch, c, 0)
			time.Sleep(time.Second)
			expectStall(t, &watch, c, time.Second)
		}
		taken <- struct{}{}
		writers.Wait()
		time.Sleep(time.Second)
		expectStall(t, &watch, c, 0)
	})
}

// TestStallForgets: a connection that was not asked about for a sweep begins anew.
func TestStallForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var set pool.Set
		var watch pool.StallWatch
		var conns [2]*pool.Conn
		for i := range conns {
			_, raw := net.Pipe()
			conns[i] = add(&set, raw)
			go func() { _, _ = conns[i].Write([]byte("x")) }()
		}
		synctest.Wait()
		sweep := func(asked ...*pool.Conn) {
			time.Sleep(time.Second)
			for _, c := range asked {
				watch.Check(time.Now(), c)
			}
		}
		sweep(conns[0], conns[1])
		sweep(conns[0])
		sweep(conns[0])
		time.Sleep(time.Second)
		expectStall(t, &watch, conns[0], 3*time.Second)
		expectStall(t, &watch, conns[1], 0)
		for _, c := range conns {
			_ = c.Close()
		}
	})
}

// copying is a connection with a ReadFrom that says nothing of its progress.
type copying struct{ bench }

func (copying) ReadFrom(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) }

// TestStallOfUnknownCopy: a copy whose progress cannot be seen does not stall.
func TestStallOfUnknownCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var set pool.Set
		var watch pool.StallWatch
		c := add(&set, copying{})
		source, feed := io.Pipe()
		go func() { _, _ = c.ReadFrom(source) }()
		synctest.Wait()
		for range 3 {
			time.Sleep(time.Second)
			expectStall(t, &watch, c, 0)
		}
		_ = feed.Close()
	})
}
