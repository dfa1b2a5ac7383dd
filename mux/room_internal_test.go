package mux

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestFindingsAreForgotten: what a search for room has found is not kept, because those
// connections may end.
func TestFindingsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newRoom(nil)
		for range 2 {
			m.mu.Lock()
			m.first("", func() ([]spare, int) { return make([]spare, 3), 3 }, func(spare) bool { return true })
			left := len(m.found[""].next)
			m.mu.Unlock()
			time.Sleep(findingsKept)
			synctest.Wait()
			if next := m.found[""].next; left != 2 || next != nil {
				t.Errorf("%d connections were left of the search, %d of them a second later; want 2 and 0", left, len(next))
			}
		}
	})
}
