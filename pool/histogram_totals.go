package pool

import (
	"sync/atomic"
	"time"
)

// durationBounds are the upper bounds of the buckets of Durations, each of them
// included: those of Prometheus' clients from 1 ms on, and 30 s for what waits long.
var durationBounds = [...]time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second,
	10 * time.Second, 30 * time.Second,
}

// Durations counts durations in fixed buckets from 1 ms to 30 s since it was made, the way
// a Prometheus histogram does. The zero value is ready to use. All methods may be
// called concurrently; none allocates but Totals.
type Durations struct {
	sum     atomic.Uint64                          // in nanoseconds
	buckets [len(durationBounds) + 1]atomic.Uint64 // each without the smaller ones; the last is what exceeds all bounds
}

// Record counts d. A negative one counts as 0.
func (c *Durations) Record(d time.Duration) {
	d = max(d, 0)
	i := 0
	for i < len(durationBounds) && d > durationBounds[i] {
		i++
	}
	c.buckets[i].Add(1)
	c.sum.Add(uint64(d))
}

// count returns how many were recorded.
func (c *Durations) count() uint64 {
	var n uint64
	for i := range c.buckets {
		n += c.buckets[i].Load()
	}
	return n
}

// DurationTotals is what [Durations] held at one moment.
type DurationTotals struct {
	Count      uint64           `json:"count"`
	SumSeconds float64          `json:"sum_seconds"`
	Buckets    []DurationBucket `json:"buckets"` // by rising bound; what exceeds the last is in Count alone
}

// DurationBucket counts the durations up to a bound, those of the smaller bounds among them.
type DurationBucket struct {
	Seconds float64 `json:"le"`
	Count   uint64  `json:"count"`
}

// Map returns the buckets by their bounds, as Prometheus' NewConstHistogram wants them.
func (t DurationTotals) Map() map[float64]uint64 {
	buckets := make(map[float64]uint64, len(t.Buckets))
	for _, b := range t.Buckets {
		buckets[b.Seconds] = b.Count
	}
	return buckets
}

// Totals returns what was counted so far. Count and Buckets agree with each
// other; Sum may be one record ahead or behind.
func (c *Durations) Totals() DurationTotals { return sumDurations(c) }

// sumDurations returns the totals of all parts together.
func sumDurations(parts ...*Durations) DurationTotals {
	totals := DurationTotals{Buckets: make([]DurationBucket, len(durationBounds))}
	for i, bound := range durationBounds {
		for _, c := range parts {
			totals.Count += c.buckets[i].Load()
		}
		totals.Buckets[i] = DurationBucket{Seconds: bound.Seconds(), Count: totals.Count}
	}
	for _, c := range parts {
		totals.Count += c.buckets[len(durationBounds)].Load()
		totals.SumSeconds += time.Duration(c.sum.Load()).Seconds()
	}
	return totals
}
