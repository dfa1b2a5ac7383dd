package mux

import (
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muxserve/muxserve/pool"
)

// TestFindingsAreForgotten: what a search for room has found is not kept for long.
func TestFindingsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newRoom(nil, func() bool { return false })
		conns := []spare{{c: new(conn)}, {c: new(conn)}, {c: new(conn)}}
		for range 2 {
			m.mu.Lock()
			m.first(place{}, func() ([]spare, int) { return conns, 3 }, func(spare) bool { return true })
			left := len(m.found[place{}].next)
			m.mu.Unlock()
			time.Sleep(findingsKept)
			synctest.Wait()
			runtime.KeepAlive(conns)
			if left != 2 || len(m.found) != 0 {
				t.Errorf("%d connections were left of the search, want 2; %d searches are kept", left, len(m.found))
			}
		}
	})
}

// TestSearchesRest: where searches find nothing, they take a small part of the time in which
// connections are accepted, however many connections there are to look at.
func TestSearchesRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newRoom(nil, func() bool { return false })
		const looked, each = 2000, 2 * time.Microsecond
		var searched time.Duration
		search := func() ([]spare, int) {
			time.Sleep(looked * each)
			searched += looked * each
			return nil, looked
		}
		began := time.Now()
		for time.Since(began) < findingsKept {
			m.mu.Lock()
			m.first(place{}, search, func(spare) bool { return true })
			m.mu.Unlock()
			time.Sleep(time.Millisecond)
		}
		if most := findingsKept / 8; searched == 0 || searched > most {
			t.Errorf("searched for %v, want %v at most", searched, most)
		}
		time.Sleep(2 * findingsKept)
	})
}

// TestHTTP1IsAnsweredWhenIdle: behind its handler, net/http may still be writing the answer.
func TestHTTP1IsAnsweredWhenIdle(t *testing.T) {
	c, _ := pipedConn(t)
	for state, want := range map[pool.State]bool{pool.StateActive: false, pool.StateIdle: true} {
		c.account.SetState(state)
		if c.isAnswered() != want {
			t.Errorf("%v: answered %t", state, !want)
		}
	}
}

// TestWritesAlone: a connection on which TLS writes by itself, while a request is awaited, is
// ended, and makes room although there is more to read.
func TestWritesAlone(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var set pool.Set
	c := &conn{root: &root{endpoint: new(endpoint)}}
	set.Add(&c.account, near, c)
	defer c.account.Close()
	c.account.SetState(pool.StateIdle)
	m := newRoom(nil, func() bool { return false })
	m.mute, m.slow = 0, 0
	w := &sweep{elapsed: time.Second, tails: make(map[uint64]tail), seenTails: make(map[uint64]tail)}
	look := func(want bool) {
		t.Helper()
		w.begin(time.Now())
		if got := w.writesAlone(c, 2*time.Second); got != want {
			t.Errorf("ended %t, want %t", got, want)
		}
	}
	if _, err := far.Write([]byte("more")); err != nil {
		t.Fatal(err)
	}
	for !c.account.HasUnread() {
		time.Sleep(time.Millisecond)
	}
	look(false)
	if _, ok := m.spare(c); ok {
		t.Error("it makes room, though it has sent what is not read yet")
	}
	go func() { _, _ = c.account.Write(make([]byte, 64<<20)) }()
	for !c.account.IsWriting() {
		time.Sleep(time.Millisecond)
	}
	look(false)
	look(false)
	look(true)
	if _, ok := m.spare(c); !ok {
		t.Error("it makes no room")
	}
	c.account.SetState(pool.StateActive)
	c.begin()
	look(false)
}
