package pool

import (
	"net"
	"testing"
	"time"
)

// TestNoLockOfALife: from its accept to its close a connection takes no lock that all
// share. (With the first one of a second, Add notes that the second has begun. So there are
// several attempts.)
func TestNoLockOfALife(t *testing.T) {
	var set Set
	set.SetLimits(Limits{Config: Config{MaxConnections: 10}, PerTag: map[Tag]int{"http1": 10}})
	set.Observe(func(Event) {})
	first, _ := net.Pipe()
	set.Add(new(Conn), first, nil) // Which has the clock run.
	for attempt := 0; ; attempt++ {
		set.mu.Lock()
		done := make(chan bool, 1)
		go func() {
			c, raw := new(Conn), new(net.TCPConn)
			refuse := set.Add(c, raw, nil)
			moved, full := set.MoveWithin(c, "http1")
			_ = c.Close()
			done <- refuse == "" && moved && !full
		}()
		select {
		case ok := <-done:
			set.mu.Unlock()
			if !ok || set.Len() != 1 {
				t.Errorf("the connection was not in its pool, or is still there: %d", set.Len())
			}
			return
		case <-time.After(time.Second):
			set.mu.Unlock()
			<-done
		}
		if attempt == 10 {
			t.Fatal("a connection waits for the lock")
		}
	}
}

// TestLockOfALife: a limit of each client's connections costs a connection the Set's lock
// twice: in Add, which learns its client, and in Close. A move takes it where a pool's
// health changes.
func TestLockOfALife(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var set Set
	set.SetLimits(Limits{Config: Config{MaxConnections: 10, PerAddress: 1}, PerTag: map[Tag]int{"http1": 10}})
	set.Observe(func(Event) {})
	connect := func() net.Conn {
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return server
	}
	c, second := new(Conn), new(Conn)
	if reason := set.Add(c, connect(), nil); reason != "" {
		t.Errorf("the first of a client is refused for %q", reason)
	}
	if reason := set.Add(second, connect(), nil); reason != ReasonAddressLimit {
		t.Errorf("the second of a client is refused for %q", reason)
	}
	set.mu.Lock()
	done := make(chan bool, 1)
	go func() {
		moved, full := set.MoveWithin(c, "http1")
		c.BeginRequest()
		c.EndRequest()
		done <- moved && !full
	}()
	select {
	case ok := <-done:
		if !ok {
			t.Error("the connection is not in its pool")
		}
	case <-time.After(10 * time.Second):
		t.Error("the move waits for the lock")
	}
	set.mu.Unlock()
	_ = second.Close()
	_ = c.Close()
	if len(set.clients) != 0 || set.Len() != 0 {
		t.Errorf("after the close: clients %v, %d connections", set.clients, set.Len())
	}
}
