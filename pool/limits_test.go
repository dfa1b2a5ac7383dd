package pool_test

import (
	"context"
	"errors"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/muxserve/muxserve/pool"
)

// from is a connection from some address.
type from struct {
	net.Conn
	addr net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.addr }

func pipeFrom(t *testing.T, ip string) net.Conn {
	t.Helper()
	a, b := net.Pipe()
	t.Cleanup(func() { _ = b.Close() })
	return from{a, &net.TCPAddr{IP: net.ParseIP(ip), Port: 1}}
}

// TestTotalLimit: what comes above the limit is to be refused, and there is room again
// after a close.
func TestTotalLimit(t *testing.T) {
	var set pool.Set
	set.SetLimits(pool.Limits{Config: pool.Config{MaxConnections: 2}})
	conns := make([]*pool.Conn, 3)
	for i, want := range []string{"", "", pool.ReasonLimit} {
		conns[i] = new(pool.Conn)
		if got := set.Add(conns[i], pipeFrom(t, "192.0.2.1"), nil); got != want {
			t.Errorf("connection %d: refused for %q, want %q", i, got, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := set.WaitRoom(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("room in a full set: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- set.WaitRoom(t.Context()) }()
	_ = conns[0].Close()
	_ = conns[1].Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	_ = conns[2].Close()
}

// TestAbove: connections within the process are not among those that a limit keeps out.
func TestAbove(t *testing.T) {
	var set pool.Set
	set.SetLimits(pool.Limits{Config: pool.Config{MaxConnections: 1}})
	conns := make([]*pool.Conn, 4)
	for i := range conns {
		conns[i] = new(pool.Conn)
		_ = set.Add(conns[i], pipeFrom(t, "192.0.2.1"), nil)
	}
	if n := set.Above(); n != 3 {
		t.Errorf("%d above a limit of 1, want 3", n)
	}
	set.ExemptInner(conns[0])
	set.ExemptInner(conns[1])
	set.ExemptInner(conns[1])
	if n := set.Above(); n != 2 {
		t.Errorf("%d above the limit beside two that are within the process, want 2", n)
	}
	for _, c := range conns {
		_ = c.Close()
	}
	if n := set.Above(); n != 0 {
		t.Errorf("%d above the limit when all are closed", n)
	}
}

// TestAddressLimit: clients are told apart by IPv4 address and by IPv6 network of 64
// bits.
func TestAddressLimit(t *testing.T) {
	var set pool.Set
	set.SetLimits(pool.Limits{Config: pool.Config{PerAddress: 1}})
	for _, tt := range []struct{ ip, want string }{
		{"192.0.2.1", ""},
		{"192.0.2.2", ""},
		{"::ffff:192.0.2.1", pool.ReasonAddressLimit},
		{"2001:db8::1", ""},
		{"2001:db8::ffff", pool.ReasonAddressLimit},
		{"2001:db8:0:1::1", ""},
	} {
		c := add(&set, pipeFrom(t, tt.ip))
		if got := set.Identify(c, c.RemoteAddr()); got != tt.want {
			t.Errorf("%s: refused for %q, want %q", tt.ip, got, tt.want)
		}
	}
	for _, c := range set.Conns() {
		_ = c.Close()
	}
	c := add(&set, pipeFrom(t, "192.0.2.1"))
	if got := set.Identify(c, c.RemoteAddr()); got != "" {
		t.Errorf("after all were closed: refused for %q", got)
	}
}

// TestTagLimit: a full pool takes nobody in, and reserved places count.
func TestTagLimit(t *testing.T) {
	var set pool.Set
	set.SetLimits(pool.Limits{PerTag: map[pool.Tag]int{"websocket": 2}})
	conns := make([]*pool.Conn, 3)
	for i := range conns {
		conns[i] = new(pool.Conn)
		set.Add(conns[i], pipeFrom(t, "192.0.2.1"), nil)
		if moved, full := set.MoveWithin(conns[i], "http1"); !moved || full {
			t.Fatalf("into a pool without limit: %v, %v", moved, full)
		}
	}
	if moved, full := set.MoveWithin(conns[0], "websocket"); !moved || full {
		t.Errorf("the first: %v, %v", moved, full)
	}
	if !set.Reserve(nil, "websocket") {
		t.Error("the second place could not be reserved")
	}
	if _, full := set.MoveWithin(conns[1], "websocket"); !full || set.Reserve(nil, "websocket") {
		t.Error("a third one came in")
	}
	if got := conns[1].Tag(); got != "http1" {
		t.Errorf("who was refused is in %s", got)
	}
	set.Release("websocket")
	if !set.Reserve(nil, "websocket") || !set.MoveReserved(conns[1], "websocket") {
		t.Error("a place that was given back cannot be had")
	}
	if moved, full := set.MoveWithin(conns[1], "websocket"); !moved || full {
		t.Errorf("to where it is: %v, %v", moved, full)
	}
	_ = conns[0].Close()
	if moved, full := set.MoveWithin(conns[2], "websocket"); !moved || full {
		t.Errorf("after a close: %v, %v", moved, full)
	}
}

// TestTagLimitConcurrent: however many connections come at a time, a pool is filled to
// its limit and never above, and is empty when they are closed, also while they are
// moved.
func TestTagLimitConcurrent(t *testing.T) {
	const limit, workers, rounds = 5, 20, 100
	var set pool.Set
	set.SetLimits(pool.Limits{PerTag: map[pool.Tag]int{"http1": limit}})
	var inside, most atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range rounds {
				c := add(&set, bench{})
				if i%3 == 0 {
					wg.Go(func() { _ = c.Close() })
					set.MoveWithin(c, "http1")
				} else if moved, _ := set.MoveWithin(c, "http1"); moved {
					n := inside.Add(1)
					for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
					}
					runtime.Gosched()
					inside.Add(-1)
				}
				_ = c.Close()
			}
		})
	}
	wg.Wait()
	if n := most.Load(); n > limit || n == 0 {
		t.Errorf("%d at a time, want at most %d", n, limit)
	}
	for range limit {
		if !set.Reserve(nil, "http1") {
			t.Error("a place is lost")
		}
	}
	if set.Reserve(nil, "http1") {
		t.Error("a place is given out twice")
	}
	if stats := set.Stats()["http1"]; stats.Active != 0 || stats.Accepted != stats.Closed {
		t.Errorf("statistics %+v", stats)
	}
}
