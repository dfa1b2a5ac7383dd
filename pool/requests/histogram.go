package requests

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// requestBounds are the upper bounds of the buckets for requests: those of Prometheus'
// clients from 1 ms on, smaller ones for calls within a data centre, and 30 s for what
// waits long.
var requestBounds = []time.Duration{
	50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second,
}

const maxBounds = 18 // that Durations can have

// Durations counts durations in fixed buckets, as a Prometheus histogram does. The zero
// value is ready to use and has bounds from 50 µs to 30 s, each included in its bucket.
// All methods may be called concurrently. Record allocates nothing.
type Durations struct {
	bounds  []time.Duration              // nil for requestBounds
	seconds atomic.Uint64                // the sum: the bits of a float64
	buckets [maxBounds + 1]atomic.Uint64 // each without the smaller ones; the last has no bound
}

// WithBounds returns Durations with other bounds: at most 18, in rising order.
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
	for swapped := false; !swapped; {
		old := c.seconds.Load()
		swapped = c.seconds.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+seconds))
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

// The durations of the last minute are counted in cells. Each power of two nanoseconds is
// cut into 2^subBits cells of one width. So a cell is at most 1/32 of its lower bound
// wide, and its middle is at most 1/64 (1.6 %) away from each duration in it.
const (
	subBits = 5

	minDuration = time.Microsecond // what is shorter counts as this
	maxDuration = time.Hour        // what is longer counts as this

	// The cells of minDuration and maxDuration, before cellOf subtracts firstCell: the
	// place of the highest bit times 32, plus the five bits that follow it.
	firstCell = 9<<subBits | 30
	lastCell  = 41<<subBits | 20
	cellCount = lastCell - firstCell + 1

	slotSeconds = 10
	slotCount   = 6
)

// cellOf returns the cell that counts d.
func cellOf(d time.Duration) int {
	n := uint64(min(max(d, minDuration), maxDuration))
	exponent := bits.Len64(n) - 1
	return exponent<<subBits | int(n>>(exponent-subBits))&(1<<subBits-1) - firstCell
}

// cellMiddle returns the duration that stands for all those in a cell.
func cellMiddle(cell int) time.Duration {
	cell += firstCell
	width := uint64(1) << (cell>>subBits - subBits)
	lower := (1<<subBits + uint64(cell)&(1<<subBits-1)) * width
	return time.Duration(lower + width/2)
}

// histogram holds the durations of the last 50 to 60 seconds, in slots of ten. The newest
// is still being filled. The Book's lock guards it.
type histogram struct {
	epochs [slotCount]uint64 // which ten seconds a slot holds, from 1 on; 0 for none
	slots  [slotCount][cellCount]uint32
	nanos  [slotCount]uint64 // how long the requests of a slot took together
}

// epochOf numbers the ten seconds that a second belongs to.
func epochOf(second uint64) uint64 { return second/slotSeconds + 1 }

// slot returns the slot of a second. It empties the slot where that held an older one.
func (h *histogram) slot(second uint64) *[cellCount]uint32 {
	epoch := epochOf(second)
	i := epoch % slotCount
	if h.epochs[i] != epoch {
		h.epochs[i] = epoch
		clear(h.slots[i][:])
		h.nanos[i] = 0
	}
	return &h.slots[i]
}

// summary returns the mean of all durations, in seconds, and for each share the duration
// that this share of them did not exceed: 0 where there is none. The shares rise.
func (h *histogram) summary(second uint64, shares ...float64) (mean float64, quantiles []float64) {
	quantiles = make([]float64, len(shares))
	if h == nil {
		return 0, quantiles
	}
	var cells [cellCount]uint64
	var nanos, count uint64
	for i, epoch := range h.epochs {
		if epoch == 0 || epoch+slotCount <= epochOf(second) {
			continue
		}
		nanos += h.nanos[i]
		for cell, n := range &h.slots[i] {
			cells[cell] += uint64(n)
			count += uint64(n)
		}
	}
	if count == 0 {
		return 0, quantiles
	}
	var seen uint64
	cell := -1
	for i, share := range shares {
		for rank := max(1, uint64(math.Ceil(share*float64(count)))); seen < rank; {
			cell++
			seen += cells[cell]
		}
		quantiles[i] = cellMiddle(cell).Seconds()
	}
	return time.Duration(nanos / count).Seconds(), quantiles
}
