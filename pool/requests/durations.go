package requests

import (
	"math"
	"sync/atomic"
	"time"
)

// requestBounds are the upper bounds of the buckets for requests: those of Prometheus'
// clients from 1 ms on, and 30 s for what waits long.
var requestBounds = []time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second,
	10 * time.Second, 30 * time.Second,
}

// maxBounds is how many bounds Durations can have.
const maxBounds = 14

// Durations counts durations in fixed buckets, as a Prometheus histogram does. The zero
// value is ready to use and has bounds from 1 ms to 30 s, each included in its bucket.
// All methods may be called concurrently. Record allocates nothing.
type Durations struct {
	bounds  []time.Duration              // nil for requestBounds
	seconds atomic.Uint64                // the sum: the bits of a float64, which cannot overflow
	buckets [maxBounds + 1]atomic.Uint64 // each without the smaller ones; the last is what exceeds all bounds
}

// WithBounds returns Durations with other bounds: at most 14, in rising order.
func WithBounds(bounds []time.Duration) *Durations { return &Durations{bounds: bounds} }

// Record counts d. A negative one counts as 0.
func (c *Durations) Record(d time.Duration) {
	d = max(d, 0)
	c.buckets[bucketOf(c.limits(), d)].Add(1)
	c.addSeconds(d.Seconds())
}

func (c *Durations) limits() []time.Duration {
	if c.bounds == nil {
		return requestBounds
	}
	return c.bounds
}

// bucketOf returns the index of the first bound that d does not exceed.
func bucketOf(bounds []time.Duration, d time.Duration) int {
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	return i
}

func (c *Durations) addSeconds(seconds float64) {
	for {
		old := c.seconds.Load()
		sum := math.Float64bits(math.Float64frombits(old) + seconds)
		if c.seconds.CompareAndSwap(old, sum) {
			return
		}
	}
}

// DurationTotals is what [Durations] held at one moment.
type DurationTotals struct {
	Count      uint64           `json:"count"`
	SumSeconds float64          `json:"sum_seconds"`
	Buckets    []DurationBucket `json:"buckets"` // by rising bound; what exceeds the last is in Count alone
}

// DurationBucket counts the durations up to a bound, including those of smaller bounds.
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

// Totals returns what was counted so far. Count and Buckets agree with each other;
// SumSeconds may be one record ahead or behind.
func (c *Durations) Totals() DurationTotals {
	bounds := c.limits()
	totals := DurationTotals{Buckets: make([]DurationBucket, len(bounds))}
	for i, bound := range bounds {
		totals.Count += c.buckets[i].Load()
		totals.Buckets[i] = DurationBucket{Seconds: bound.Seconds(), Count: totals.Count}
	}
	totals.Count += c.buckets[len(bounds)].Load()
	totals.SumSeconds = math.Float64frombits(c.seconds.Load())
	return totals
}
