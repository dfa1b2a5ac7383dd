package pool

import (
	"sync/atomic"
	"time"
)

const (
	// ringSeconds is how far back a rate remembers: a minute, the second
	// that is not over yet, and the rest to a power of two.
	ringSeconds = 64

	rateWindow = 60 // seconds
)

// rate counts events by second and forgets them after a minute. Seconds are
// numbered from the time at which its owner began. The zero value is ready to use, all
// methods may be called concurrently, and nothing is locked or allocated.
//
// Each cell is one second: its number in the upper 32 bits and its count in the
// lower 32. A cell is taken over for a new second in one step with its first event, so
// nothing has to move the ring, and a gap leaves only cells that are too old to count.
type rate struct {
	cells [ringSeconds]atomic.Uint64
}

// second returns the number of the second that is running, for an owner that began then.
func second(sinceBegin time.Duration) uint64 { return uint64(max(sinceBegin, 0) / time.Second) }

// add counts one event in the second given.
func (r *rate) add(second uint64) {
	cell := &r.cells[second%ringSeconds]
	for {
		old := cell.Load()
		if old>>32 >= second {
			cell.Add(1)
			return
		}
		if cell.CompareAndSwap(old, second<<32|1) {
			return
		}
	}
}

// count returns the events of the seconds from and later, before the second to.
func (r *rate) count(from, to uint64) uint64 {
	var n uint64
	for i := range r.cells {
		cell := r.cells[i].Load()
		if s := cell >> 32; s >= from && s < to {
			n += cell & (1<<32 - 1)
		}
	}
	return n
}

// lastSecond returns the events of the last full second.
func lastSecond(now uint64, rates ...*rate) float64 {
	if now == 0 {
		return 0
	}
	return float64(countAll(now-1, now, rates))
}

// lastMinute returns the events a minute over the last 60 full seconds, or over
// those that there were, if their owner is younger.
func lastMinute(now uint64, rates ...*rate) float64 {
	window := min(now, rateWindow)
	if window == 0 {
		return 0
	}
	return float64(countAll(now-window, now, rates)) * rateWindow / float64(window)
}

func countAll(from, to uint64, rates []*rate) uint64 {
	var n uint64
	for _, r := range rates {
		n += r.count(from, to)
	}
	return n
}
