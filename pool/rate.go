package pool

import (
	"math"
	"sync/atomic"
	"time"
)

const (
	// ringSeconds is how far back a rate remembers: a minute, the second
	// that is not over yet, and the rest to a power of two.
	ringSeconds = 64

	rateWindow = 60 // seconds
)

// rate tells how many events there were in which second of the last minute. Its owner counts them; all that is kept here
// is what the count was when each second's first event came, so that an event costs no more than a look whether there is a mark of its
// second. Seconds are numbered from the time at which the owner began. The zero value is ready to use, all
// methods may be called concurrently, and nothing is locked or allocated.
//
// Each mark is one second: its number in the upper 32 bits and the lower half of the count in the
// lower 32. A mark is replaced by that of a second a lap later, so nothing has to move the ring, and after a gap
// the marks that are left are too old to be looked at.
type rate struct {
	marks [ringSeconds]atomic.Uint64
	last  atomic.Uint64 // the newest second that has a mark, plus one. It lies beside what the owner counts by.
}

// second returns the number of the second that is running, for an owner that began then.
func second(sinceBegin time.Duration) uint64 { return uint64(max(sinceBegin, 0) / time.Second) }

// isMarked reports whether there is a mark of the second, or of a later one.
func (r *rate) isMarked(second uint64) bool { return r.last.Load() > second }

// mark makes a mark of the second given, unless there is one. It is called before the second's first event is counted; total is
// what was counted until then.
func (r *rate) mark(second, total uint64) {
	cell := &r.marks[second%ringSeconds]
	for !r.isMarked(second) {
		if old := cell.Load(); old>>32 < second && !cell.CompareAndSwap(old, second<<32|total&lowerHalf) {
			continue
		}
		if last := r.last.Load(); last <= second {
			r.last.CompareAndSwap(last, second+1) // Not before there is the mark.
		}
	}
}

const lowerHalf = 1<<32 - 1

// count returns the events of the seconds from and later, before the second to; total is what has been counted so far.
// None of the seconds may be more than a minute ago.
func (r *rate) count(from, to, total uint64) uint64 {
	const none = math.MaxUint64
	var first, end uint64 = none, none // The earliest marks of the two seconds or later.
	for i := range r.marks {
		mark := r.marks[i].Load() // A missing one reads as that of second 0, before which nothing was counted.
		if mark>>32 >= from {
			first = min(first, mark)
		}
		if mark>>32 >= to {
			end = min(end, mark)
		}
	}
	if first == none {
		first = total
	}
	if end == none {
		end = total
	}
	// It is below 0 when a second has begun since total was read.
	return uint64(max(0, int32(end-first))) // The lower halves count.
}

// counted is a rate and what its owner has counted.
type counted struct {
	*rate
	total uint64
}

// lastSecond returns the events of the last full second.
func lastSecond(now uint64, rates ...counted) float64 {
	if now == 0 {
		return 0
	}
	return float64(countAll(now-1, now, rates))
}

// lastMinute returns the events a minute over the last 60 full seconds, or over
// those that there were, if their owner is younger.
func lastMinute(now uint64, rates ...counted) float64 {
	window := min(now, rateWindow)
	if window == 0 {
		return 0
	}
	return float64(countAll(now-window, now, rates)) * rateWindow / float64(window)
}

func countAll(from, to uint64, rates []counted) uint64 {
	var n uint64
	for _, r := range rates {
		n += r.count(from, to, r.total)
	}
	return n
}
