package pool_test

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/pool"
)

// TestKnownLoad: an open-loop generator, which starts requests at a fixed rate
// whatever becomes of them, with latencies and failures of a known distribution. Every figure comes
// out right within 5 %.
func TestKnownLoad(t *testing.T) {
	const (
		perSecond = 1000
		mean      = 80 * time.Millisecond // of an exponential distribution
		failing   = 0.1
		length    = 90 * time.Second // longer than the window
	)
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(5, 6))
		var set pool.Set
		requests := set.Requests("http1")
		start := time.Now()
		var wg sync.WaitGroup
		for next := start; next.Sub(start) < length; next = next.Add(time.Second / perSecond) {
			time.Sleep(time.Until(next))
			latency := time.Duration(random.ExpFloat64() * float64(mean))
			failed := random.Float64() < failing
			requests.Begin()
			began := time.Now()
			wg.Go(func() {
				time.Sleep(latency)
				code := 200
				if failed {
					code = 500
				}
				requests.End(time.Since(began), failed, code)
			})
		}
		stats := set.RequestStats()["http1"]
		quantile := func(p float64) float64 { return -math.Log(1-p) * mean.Seconds() }
		for _, tt := range []struct {
			name      string
			got, want float64
		}{
			{"requests in the last second", stats.PerSecond, perSecond},
			{"requests a minute", stats.PerMinute, 60 * perSecond},
			{"error rate", stats.ErrorRate, failing},
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
		stats = requests.Stats()
		codes := requests.Codes()
		if stats.InFlight != 0 || stats.Total != started || codes[500] != stats.Failed || codes[200] != started-stats.Failed {
			t.Errorf("at the end: %+v, codes %v", stats, codes)
		}
		if totals := requests.Durations(); !within(totals.SumSeconds/float64(totals.Count), mean.Seconds(), 0.05) {
			t.Errorf("%d requests took %v s", totals.Count, totals.SumSeconds)
		}
	})
}

// TestKnownLoadEnds: a minute after the load, the totals are all that is left of it.
func TestKnownLoadEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requests := pool.NewRequests()
		requests.Begin()
		requests.End(time.Millisecond, true, 500)
		if got := requests.Stats(); got.ErrorRate != 1 || got.P99 == 0 {
			t.Errorf("at once: %+v", got)
		}
		time.Sleep(59 * time.Second)
		if got := requests.Stats(); got.ErrorRate != 1 || got.P99 == 0 || got.PerSecond != 0 {
			t.Errorf("after 59 s: %+v", got)
		}
		time.Sleep(2 * time.Second)
		if diff := cmp.Diff(pool.RequestStats{Total: 1, Failed: 1}, requests.Stats()); diff != "" {
			t.Errorf("after a minute (-want +got):\n%s", diff)
		}
	})
}

// TestRequestsOfTag: a tag has its statistics for good.
func TestRequestsOfTag(t *testing.T) {
	var set pool.Set
	one := set.Requests("grpc")
	one.Begin()
	if set.Requests("grpc") != one || set.Requests("http1") == one {
		t.Error("the statistics are not one to a tag")
	}
	want := map[string]pool.RequestStats{"grpc": {InFlight: 1}, "http1": {}}
	if diff := cmp.Diff(want, set.RequestStats()); diff != "" {
		t.Errorf("statistics (-want +got):\n%s", diff)
	}
}

// TestCodes: the codes from 0 to 599 are told apart, the rest is one.
func TestCodes(t *testing.T) {
	requests := pool.NewRequests()
	for _, code := range []int{0, 16, 100, 200, 200, 599, 600, -1, -7, math.MaxInt} {
		requests.Begin()
		requests.End(0, false, code)
	}
	want := map[int]uint64{0: 1, 16: 1, 100: 1, 200: 2, 599: 1, pool.OtherCode: 4}
	if diff := cmp.Diff(want, requests.Codes()); diff != "" {
		t.Errorf("codes (-want +got):\n%s", diff)
	}
}

// TestDurations: a duration is in the bucket of its bound, and in all bigger ones.
func TestDurations(t *testing.T) {
	var durations pool.Durations
	for _, d := range []time.Duration{-1, time.Millisecond, time.Millisecond + 1, 30 * time.Second, time.Minute} {
		durations.Record(d)
	}
	totals := durations.Totals()
	if totals.Count != 5 || !within(totals.SumSeconds, 90.002, 1e-6) {
		t.Errorf("%d records of %v s together", totals.Count, totals.SumSeconds)
	}
	buckets := totals.Map()
	got := []uint64{buckets[0.001], buckets[0.0025], buckets[10], buckets[30]}
	if diff := cmp.Diff([]uint64{2, 3, 3, 4}, got); diff != "" || len(buckets) != 14 {
		t.Errorf("%d buckets (-want +got):\n%s", len(buckets), diff)
	}
}

// TestRequestsConcurrent: many goroutines count and ask at random; no count is off at the end.
func TestRequestsConcurrent(t *testing.T) {
	var set pool.Set
	const workers, rounds = 8, 2000
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			requests := set.Requests("http2")
			for i := range rounds {
				requests.Begin()
				if rand.N(100) == 0 {
					if stats := set.RequestStats()["http2"]; stats.InFlight < 0 || stats.ErrorRate > 1 {
						t.Errorf("meanwhile: %+v", stats)
					}
				}
				requests.End(time.Duration(rand.Int64N(int64(time.Second))), i%4 == 0, worker)
			}
		})
	}
	wg.Wait()
	requests := set.Requests("http2")
	stats := requests.Stats()
	if stats.Total != workers*rounds || stats.Failed != workers*rounds/4 || stats.InFlight != 0 {
		t.Errorf("statistics %+v", stats)
	}
	for worker, n := range requests.Codes() {
		if n != rounds {
			t.Errorf("worker %d counted %d, want %d", worker, n, rounds)
		}
	}
}

// TestRequestAllocations: a request costs no allocation.
func TestRequestAllocations(t *testing.T) {
	requests := pool.NewRequests()
	if n := testing.AllocsPerRun(1000, func() {
		requests.Begin()
		requests.End(time.Millisecond, true, 200)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRequests(b *testing.B) {
	b.Run("alone", func(b *testing.B) {
		requests := pool.NewRequests()
		b.ReportAllocs()
		for b.Loop() {
			requests.Begin()
			requests.End(3*time.Millisecond, false, 200)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		requests := pool.NewRequests()
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				requests.Begin()
				requests.End(3*time.Millisecond, false, 200)
			}
		})
	})
	b.Run("stats", func(b *testing.B) {
		requests := pool.NewRequests()
		b.ReportAllocs()
		for b.Loop() {
			_ = requests.Stats()
		}
	})
}
