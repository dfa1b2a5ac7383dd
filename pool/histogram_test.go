package pool_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muxserve/muxserve/pool"
)

// maxError is what the documentation promises.
const maxError = 0.025

// within reports whether got is at most the share off given away from want.
func within(got, want, off float64) bool { return max(got-want, want-got) <= off*want }

// TestHistogramError: one duration is told within 2.5 % from one end of the range to the
// other, and what is outside is told as the end.
func TestHistogramError(t *testing.T) {
	check := func(d, want time.Duration) {
		t.Helper()
		h := pool.NewHistogram()
		h.Record(d)
		for _, p := range []float64{0, 0.5, 1} {
			if got := h.Snapshot().Quantile(p); !within(float64(got), float64(want), maxError) {
				t.Errorf("%v: quantile %v is %v, want %v", d, p, got, want)
			}
		}
	}
	for d := time.Microsecond; d <= time.Hour; d += max(d/19, 1) {
		check(d, d)
	}
	for _, d := range []time.Duration{-time.Second, 0, 1, time.Microsecond - 1} {
		check(d, time.Microsecond)
	}
	for _, d := range []time.Duration{time.Hour + 1, 2 * time.Hour, 1<<63 - 1} {
		check(d, time.Hour)
	}
}

// TestHistogramQuantiles: quantiles are those of the sorted durations.
func TestHistogramQuantiles(t *testing.T) {
	h := pool.NewHistogram()
	if got := h.Snapshot().Quantile(0.5); got != 0 {
		t.Errorf("the median of nothing is %v", got)
	}
	random := rand.New(rand.NewPCG(1, 2))
	all := make([]time.Duration, 5000)
	for i := range all {
		all[i] = time.Duration(random.ExpFloat64() * float64(20*time.Millisecond))
		h.Record(all[i])
	}
	slices.Sort(all)
	snapshot := h.Snapshot()
	if got := snapshot.Count(); got != uint64(len(all)) {
		t.Errorf("%d recorded, want %d", got, len(all))
	}
	for _, tt := range []struct {
		p    float64
		rank int
	}{{-1, 0}, {0, 0}, {0.0002, 0}, {0.5, 2499}, {0.95, 4749}, {0.99, 4949}, {1, 4999}, {2, 4999}} {
		got, want := snapshot.Quantile(tt.p), max(all[tt.rank], time.Microsecond)
		if !within(float64(got), float64(want), maxError) {
			t.Errorf("quantile %v is %v, want %v", tt.p, got, want)
		}
	}
}

// TestHistogramWindow: a duration counts for 50 to 60 seconds, whatever happens after it.
func TestHistogramWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := pool.NewHistogram()
		expect := func(want uint64) {
			t.Helper()
			if got := h.Snapshot().Count(); got != want {
				t.Errorf("%d in the window, want %d", got, want)
			}
		}
		h.Record(time.Millisecond)
		time.Sleep(9 * time.Second)
		h.Record(time.Millisecond)
		time.Sleep(50 * time.Second) // 59 s after the beginning
		expect(2)
		time.Sleep(time.Second)
		expect(0)
		h.Record(time.Millisecond) // into the slot of the first two
		expect(1)
		time.Sleep(time.Hour)
		expect(0)
		for range 100 {
			time.Sleep(time.Second)
			h.Record(time.Millisecond)
		}
		time.Sleep(9 * time.Second)
		expect(51) // the slot that is full in a second, and five
	})
}

// TestHistogramConcurrent: nothing is lost between recorders, readers and the turn of the slots.
func TestHistogramConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := pool.NewHistogram()
		const workers, rounds = 8, 500
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for i := range rounds {
					// 50 seconds at most, so that all of it is still in the window at the end.
					time.Sleep(time.Duration(rand.Int64N(int64(200 * time.Millisecond))))
					h.Record(time.Duration(rand.Int64N(int64(time.Minute))))
					if i%8 == 0 {
						_ = h.Snapshot()
					}
				}
			})
		}
		wg.Wait()
		if got := h.Snapshot().Count(); got != workers*rounds {
			t.Errorf("%d recorded, want %d", got, workers*rounds)
		}
	})
}

func BenchmarkHistogramRecord(b *testing.B) {
	b.Run("alone", func(b *testing.B) {
		h := pool.NewHistogram()
		b.ReportAllocs()
		for b.Loop() {
			h.Record(3 * time.Millisecond)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		h := pool.NewHistogram()
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				h.Record(3 * time.Millisecond)
			}
		})
	})
}

func BenchmarkHistogramSnapshot(b *testing.B) {
	h := pool.NewHistogram()
	h.Record(time.Millisecond)
	for b.Loop() {
		_ = h.Snapshot().Quantile(0.99)
	}
}
