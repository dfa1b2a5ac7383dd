package pool

import (
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// The shape of a Histogram. Each power of two nanoseconds is cut into
// 2^subBits buckets of one width, so a bucket is at most 1/32 of its lower
// bound wide, and its middle is at most 1/64 (1.6 %) away from what fell into it.
const (
	subBits = 5

	minDuration = time.Microsecond
	maxDuration = time.Hour

	// What bucketIndex gives for minDuration and maxDuration: each is the place of
	// the highest bit times 32, plus the five bits that follow it.
	firstBucket = 9<<subBits | 30
	lastBucket  = 41<<subBits | 20
	bucketCount = lastBucket - firstBucket + 1

	// The window is made of six slots, the newest of which is still being filled.
	slotLength = 10 * time.Second
	slotCount  = 6
)

// Histogram tells the quantiles of the durations of the last minute, in constant
// memory: at most 48 KiB, whatever is recorded, and next to nothing until something is. It covers 1 µs to 1 h with an error of at most
// 2.5 %; what is shorter or longer counts as 1 µs or 1 h.
//
// The window is 50 to 60 seconds long, because it moves in steps of ten seconds.
// It moves by itself when something is recorded: there is no goroutine and no
// timer behind it. Make one with [NewHistogram]. All methods may be called concurrently;
// Record allocates nothing but that memory, and waits for nobody but once in ten seconds.
type Histogram struct {
	stripes stripes[histogramStripe]
	began   time.Time

	// turn is held while a slot is emptied for its next ten seconds, and while
	// the slots are read, so that nobody reads a slot that is being emptied.
	turn   sync.Mutex
	epochs [slotCount]atomic.Int64 // which ten seconds since began each slot holds, plus one; 0 for none
}

// histogramStripe is one processor's part of a Histogram.
type histogramStripe struct {
	slots [slotCount][bucketCount]atomic.Uint32
	_     [cacheLine]byte
}

// NewHistogram returns an empty histogram.
func NewHistogram() *Histogram { return &Histogram{began: time.Now()} }

// Record counts d.
func (h *Histogram) Record(d time.Duration) {
	now := time.Since(h.began)
	h.advance(now)
	h.record(stripe(), now, d)
}

// record counts d at the time now since the histogram began, in the stripe given. It comes behind advance.
func (h *Histogram) record(stripe int, now, d time.Duration) {
	h.stripes.at(stripe).slots[epochOf(now)%slotCount][bucketOf(d)].Add(1)
}

// epochOf numbers the lengths of a slot, from 1 on.
func epochOf(now time.Duration) int64 { return int64(now/slotLength) + 1 }

// advance empties the slot that is filled at the time now, when it is to be filled for the first time.
func (h *Histogram) advance(now time.Duration) {
	epoch := epochOf(now)
	if h.epochs[epoch%slotCount].Load() < epoch {
		h.empty(epoch)
	}
}

// empty empties the slot of epoch, unless somebody else has done it.
func (h *Histogram) empty(epoch int64) {
	h.turn.Lock()
	defer h.turn.Unlock()
	slot := epoch % slotCount
	if h.epochs[slot].Load() >= epoch {
		return
	}
	for s := range h.stripes.all() {
		buckets := &s.slots[slot]
		for i := range buckets {
			buckets[i].Store(0)
		}
	}
	h.epochs[slot].Store(epoch)
}

// bucketOf returns the bucket that counts d.
func bucketOf(d time.Duration) int {
	return bucketIndex(uint64(min(max(d, minDuration), maxDuration))) - firstBucket
}

// bucketIndex numbers the buckets from 1 ns on: the place of n's highest bit, and the subBits bits after it.
func bucketIndex(n uint64) int {
	exponent := bits.Len64(n) - 1
	return exponent<<subBits | int(n>>(exponent-subBits))&(1<<subBits-1)
}

// bucketMiddle returns the duration that stands for all those in bucket i.
func bucketMiddle(i int) time.Duration {
	i += firstBucket
	width := uint64(1) << (i>>subBits - subBits)
	lower := (1<<subBits + uint64(i)&(1<<subBits-1)) * width
	return time.Duration(lower + width/2)
}

// HistogramSnapshot is what a [Histogram] held at one moment.
type HistogramSnapshot struct {
	count   uint64
	buckets [bucketCount]uint64
}

// Snapshot returns what the window holds.
func (h *Histogram) Snapshot() *HistogramSnapshot {
	newest := epochOf(time.Since(h.began))
	snapshot := new(HistogramSnapshot)
	h.turn.Lock()
	defer h.turn.Unlock()
	for slot := range h.epochs {
		if epoch := h.epochs[slot].Load(); epoch == 0 || epoch <= newest-slotCount {
			continue
		}
		for s := range h.stripes.all() {
			snapshot.add(&s.slots[slot])
		}
	}
	return snapshot
}

func (s *HistogramSnapshot) add(buckets *[bucketCount]atomic.Uint32) {
	for i := range buckets {
		n := uint64(buckets[i].Load())
		s.buckets[i] += n
		s.count += n
	}
}

// Count returns how many durations were recorded.
func (s *HistogramSnapshot) Count() uint64 { return s.count }

// Quantile returns the duration that the share p of all durations did not exceed: 0.5
// for the median. p is taken to be within 0 and 1. Without any duration the result is 0.
func (s *HistogramSnapshot) Quantile(p float64) time.Duration {
	if s.count == 0 {
		return 0
	}
	rank := max(1, uint64(math.Ceil(min(max(p, 0), 1)*float64(s.count))))
	var seen uint64
	for i, n := range s.buckets {
		if seen += n; seen >= rank {
			return bucketMiddle(i)
		}
	}
	return maxDuration
}
