package pool_test

import (
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
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

// TestStallByCount: where the system does not say what the peer takes, a write and a copy
// stall until a step of theirs ends.
func TestStallByCount(t *testing.T) {
	for name, write := range map[string]func(*pool.Conn){
		"write": func(c *pool.Conn) { _, _ = c.Write(make([]byte, 2*(64<<10)+1)) },
		"copy":  func(c *pool.Conn) { _, _ = c.ReadFrom(iotest.OneByteReader(strings.NewReader("123"))) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var set pool.Set
				var watch pool.StallWatch
				taken := make(blocking)
				c := add(&set, copying{Conn: taken})
				expectStall(t, &watch, c, 0)
				var writer sync.WaitGroup
				writer.Go(func() { write(c) })
				for range 3 {
					synctest.Wait()
					for _, want := range []time.Duration{0, time.Second, 2 * time.Second} {
						time.Sleep(time.Second)
						expectStall(t, &watch, c, want)
					}
					taken <- struct{}{}
				}
				writer.Wait()
				time.Sleep(time.Second)
				expectStall(t, &watch, c, 0)
			})
		})
	}
}

// recorded notes the first byte of each write. Another may begin before it returns.
type recorded struct {
	bench

	firsts chan byte
}

func (r recorded) Write(p []byte) (int, error) {
	r.firsts <- p[0]
	time.Sleep(time.Millisecond)
	return len(p), nil
}

// TestWritesDoNotMix: what two goroutines write at a time stands one behind the other,
// though it is written by steps.
func TestWritesDoNotMix(t *testing.T) {
	const steps = 20
	raw := recorded{firsts: make(chan byte, 2*steps)}
	c := add(new(pool.Set), raw)
	var writers sync.WaitGroup
	for _, b := range []string{"a", "b"} {
		writers.Go(func() { _, _ = io.WriteString(c, strings.Repeat(b, steps*64<<10)) })
	}
	writers.Wait()
	close(raw.firsts)
	var got []byte
	for b := range raw.firsts {
		got = append(got, b)
	}
	if len(got) != 2*steps || len(slices.Compact(slices.Clone(got))) != 2 {
		t.Errorf("written: %s", got)
	}
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
type copying struct{ net.Conn }

func (copying) ReadFrom(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) }

// TestStallOfUnknownSource: a copy that waits for its source does not stall where the system
// says nothing of the peer.
func TestStallOfUnknownSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var set pool.Set
		var watch pool.StallWatch
		c := add(&set, copying{Conn: bench{}})
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
