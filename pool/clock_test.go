package pool_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/pool"
)

// TestSweep: every live connection is visited once in a period, without a lock, until the
// context ends.
func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var set pool.Set
		ctx, cancel := context.WithCancel(t.Context())
		visits := make(map[uint64][]time.Duration) // by connection: when, after the beginning
		began := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			set.Sweep(ctx, time.Second, func(now time.Time, c *pool.Conn) {
				visits[c.ID()] = append(visits[c.ID()], now.Sub(began))
				if c.Tag() == "http1" {
					closeFor(c, "idle_timeout") // Would wait for ever if a lock were held.
				}
			})
		}()
		time.Sleep(1500 * time.Millisecond)
		first := add(&set, bench{})
		time.Sleep(time.Second)
		second := add(&set, bench{})
		set.Move(second, "http1")
		time.Sleep(2 * time.Second)
		cancel()
		<-done
		want := map[uint64][]time.Duration{
			first.ID():  {2 * time.Second, 3 * time.Second, 4 * time.Second},
			second.ID(): {3 * time.Second},
		}
		if diff := cmp.Diff(want, visits); diff != "" {
			t.Errorf("visits (-want +got):\n%s", diff)
		}
		if set.Len() != 1 {
			t.Errorf("%d connections left, want 1", set.Len())
		}
	})
}

// TestSweepEndsMidway: a sweep over many connections ends with its context.
func TestSweepEndsMidway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var set pool.Set
		for range 100 {
			add(&set, bench{})
		}
		ctx, cancel := context.WithCancel(t.Context())
		visits := 0
		set.Sweep(ctx, time.Second, func(time.Time, *pool.Conn) {
			visits++
			cancel()
		})
		if visits != 1 {
			t.Errorf("%d visits, want 1", visits)
		}
	})
}

// TestSweepLate: a sweep that takes long is not made up for.
func TestSweepLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var set pool.Set
		add(&set, bench{})
		ctx, cancel := context.WithTimeout(t.Context(), 10500*time.Millisecond)
		defer cancel()
		visits := 0
		set.Sweep(ctx, time.Second, func(time.Time, *pool.Conn) {
			visits++
			time.Sleep(3 * time.Second)
		})
		if visits < 3 || visits > 4 {
			t.Errorf("%d visits, want 3 or 4", visits)
		}
	})
}
