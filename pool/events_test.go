package pool_test

import (
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/muxserve/muxserve/pool"
)

// record observes set and returns the events so far, without their times.
func record(set *pool.Set) (events func() []pool.Event, cancel func()) {
	var mu sync.Mutex
	var all []pool.Event
	cancel = set.Observe(func(e pool.Event) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, e)
	})
	return func() []pool.Event {
		mu.Lock()
		defer mu.Unlock()
		return append([]pool.Event(nil), all...)
	}, cancel
}

// ignoreTime compares connections by identity and errors by ==.
var ignoreTime = cmp.Options{
	cmpopts.IgnoreFields(pool.Event{}, "Time", "Seq"),
	cmp.Comparer(func(a, b *pool.Conn) bool { return a == b }),
	cmp.Comparer(func(a, b error) bool { return a == b }),
}

// TestEvents: a connection's life is told in order, and nothing after the end of the
// observation.
func TestEvents(t *testing.T) {
	var set pool.Set
	set.SetLimits(pool.Limits{
		Config: pool.Config{MaxConnections: 1, PerAddress: 1}, PerTag: map[pool.Tag]int{"websocket": 1},
		Health: pool.HealthConfig{DegradedAbove: 1, OverloadedAbove: 1},
	})
	events, cancel := record(&set)

	c := add(&set, pipeFrom(t, "192.0.2.1"))
	set.Move(c, "http1")
	set.Move(c, "http1") // where it is already
	set.Identify(c, c.RemoteAddr())
	set.Report(pool.Event{Kind: pool.EventTimeout, Conn: c, Reason: "idle"})
	set.Reserve(c, "websocket")
	set.MoveWithin(c, "websocket")
	set.Reserve(nil, "websocket")
	set.MoveReserved(c, "websocket")
	failure := errors.New("broken")
	set.Report(pool.Event{Kind: pool.EventError, Tag: "grpc", Err: failure})
	refused := add(&set, pipeFrom(t, "192.0.2.1"))
	set.Identify(refused, refused.RemoteAddr())
	c.SetCloseReason("drain")
	closeFor(c, "late")
	_ = c.Close()
	_ = refused.Close()

	want := []pool.Event{
		{Kind: pool.EventAdded, Conn: c, Tag: pool.Sniffing},
		{Kind: pool.EventRetagged, Conn: c, Tag: "http1", From: pool.Sniffing},
		{Kind: pool.EventTimeout, Conn: c, Tag: "http1", Reason: "idle"},
		{Kind: pool.EventLimitReached, Conn: c, Tag: "websocket", Reason: pool.ReasonLimit},
		{Kind: pool.EventLimitReached, Tag: "websocket", Reason: pool.ReasonLimit},
		{Kind: pool.EventRetagged, Conn: c, Tag: "websocket", From: "http1"},
		{Kind: pool.EventError, Tag: "grpc", Err: failure},
		{Kind: pool.EventAdded, Conn: refused, Tag: pool.Sniffing},
		{Kind: pool.EventHealthChanged, Tag: pool.TotalTag, Old: pool.Healthy, New: pool.Overloaded},
		{Kind: pool.EventLimitReached, Conn: refused, Tag: pool.Sniffing, Reason: pool.ReasonLimit},
		{Kind: pool.EventLimitReached, Conn: refused, Tag: pool.Sniffing, Reason: pool.ReasonAddressLimit},
		{Kind: pool.EventRemoved, Conn: c, Tag: "websocket", Reason: "drain"},
		{Kind: pool.EventRemoved, Conn: refused, Tag: pool.Sniffing, Reason: "server_closed"},
		{Kind: pool.EventHealthChanged, Tag: pool.TotalTag, Old: pool.Overloaded, New: pool.Healthy},
	}
	got := events()
	if diff := cmp.Diff(want, got, ignoreTime); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	for i, e := range got {
		if e.Seq != uint64(i+1) || e.Time.IsZero() {
			t.Errorf("event %d has number %d and time %v", i, e.Seq, e.Time)
		}
	}
	cancel()
	cancel()
	_ = add(&set, pipeFrom(t, "192.0.2.1"))
	if n := len(events()); n != len(want) {
		t.Errorf("%d events after the end, want %d", n, len(want))
	}
}

// TestObserverMayCallBack: an observer holds no lock, so it may look, move and close.
func TestObserverMayCallBack(t *testing.T) {
	var set pool.Set
	var kinds []string
	set.Observe(func(e pool.Event) {
		kinds = append(kinds, string(e.Kind))
		switch e.Kind {
		case pool.EventAdded:
			set.Move(e.Conn, "http1")
		case pool.EventRetagged:
			closeFor(e.Conn, "unwanted")
		case pool.EventRemoved:
			if set.Len() != 0 || e.Conn.Tag() != "http1" || e.Conn.CloseReason() != "unwanted" {
				t.Errorf("%d connections, the last in %s closed for %q", set.Len(), e.Conn.Tag(), e.Conn.CloseReason())
			}
		}
	})
	add(&set, pipeFrom(t, "192.0.2.1"))
	if diff := cmp.Diff([]string{"added", "retagged", "removed"}, kinds); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// TestObserverPanic: a panic ends one call of one observer. The others are told of the
// event and of the panic, and the one that panicked at that as well is not called for
// ever.
func TestObserverPanic(t *testing.T) {
	var set pool.Set
	set.Observe(func(pool.Event) { panic("on purpose") })
	events, _ := record(&set)
	c := add(&set, pipeFrom(t, "192.0.2.1"))
	_ = c.Close()
	var told []string
	var last error
	for _, e := range events() {
		told = append(told, string(e.Kind)+" "+e.Reason)
		if e.Err != nil {
			last = e.Err
		}
	}
	want := []string{"error observer_panic", "added ", "error observer_panic", "removed server_closed"}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if last == nil || !strings.Contains(last.Error(), "pool: an observer panicked at removed: on purpose") ||
		!strings.Contains(last.Error(), "TestObserverPanic") {
		t.Errorf("the last panic: %v", last)
	}
}

// TestEventsAgree: thousands of connections come, move and go at random, some of them
// moved and closed at the same time; what the events say adds up to what the Set says.
func TestEventsAgree(t *testing.T) {
	var set pool.Set
	tags := []pool.Tag{"http1", "http2", "websocket"}
	set.SetLimits(pool.Limits{Config: pool.Config{MaxConnections: 6}, PerTag: map[pool.Tag]int{"websocket": 2}})
	events, _ := record(&set)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				a, b := net.Pipe()
				c := add(&set, a)
				set.MoveWithin(c, tags[rand.N(len(tags))])
				var both sync.WaitGroup
				both.Go(func() { set.Move(c, tags[rand.N(len(tags))]) })
				both.Go(func() { _ = c.Close() })
				if rand.N(20) == 0 {
					_, cancel := record(&set)
					cancel()
				}
				both.Wait()
				_ = b.Close()
			}
		})
	}
	wg.Wait()
	gauges := make(map[pool.Tag]int)
	lastChange := make(map[pool.Tag]pool.Event)
	numbers := make(map[uint64]bool)
	for _, e := range events() {
		numbers[e.Seq] = true
		switch e.Kind {
		case pool.EventAdded:
			gauges[e.Tag]++
		case pool.EventRetagged:
			gauges[e.From]--
			gauges[e.Tag]++
		case pool.EventRemoved:
			gauges[e.Tag]--
		case pool.EventHealthChanged:
			if e.Seq > lastChange[e.Tag].Seq {
				lastChange[e.Tag] = e
			}
		}
	}
	for tag, n := range gauges {
		if n != 0 {
			t.Errorf("%s: %d left", tag, n)
		}
	}
	health := set.Health()
	for tag, e := range lastChange {
		if got := health[string(tag)].Status; got != e.New || got != pool.Healthy {
			t.Errorf("%s is %v, and was told to be %v", tag, got, e.New)
		}
	}
	if got := len(events()); len(numbers) != got {
		t.Errorf("%d numbers for %d events", len(numbers), got)
	}
}

// TestUnobservedAllocations: an event that nobody observes costs no allocation.
func TestUnobservedAllocations(t *testing.T) {
	var set pool.Set
	c := add(&set, pipeFrom(t, "192.0.2.1"))
	set.Move(c, "http2")
	if n := testing.AllocsPerRun(100, func() {
		set.Move(c, "http1")
		set.Report(pool.Event{Kind: pool.EventTimeout, Conn: c, Reason: "idle"})
		set.Move(c, "http2")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestObservedAllocations: nor does one that somebody observes, nor the close that tells
// why.
func TestObservedAllocations(t *testing.T) {
	var set pool.Set
	set.SetLimits(pool.Limits{Config: pool.Config{MaxConnections: 1000}, PerTag: map[pool.Tag]int{"http1": 1000}})
	set.SetTimeouts("idle_timeout")
	_, socket := pair(t)
	if _, _, known := add(&set, socket).SendQueue(); !known {
		t.Skip("what the peer takes is not known, so it is written by steps")
	}
	seen := 0
	set.Observe(func(pool.Event) { seen++ })
	raw := new(net.TCPConn)
	const rounds = 1000
	conns := make([]pool.Conn, 2*(rounds+1))
	next := 0
	if n := testing.AllocsPerRun(rounds, func() {
		for _, reason := range []string{"", "idle_timeout"} {
			c := &conns[next]
			next++
			set.Add(c, raw, nil)
			set.Move(c, "http1")
			closeFor(c, reason)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if want := (rounds + 1) * 7; seen != want {
		t.Errorf("%d events, want %d", seen, want)
	}
}

// TestEventsNested: an observer that causes events of its own is told each of them
// whole, however deep that goes, and whatever lists are used again.
func TestEventsNested(t *testing.T) {
	const depth = 30 // more than lists are kept
	var set pool.Set
	var reasons []string
	set.Observe(func(e pool.Event) {
		reasons = append(reasons, e.Reason)
		if n := len(e.Reason); n < depth {
			set.Report(pool.Event{Kind: pool.EventTimeout, Tag: "http1", Reason: e.Reason + "x"})
		}
		if e.Tag != "http1" {
			t.Errorf("after its own events an event is %+v", e)
		}
	})
	for range 3 {
		reasons = nil
		set.Report(pool.Event{Kind: pool.EventTimeout, Tag: "http1", Reason: "x"})
		for i, reason := range reasons {
			if len(reason) != i+1 {
				t.Errorf("event %d has the reason %q", i, reason)
			}
		}
		if len(reasons) != depth {
			t.Errorf("%d events, want %d", len(reasons), depth)
		}
	}
}
