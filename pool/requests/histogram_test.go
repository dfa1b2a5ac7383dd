package requests

import (
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// maxError is what the documentation promises.
const maxError = 0.025

// within reports whether got is at most the share off given away from want.
func within(got, want, off float64) bool { return max(got-want, want-got) <= off*want }

// record counts one request that took d.
func record(b *Book, d time.Duration) { b.Begin().shard.end(d, false, 200) }

// TestCells: one duration is told within 2.5 % from one end of the range to the other,
// and what is outside is told as the end. Cells rise with durations and are used without
// a gap.
func TestCells(t *testing.T) {
	check := func(d, want time.Duration) {
		t.Helper()
		if got := cellMiddle(cellOf(d)); !within(float64(got), float64(want), maxError) {
			t.Errorf("%v is told as %v, want %v", d, got, want)
		}
	}
	last := 0
	for d := time.Microsecond; d <= time.Hour; d += max(d/1000, 1) {
		check(d, d)
		cell := cellOf(d)
		if cell != last && cell != last+1 {
			t.Errorf("%v is in cell %d, behind %d", d, cell, last)
		}
		last = cell
	}
	for _, d := range []time.Duration{-time.Second, 0, 1, time.Microsecond - 1} {
		check(d, time.Microsecond)
	}
	for _, d := range []time.Duration{time.Hour + 1, 2 * time.Hour, 1<<63 - 1} {
		check(d, time.Hour)
	}
}

// TestQuantiles: quantiles are those of the sorted durations.
func TestQuantiles(t *testing.T) {
	var h histogram
	if _, got := h.summary(0, 0.5); got[0] != 0 {
		t.Errorf("the median of nothing is %v", got)
	}
	random := rand.New(rand.NewPCG(1, 2))
	all := make([]time.Duration, 5000)
	for i := range all {
		all[i] = time.Duration(random.ExpFloat64() * float64(20*time.Millisecond))
		h.slot(0)[cellOf(all[i])]++
	}
	slices.Sort(all)
	ranks := []int{0, 0, 2499, 4749, 4949, 4999}
	_, quantiles := h.summary(0, 0, 0.0002, 0.5, 0.95, 0.99, 1)
	for i, got := range quantiles {
		if want := max(all[ranks[i]], time.Microsecond).Seconds(); !within(got, want, maxError) {
			t.Errorf("quantile %d is %v, want %v", i, got, want)
		}
	}
}

// TestQuantileWindow: a duration counts for 50 to 60 seconds, whatever happens after it.
func TestQuantileWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(time.Now())
		expect := func(want int) {
			t.Helper()
			b.Figures() // which folds
			var got uint32
			second := b.folded.Load()
			for i, epoch := range b.ledger.recent.epochs {
				if epoch > 0 && epoch+slotCount > epochOf(second) {
					for _, n := range &b.ledger.recent.slots[i] {
						got += n
					}
				}
			}
			if stats, _ := b.Figures(); got != uint32(want) || (stats.P50 > 0) != (want > 0) {
				t.Errorf("%d in the window with a median of %v, want %d", got, stats.P50, want)
			}
		}
		record(b, time.Millisecond)
		time.Sleep(9 * time.Second)
		b.Fold()
		record(b, time.Millisecond)
		time.Sleep(50 * time.Second) // 59 s after the beginning
		expect(2)
		time.Sleep(time.Second)
		expect(0)
		record(b, time.Millisecond) // into the slot of the first two
		expect(1)
		time.Sleep(time.Hour)
		expect(0)
		for range 100 {
			time.Sleep(time.Second)
			b.Fold()
			record(b, time.Millisecond)
		}
		time.Sleep(9 * time.Second)
		expect(51) // the slot that is full in a second, and five
	})
}
