package requests

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestRateAgainstList: a Rate tells the same as a list of all events, through bursts and
// gaps.
func TestRateAgainstList(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var r Rate
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
			r.Advance(now, uint64(len(all)))
			all = append(all, now)
		}
		r.Advance(now, uint64(len(all)))
		if r.second != now {
			t.Fatalf("second %d is running, want %d", r.second, now)
		}
		if now == 0 {
			continue
		}
		if got, want := r.PerSecond(), count(now-1, now); got != want {
			t.Fatalf("second %d: %v in the last second, want %v", now, got, want)
		}
		seconds := min(now, rateWindow)
		if got, want := r.PerMinute(), count(now-seconds, now)*rateWindow/float64(seconds); got != want {
			t.Fatalf("second %d: %v a minute, want %v", now, got, want)
		}
		from := now + 1 - min(now+1, rateWindow)
		if got, want := r.lastMinute(uint64(len(all))), count(from, now+1); float64(got) != want {
			t.Fatalf("second %d: %v in the last minute, want %v", now, got, want)
		}
	}
}

// TestRateBeginning: before the first second is over there is no rate.
func TestRateBeginning(t *testing.T) {
	var r Rate
	r.Advance(Second(-time.Second), 0)
	r.Advance(Second(time.Second-1), 2)
	if s, m := r.PerSecond(), r.PerMinute(); s != 0 || m != 0 {
		t.Errorf("in second 0: %v a second, %v a minute", s, m)
	}
	r.Advance(1, 2)
	if s, m := r.PerSecond(), r.PerMinute(); s != 2 || m != 120 {
		t.Errorf("in second 1: %v a second, %v a minute, want 2 and 120", s, m)
	}
	r.Advance(60, 2)
	if s, m := r.PerSecond(), r.PerMinute(); s != 0 || m != 2 {
		t.Errorf("in second 60: %v a second, %v a minute, want 0 and 2", s, m)
	}
	r.Advance(61, 2)
	r.Advance(3, 1) // An older second has no effect.
	if m := r.PerMinute(); m != 0 {
		t.Errorf("in second 61: %v a minute, want 0", m)
	}
}
