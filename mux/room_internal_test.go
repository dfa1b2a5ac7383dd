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
		m := newRoom(nil)
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

// TestHTTP1IsAnsweredWhenIdle: behind its handler, net/http may still be writing the answer.
func TestHTTP1IsAnsweredWhenIdle(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	var set pool.Set
	c := new(conn)
	set.Add(&c.account, near, c)
	defer c.account.Close()
	for state, want := range map[pool.State]bool{pool.StateActive: false, pool.StateIdle: true} {
		c.account.SetState(state)
		if c.isAnswered() != want {
			t.Errorf("%v: answered %t", state, !want)
		}
	}
}
