package pool

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// events are a rate with what it tells of.
type events struct {
	rate
	n atomic.Uint64
}

// add has one more happen.
func (e *events) add(second uint64) {
	e.mark(second, e.n.Load())
	e.n.Add(1)
}

func (e *events) all() counted { return counted{&e.rate, e.n.Load()} }

// TestRateAgainstList: the ring tells the same as a list of all events, through bursts, gaps and wraps.
func TestRateAgainstList(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var r events
	var all []uint64 // the second of each event
	now := uint64(0)
	count := func(from, to uint64) float64 {
		n := 0.0
		for _, s := range all {
			if s >= from && s < to {
				n++
			}
		}
		return n
	}
	for range 2000 {
		switch random.IntN(6) {
		case 0:
			now++
		case 1:
			now += random.Uint64N(200)
		default:
			r.add(now)
			all = append(all, now)
		}
		if now == 0 {
			continue
		}
		if got, want := lastSecond(now, r.all()), count(now-1, now); got != want {
			t.Fatalf("second %d: %v in the last second, want %v", now, got, want)
		}
		window := min(now, rateWindow)
		if got, want := lastMinute(now, r.all()), count(now-window, now)*rateWindow/float64(window); got != want {
			t.Fatalf("second %d: %v a minute, want %v", now, got, want)
		}
	}
}

// TestRateBeginning: before the first second is over there is no rate.
func TestRateBeginning(t *testing.T) {
	var r events
	r.add(second(-time.Second))
	r.add(second(time.Second - 1))
	if s, m := lastSecond(0, r.all()), lastMinute(0, r.all()); s != 0 || m != 0 {
		t.Errorf("in second 0: %v a second, %v a minute", s, m)
	}
	if s, m := lastSecond(1, r.all()), lastMinute(1, r.all()); s != 2 || m != 120 {
		t.Errorf("in second 1: %v a second, %v a minute, want 2 and 120", s, m)
	}
	if s, m := lastSecond(60, r.all()), lastMinute(60, r.all()); s != 0 || m != 2 {
		t.Errorf("in second 60: %v a second, %v a minute, want 0 and 2", s, m)
	}
	if m := lastMinute(61, r.all()); m != 0 {
		t.Errorf("in second 61: %v a minute, want 0", m)
	}
}

// TestRateConcurrent: no event is lost while many goroutines mark the same
// seconds of a new lap, and one that comes late counts in the newer second.
func TestRateConcurrent(t *testing.T) {
	var r events
	const workers, seconds = 8, 50
	for s := range uint64(seconds) {
		r.add(s)
	}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for s := range uint64(seconds) {
				r.add(s + ringSeconds)
			}
		})
	}
	wg.Wait()
	r.add(3)
	const want = workers*seconds + 1
	if got := r.count(ringSeconds, 2*ringSeconds, r.n.Load()); got != want {
		t.Errorf("%d counted, want %d", got, want)
	}
}
