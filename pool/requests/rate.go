package requests

import "time"

// rateWindow is how many seconds a Rate looks back.
const rateWindow = 60

// Rate tells how fast a counter has risen in the last minute. The seconds are numbered
// from a beginning that its owner chooses. The zero value is ready to use. No two methods
// may be called at the same time.
type Rate struct {
	second uint64                 // the one that is running
	marks  [rateWindow + 1]uint64 // what the counter stood at when second s began; see mark
}

// Second returns the number of the second that is running so long after the beginning.
func Second(sinceBegin time.Duration) uint64 { return uint64(max(sinceBegin, 0) / time.Second) }

// Advance says that a second is running and what the counter stands at. What was counted
// since the last call belongs to the second of that call. An Advance in the same second,
// or to an older one, has no effect.
func (r *Rate) Advance(second, total uint64) {
	if second <= r.second {
		return
	}
	for s := max(r.second+1, second-min(second, rateWindow)); s <= second; s++ {
		*r.mark(s) = total
	}
	r.second = second
}

func (r *Rate) mark(second uint64) *uint64 { return &r.marks[second%uint64(len(r.marks))] }

// PerSecond returns what was counted in the last full second.
func (r *Rate) PerSecond() float64 {
	if r.second == 0 {
		return 0
	}
	return float64(*r.mark(r.second) - *r.mark(r.second - 1))
}

// PerMinute returns what was counted in a minute, over the last 60 full seconds or since
// the beginning.
func (r *Rate) PerMinute() float64 {
	seconds := min(r.second, rateWindow)
	if seconds == 0 {
		return 0
	}
	return float64(*r.mark(r.second)-*r.mark(r.second - seconds)) * rateWindow / float64(seconds)
}

// lastMinute returns what was counted in the second that is running and the 59 before
// it; total is what the counter stands at now.
func (r *Rate) lastMinute(total uint64) uint64 {
	return total - *r.mark(r.second + 1 - min(r.second+1, rateWindow))
}
