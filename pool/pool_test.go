package pool_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/net/nettest"

	"github.com/muxserve/muxserve/pool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair returns two ends of a loopback connection.
func pair(tb testing.TB) (client, server net.Conn) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	server, err = l.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = client.Close()
		_ = server.Close()
	})
	return client, server
}

func add(s *pool.Set, raw net.Conn) *pool.Conn {
	c := new(pool.Conn)
	s.Add(c, raw, nil)
	return c
}

func closeFor(c *pool.Conn, reason string) {
	c.SetCloseReason(reason)
	_ = c.Close()
}

// TestConnIsAConn: the wrapper behaves as any net.Conn has to.
func TestConnIsAConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		var set pool.Set
		a, b := pair(t)
		c1, c2 = add(&set, a), add(&set, b)
		return c1, c2, func() {
			_ = c1.Close()
			_ = c2.Close()
		}, nil
	})
}

// TestAccount: bytes are booked in the pool in which they were moved, and no counter runs
// backwards.
func TestAccount(t *testing.T) {
	var set pool.Set
	client, raw := pair(t)
	c := add(&set, raw)
	exchange := func() {
		t.Helper()
		if _, err := client.Write([]byte("12345")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("123")); err != nil {
			t.Fatal(err)
		}
	}
	exchange()
	check := func(want map[string]pool.Stats) {
		t.Helper()
		// The rates have their own test; here they depend on how long the test takes.
		if diff := cmp.Diff(want, set.Stats(), ignoreRates); diff != "" {
			t.Fatalf("stats (-want +got):\n%s", diff)
		}
	}
	check(map[string]pool.Stats{"sniffing": {Active: 1, Accepted: 1}})
	set.Move(c, "http1")
	exchange()
	sniffed := pool.Stats{Accepted: 1, Moved: 1}
	check(map[string]pool.Stats{
		"sniffing": sniffed,
		"http1":    {Active: 1, Accepted: 1, BytesReceived: 10, BytesSent: 6},
	})
	set.Move(c, "websocket")
	exchange()
	http1 := pool.Stats{Accepted: 1, Moved: 1, BytesReceived: 10, BytesSent: 6}
	check(map[string]pool.Stats{
		"sniffing":  sniffed,
		"http1":     http1,
		"websocket": {Active: 1, Accepted: 1, BytesReceived: 5, BytesSent: 3},
	})
	_ = c.Close()
	_ = c.Close()
	check(map[string]pool.Stats{
		"sniffing":  sniffed,
		"http1":     http1,
		"websocket": {Accepted: 1, Closed: 1, BytesReceived: 5, BytesSent: 3},
	})
	if set.Move(c, "http1") {
		t.Error("a closed connection was moved")
	}
	if got := c.State(); got != pool.StateClosing {
		t.Errorf("state %v", got)
	}
}

// TestConnSize: there is one for each connection, so every word counts.
func TestConnSize(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("the figure is that of 64-bit machines")
	}
	if got := unsafe.Sizeof(pool.Conn{}); got > 152 {
		t.Errorf("a Conn takes %d bytes, want at most 144", got)
	}
}

// TestNoWayBackToSniffing: a connection whose protocol is known does not forget it.
func TestNoWayBackToSniffing(t *testing.T) {
	var set pool.Set
	c := add(&set, pipeFrom(t, "192.0.2.1"))
	if !set.Move(c, pool.Sniffing) {
		t.Error("it cannot stay where it is")
	}
	set.Move(c, "http1")
	if set.Move(c, pool.Sniffing) || c.Tag() != "http1" {
		t.Errorf("it went back, and is in %s", c.Tag())
	}
	if got := new(pool.Conn).Tag(); got != "" {
		t.Errorf("one that was never added is in %q", got)
	}
}

// TestTimes: the times of a connection are those of the clock, whenever the Set began.
func TestTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var set pool.Set
		add(&set, pipeFrom(t, "192.0.2.1"))
		time.Sleep(time.Hour)
		c := add(&set, bench{})
		opened := time.Now()
		if !c.Opened().Equal(opened) || !c.LastActivity().Equal(opened) {
			t.Errorf("opened %v, last active %v, want %v", c.Opened(), c.LastActivity(), opened)
		}
		time.Sleep(time.Minute)
		_, _ = c.Write([]byte("x"))
		if apart := c.LastActivity().Sub(opened); !c.Opened().Equal(opened) || apart < time.Minute || apart > time.Minute+time.Second/5 {
			t.Errorf("opened %v, last active %v later, want a minute", c.Opened(), apart)
		}
	})
}

// TestLifetimes: how long connections lived is counted where they ended.
func TestLifetimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var set pool.Set
		for _, d := range []time.Duration{time.Millisecond, time.Second, 90 * time.Second, 24 * time.Hour, 25 * time.Hour} {
			c := add(&set, bench{})
			set.Move(c, "http1")
			time.Sleep(d)
			set.Move(c, "websocket")
			_ = c.Close()
			_ = c.Close()
		}
		all := set.Stats()
		if all["http1"].Lifetimes.Count != 0 || all["sniffing"].Lifetimes.Count != 0 {
			t.Errorf("counted where none ended: %+v", all)
		}
		totals := all["websocket"].Lifetimes
		buckets := totals.Map()
		got := []uint64{buckets[1], buckets[60], buckets[120], buckets[43200], buckets[86400], totals.Count}
		if diff := cmp.Diff([]uint64{2, 2, 3, 3, 4, 5}, got); diff != "" || len(buckets) != 13 {
			t.Errorf("%d buckets (-want +got):\n%s", len(buckets), diff)
		}
		if want := 1.001 + 90 + 49*3600; math.Abs(totals.SumSeconds-want) > 1e-6 {
			t.Errorf("%v s together, want %v", totals.SumSeconds, want)
		}
	})
}

// TestReject: rejections are counted by pool and reason.
func TestReject(t *testing.T) {
	var set pool.Set
	set.Reject(pool.Sniffing, "silent")
	set.Reject(pool.Sniffing, "silent")
	set.Reject("http1", "limit")
	want := map[string]map[string]uint64{"sniffing": {"silent": 2}, "http1": {"limit": 1}}
	got := make(map[string]map[string]uint64)
	for tag, stats := range set.Stats() {
		got[tag] = stats.Rejected
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rejected (-want +got):\n%s", diff)
	}
}

// TestSendfile: a file goes through the wrapper by the socket's own ReadFrom.
func TestSendfile(t *testing.T) {
	var set pool.Set
	client, raw := pair(t)
	c := add(&set, raw)
	name := filepath.Join(t.TempDir(), "file")
	const size = 1 << 20
	if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(c, f)
		done <- errors.Join(err, c.CloseWrite())
	}()
	n, err := io.Copy(io.Discard, client)
	if err := errors.Join(err, <-done); err != nil || n != size {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if got := c.Info().BytesSent; got != size {
		t.Errorf("booked %d bytes, want %d", got, size)
	}
}

// TestNoDrift: thousands of connections are added, moved and closed at random,
// many at a time; every gauge is back at zero, and the books agree.
func TestNoDrift(t *testing.T) {
	var set pool.Set
	tags := []pool.Tag{"http1", "http2", "grpc", "websocket"}
	const workers, rounds = 8, 500
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range rounds {
				a, b := net.Pipe()
				c := add(&set, a)
				for range rand.N(4) {
					set.Move(c, tags[rand.N(len(tags))])
				}
				_ = set.Stats()
				var closers sync.WaitGroup
				for range 2 {
					closers.Go(func() { _ = c.Close() })
				}
				set.Move(c, tags[0])
				closers.Wait()
				_ = b.Close()
			}
		})
	}
	wg.Wait()
	var entered, closed uint64
	for tag, s := range set.Stats() {
		if s.Active != 0 {
			t.Errorf("%s: %d active", tag, s.Active)
		}
		if s.Accepted != s.Closed+s.Moved {
			t.Errorf("%s: %d came, %d closed, %d moved", tag, s.Accepted, s.Closed, s.Moved)
		}
		closed += s.Closed
		if tag == string(pool.Sniffing) {
			entered = s.Accepted
		}
	}
	if entered != workers*rounds || closed != entered {
		t.Errorf("%d came and %d were closed, want %d", entered, closed, workers*rounds)
	}
	if set.Len() != 0 {
		t.Errorf("%d left", set.Len())
	}
}

// TestWaitEmpty: the wait ends with the last connection of the pools named, or with its
// context.
func TestWaitEmpty(t *testing.T) {
	var set pool.Set
	a, b := net.Pipe()
	defer b.Close()
	c := add(&set, a)
	set.Move(c, "http1")
	if err := set.WaitEmpty(t.Context(), "grpc"); err != nil {
		t.Errorf("an empty pool: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := set.WaitEmpty(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- set.WaitEmpty(t.Context(), "http1") }()
	_ = c.Close()
	if err := <-done; err != nil {
		t.Errorf("after the close: %v", err)
	}
}

// TestWaitEmptyWakes: a wait that has begun ends when the last connection of its pool is
// moved to another one, or closed.
func TestWaitEmptyWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var set pool.Set
		c := add(&set, bench{})
		for _, tt := range []struct {
			tag   pool.Tag
			leave func()
		}{
			{pool.Sniffing, func() { set.Move(c, "http1") }},
			{"http1", func() { set.Move(c, "websocket") }},
			{"websocket", func() { _ = c.Close() }},
		} {
			done := make(chan error, 1)
			go func() { done <- set.WaitEmpty(t.Context(), tt.tag) }()
			synctest.Wait()
			tt.leave()
			synctest.Wait()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("%s: %v", tt.tag, err)
				}
			default:
				t.Errorf("%s is empty, and the wait goes on", tt.tag)
			}
		}
	})
}

// TestLenOfMoved: a connection that leaves the pool Sniffing is counted all the time.
func TestLenOfMoved(t *testing.T) {
	for range 50 {
		var set pool.Set
		conns := make([]*pool.Conn, 2000)
		for i := range conns {
			conns[i] = add(&set, bench{})
		}
		var mover sync.WaitGroup
		mover.Go(func() {
			for _, c := range conns {
				set.Move(c, "http1")
			}
		})
		least := len(conns)
		for set.Len(pool.Sniffing) > 0 {
			least = min(least, set.Len("http1", pool.Sniffing))
		}
		mover.Wait()
		for _, c := range conns {
			_ = c.Close()
		}
		if least < len(conns) {
			t.Fatalf("%d connections, want %d", least, len(conns))
		}
	}
}

// TestReadWriteAllocations: the account costs no allocation, on whatever way the bytes
// go.
func TestReadWriteAllocations(t *testing.T) {
	var set pool.Set
	var watch pool.StallWatch
	_, socket := pair(t)
	c := add(&set, above{socket: socket})
	buf := make([]byte, 16)
	source := bytes.NewReader(buf)
	now := time.Now()
	for name, operation := range map[string]func(){
		"read":          func() { _, _ = c.Read(buf) },
		"write":         func() { _, _ = c.Write(buf) },
		"readfrom":      func() { _, _ = c.ReadFrom(source) },
		"messages":      func() { c.CountMessages(1, 1) },
		"request":       func() { c.BeginRequest(); c.EndRequest() },
		"deadline":      func() { _ = c.SetDeadline(now) },
		"close reason":  func() { c.SetCloseReason("idle_timeout") },
		"not writing":   func() { _ = watch.Check(now, c) },
		"state and tag": func() { c.SetState(pool.StateIdle); _ = c.Tag() },
	} {
		if n := testing.AllocsPerRun(100, operation); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// TestExchangeAllocations: nor over a real socket.
func TestExchangeAllocations(t *testing.T) {
	var set pool.Set
	client, raw := pair(t)
	c := add(&set, raw)
	buf := make([]byte, 16)
	for name, read := range map[string]io.Reader{"read": c, "read ahead": readerFunc(c.ReadAhead)} {
		n := testing.AllocsPerRun(100, func() {
			_, _ = c.Write(buf)
			_, _ = io.ReadFull(client, buf)
			_, _ = client.Write(buf)
			_, _ = io.ReadFull(read, buf[:9])
			_, _ = io.ReadFull(read, buf[9:])
		})
		if n != 0 && !raceEnabled {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// TestInfo shows a connection's account.
func TestInfo(t *testing.T) {
	var set pool.Set
	_, raw := pair(t)
	c := add(&set, raw)
	set.Move(c, "http1")
	c.SetState(pool.StateIdle)
	c.CountMessages(3, 2)
	c.CountMessages(1, -1)
	info := c.Info()
	if info.MessagesReceived != 4 || info.MessagesSent != 2 {
		t.Errorf("%d messages received and %d sent, want 4 and 2", info.MessagesReceived, info.MessagesSent)
	}
	if info.ID != 1 || info.Protocol != "http1" || info.State != "idle" || time.Since(info.Opened) > time.Minute {
		t.Errorf("info %+v", info)
	}
}
