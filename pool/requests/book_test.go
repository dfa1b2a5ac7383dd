package requests

import (
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// everySecond folds b once a second until stop is called, as a pool.Set does.
func everySecond(b *Book) (stop func()) {
	end := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				b.Fold()
			case <-end:
				return
			}
		}
	})
	return func() {
		close(end)
		wg.Wait()
	}
}

// TestKnownLoad: an open-loop generator, which starts requests at a fixed rate whatever
// becomes of them, with latencies and failures of a known distribution. Every figure
// comes out right within 5 %.
func TestKnownLoad(t *testing.T) {
	const (
		perSecond = 1000
		mean      = 80 * time.Millisecond // of an exponential distribution
		failing   = 0.1
		length    = 90 * time.Second // longer than the window
	)
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(5, 6))
		start := time.Now()
		book := New(start)
		defer everySecond(book)()
		var wg sync.WaitGroup
		for next := start; next.Sub(start) < length; next = next.Add(time.Second / perSecond) {
			time.Sleep(time.Until(next))
			latency := time.Duration(random.ExpFloat64() * float64(mean))
			failed := random.Float64() < failing
			started := book.Begin()
			wg.Go(func() {
				time.Sleep(latency)
				code := 200
				if failed {
					code = 500
				}
				book.End(started, failed, code)
			})
		}
		stats, _ := book.Figures()
		quantile := func(p float64) float64 { return -math.Log(1-p) * mean.Seconds() }
		for _, tt := range []struct {
			name      string
			got, want float64
		}{
			{"requests in the last second", stats.PerSecond, perSecond},
			{"requests a minute", stats.PerMinute, 60 * perSecond},
			{"error rate", stats.ErrorRate, failing},
			{"mean", stats.Mean, mean.Seconds()},
			{"p50", stats.P50, quantile(0.50)},
			{"p95", stats.P95, quantile(0.95)},
			{"p99", stats.P99, quantile(0.99)},
		} {
			t.Logf("%-27s %10.4f, want %10.4f", tt.name, tt.got, tt.want)
			if !within(tt.got, tt.want, 0.05) {
				t.Errorf("%s is %v, want %v within 5 %%", tt.name, tt.got, tt.want)
			}
		}
		started := uint64(length.Seconds() * perSecond)
		if stats.Total+uint64(stats.InFlight) != started || stats.InFlight == 0 {
			t.Errorf("%d ended and %d in flight, want %d together", stats.Total, stats.InFlight, started)
		}
		wg.Wait()
		stats, totals := book.Figures()
		if stats.InFlight != 0 || stats.Total != started || totals.Codes[500] != stats.Failed || totals.Codes[200] != started-stats.Failed {
			t.Errorf("at the end: %+v, codes %v", stats, totals.Codes)
		}
		if d := totals.Durations; d.Count != started || !within(d.SumSeconds/float64(d.Count), mean.Seconds(), 0.05) {
			t.Errorf("%d requests took %v s", d.Count, d.SumSeconds)
		}
	})
}

// TestKnownLoadEnds: a minute after the load, the totals are all that is left of it, with
// and without folds.
func TestKnownLoadEnds(t *testing.T) {
	for name, folds := range map[string]bool{"folded": true, "asked": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				book := New(time.Now())
				if folds {
					defer everySecond(book)()
				}
				started := book.Begin()
				time.Sleep(time.Millisecond)
				if took := book.End(started, true, 500); took != time.Millisecond {
					t.Errorf("it took %v", took)
				}
				if got, _ := book.Figures(); got.ErrorRate != 1 || got.P99 == 0 {
					t.Errorf("at once: %+v", got)
				}
				time.Sleep(time.Second)
				if got, _ := book.Figures(); got.PerSecond != 1 || got.PerMinute != 60 {
					t.Errorf("after a second: %+v", got)
				}
				time.Sleep(58 * time.Second)
				if got, _ := book.Figures(); got.ErrorRate != 1 || got.P99 == 0 || got.PerSecond != 0 {
					t.Errorf("after 59 s: %+v", got)
				}
				time.Sleep(2 * time.Second)
				got, _ := book.Figures()
				if diff := cmp.Diff(Stats{Total: 1, Failed: 1}, got); diff != "" {
					t.Errorf("after a minute (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// TestLateBeginning: what the first request of a Book that is older than a minute adds to
// the rates belongs to its own second.
func TestLateBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		book := New(time.Now())
		defer everySecond(book)()
		time.Sleep(100*time.Second + time.Second/2)
		book.End(book.Begin(), false, 200)
		time.Sleep(time.Second)
		if got, _ := book.Figures(); got.PerSecond != 1 || got.PerMinute != 1 {
			t.Errorf("a second later: %+v", got)
		}
	})
}

// TestCodes: the codes from 0 to 599 are told apart, the rest is one.
func TestCodes(t *testing.T) {
	book := New(time.Now())
	for _, code := range []int{0, 16, 100, 200, 200, 599, 600, -1, -7, math.MaxInt} {
		book.End(book.Begin(), false, code)
	}
	want := map[int]uint64{0: 1, 16: 1, 100: 1, 200: 2, 599: 1, OtherCode: 4}
	if _, totals := book.Figures(); !cmp.Equal(want, totals.Codes) {
		t.Errorf("codes (-want +got):\n%s", cmp.Diff(want, totals.Codes))
	}
}

// TestDurations: a duration is in the bucket of its bound, and in all bigger ones; in a
// Book as well.
func TestDurations(t *testing.T) {
	var durations Durations
	book := New(time.Now())
	for _, d := range []time.Duration{-1, time.Millisecond, time.Millisecond + 1, 30 * time.Second, time.Minute} {
		durations.Record(d)
		record(book, d)
	}
	_, booked := book.Figures()
	for _, totals := range []DurationTotals{durations.Totals(), booked.Durations} {
		if totals.Count != 5 || !within(totals.SumSeconds, 90.002, 1e-6) {
			t.Errorf("%d records of %v s together", totals.Count, totals.SumSeconds)
		}
		buckets := totals.Map()
		got := []uint64{buckets[0.00005], buckets[0.0005], buckets[0.001], buckets[0.0025], buckets[10], buckets[30]}
		if diff := cmp.Diff([]uint64{1, 1, 2, 3, 3, 4}, got); diff != "" || len(buckets) != 18 {
			t.Errorf("%d buckets (-want +got):\n%s", len(buckets), diff)
		}
	}
}

// TestConcurrent: many goroutines count, fold and ask at random; no count is off at the
// end.
func TestConcurrent(t *testing.T) {
	book := New(time.Now())
	const workers, rounds = 8, 2000
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			for i := range rounds {
				started := book.Begin()
				if rand.N(100) == 0 {
					if stats, _ := book.Figures(); stats.InFlight < 1 || stats.ErrorRate > 1 || stats.Failed > stats.Total {
						t.Errorf("meanwhile: %+v", stats)
					}
				}
				book.End(started, i%4 == 0, worker)
			}
		})
	}
	wg.Wait()
	stats, totals := book.Figures()
	if stats.Total != workers*rounds || stats.Failed != workers*rounds/4 || stats.InFlight != 0 || totals.Durations.Count != stats.Total {
		t.Errorf("statistics %+v, %+v", stats, totals)
	}
	for worker, n := range totals.Codes {
		if n != rounds {
			t.Errorf("worker %d counted %d, want %d", worker, n, rounds)
		}
	}
}

// TestAllocations: a request costs no allocation.
func TestAllocations(t *testing.T) {
	book := New(time.Now())
	book.Begin()
	if n := testing.AllocsPerRun(1000, func() { book.End(book.Begin(), true, 200) }); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}

// TestMemory: what the documentation says about memory.
func TestMemory(t *testing.T) {
	for _, tt := range []struct {
		what        string
		size, limit uintptr
	}{
		{"a Book without a request", unsafe.Sizeof(Book{}), 128},
		{"a shard", unsafe.Sizeof(shard{}), 7 << 10},
		{"a ledger", unsafe.Sizeof(ledger{}), 2 << 10},
		{"a histogram", unsafe.Sizeof(histogram{}), 25 << 10},
	} {
		if tt.size > tt.limit {
			t.Errorf("%s takes %d bytes, want at most %d", tt.what, tt.size, tt.limit)
		}
	}
}

// TestProcessors: a processor gets a number that no other has, while there are enough, and
// a number that is lost comes back.
func TestProcessors(t *testing.T) {
	held := func(n int) int {
		processorsMu.Lock()
		defer processorsMu.Unlock()
		return processors[n]
	}
	collect := func(until func() bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); !until(); time.Sleep(time.Millisecond) {
			runtime.GC()
			if time.Now().After(deadline) {
				t.Fatal("a number does not come back")
			}
		}
	}
	collect(func() bool { // Under the race detector, the pool has lost many.
		free := 0
		for n := range processors {
			if held(n) == 0 {
				free++
			}
		}
		return free >= 2
	})
	first, second := newProcessor(), newProcessor()
	n := first.n
	if n == second.n || held(n) != 1 || held(second.n) != 1 {
		t.Errorf("%d is held by %d, %d by %d", n, held(n), second.n, held(second.n))
	}
	runtime.KeepAlive(first)
	collect(func() bool { return held(n) == 0 })
	runtime.KeepAlive(second)
}

// BenchmarkRequest is what counting a request costs from its begin to its end, on one
// processor and on all.
func BenchmarkRequest(b *testing.B) {
	b.Run("alone", func(b *testing.B) {
		book := New(time.Now())
		b.ReportAllocs()
		for b.Loop() {
			book.End(book.Begin(), false, 200)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		book := New(time.Now())
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				book.End(book.Begin(), false, 200)
			}
		})
	})
	b.Run("figures", func(b *testing.B) {
		book := New(time.Now())
		b.ReportAllocs()
		for b.Loop() {
			book.End(book.Begin(), false, 200)
			_, _ = book.Figures()
		}
	})
}
