package moments

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func seeded() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

// TestSpread: each client is told once, at a moment of its own part, and those who wish to
// know the order beforehand cannot.
func TestSpread(t *testing.T) {
	for _, r := range []*rand.Rand{seeded(), Random} {
		const n, over = 1000, 5 * time.Second
		seen, i, ordered := make(map[int]bool), 0, true
		for which, at := range Spread(r, n, over) {
			if least, most := time.Duration(i)*over/n, time.Duration(i+1)*over/n; at < least || at > most {
				t.Errorf("client %d of %d at %v, want between %v and %v", i, n, at, least, most)
			}
			ordered = ordered && which == i
			seen[which] = true
			i++
		}
		if i != n || len(seen) != n || ordered {
			t.Errorf("%d moments for %d clients of %d, in their own order: %t", i, len(seen), n, ordered)
		}
	}
	for _, at := range Spread(seeded(), 10, 0) {
		if at != 0 {
			t.Errorf("told at %v of no spread", at)
		}
	}
	for range Spread(seeded(), 0, time.Second) {
		t.Error("told nobody")
	}
	for range Spread(seeded(), 10, time.Second) {
		break // It must not go on.
	}
}

// TestAge: ages are within the jitter, and use all of it.
func TestAge(t *testing.T) {
	for _, jitter := range []float64{0, AgeJitter, 0.5, 1} {
		r := seeded()
		least, most := time.Hour, time.Duration(0)
		for range 10000 {
			a := Age(r, 10*time.Minute, jitter)
			least, most = min(least, a), max(most, a)
		}
		low, high := time.Duration(float64(10*time.Minute)*(1-jitter)), time.Duration(float64(10*time.Minute)*(1+jitter))
		if slack := time.Second; least < low || least > low+slack || most > high || most < high-slack {
			t.Errorf("jitter %v: %v to %v, want %v to %v", jitter, least, most, low, high)
		}
	}
}

func TestWithin(t *testing.T) {
	for _, test := range []struct{ over, left, want time.Duration }{
		{5 * time.Second, 11 * time.Second, 5 * time.Second},
		{5 * time.Second, 6 * time.Second, 4500 * time.Millisecond}, // 1.5 s are kept for answers,
		{5 * time.Second, 2 * time.Second, time.Second},             // but no more than half.
		{5 * time.Second, -time.Second, 0},
		{0, time.Minute, 0},
	} {
		if got := Within(test.over, test.left); got != test.want {
			t.Errorf("%v within %v: %v, want %v", test.over, test.left, got, test.want)
		}
	}
}

func TestFreshAndCut(t *testing.T) {
	if a, b := Fresh(time.Second), Fresh(time.Hour); a != 250*time.Millisecond || b != FreshTime {
		t.Errorf("fresh %v and %v", a, b)
	}
	if a, b := Cut(time.Second, 0), Cut(time.Second, time.Minute); a != 0 || b != 61*time.Second {
		t.Errorf("cut at %v and %v", a, b)
	}
}

// TestNext walks an HTTP/2 connection that was told through its steps.
func TestNext(t *testing.T) {
	for name, test := range map[string]struct {
		told Told
		want Step
	}{
		"no answer yet":            {Told{Stays: true, Ago: time.Second}, Wait},
		"answered":                 {Told{Answered: true}, LastStream},
		"no answer for long":       {Told{Idle: true, Ago: 6 * time.Second}, LastStream},
		"streams, and no answer":   {Told{Ago: 59 * time.Second}, Wait},
		"streams, and none at all": {Told{Ago: 61 * time.Second}, LastStream},
		"streams are open":         {Told{Answered: true, Final: true, Ago: time.Hour}, Wait},
		"told the last stream":     {Told{Answered: true, Final: true, Stays: true}, End},
		"its grace is over":        {Told{Over: true}, End},
		"not named, no answer yet": {Told{Unnamed: true, Stays: true, Ago: time.Second}, Wait},
		"not named, answered":      {Told{Unnamed: true, Answered: true, Idle: true}, Wait},
		"not named, and idle":      {Told{Unnamed: true, Answered: true, Stays: true}, End},
		"over and would be sooner": {Told{Over: true, Stays: true, Answered: true}, End},
	} {
		test.told.Patience = GoAwayPatience
		if got := test.told.Next(); got != test.want {
			t.Errorf("%s: step %d, want %d", name, got, test.want)
		}
	}
}

func TestPingTimeout(t *testing.T) {
	for _, test := range []struct {
		timeout time.Duration
		before  uint64
		want    time.Duration
	}{
		{20 * time.Second, 0, 20 * time.Second},
		{20 * time.Second, 8 << 10, 20500 * time.Millisecond},
		{20 * time.Second, 1 << 20, 84 * time.Second},
		{20 * time.Second, math.MaxUint64, 320 * time.Second},
		{math.MaxInt64, 1 << 20, math.MaxInt64},
	} {
		if got := PingTimeout(test.timeout, test.before); got != test.want {
			t.Errorf("%v behind %d bytes: %v, want %v", test.timeout, test.before, got, test.want)
		}
	}
}

func TestSweepEvery(t *testing.T) {
	for _, test := range []struct {
		measured []time.Duration
		want     time.Duration
	}{
		{nil, time.Second},
		{[]time.Duration{0, time.Minute, 5 * time.Second}, 625 * time.Millisecond},
		{[]time.Duration{time.Hour}, time.Second},
		{[]time.Duration{time.Millisecond}, 10 * time.Millisecond},
	} {
		if got := SweepEvery(test.measured...); got != test.want {
			t.Errorf("%v: every %v, want %v", test.measured, got, test.want)
		}
	}
}
