package requests

import (
	"math"
	"math/bits"
	"time"
)

// Durations are counted in cells. Each power of two nanoseconds is cut into 2^subBits
// cells of one width, so a cell is at most 1/32 of its lower bound wide, and its middle
// is at most 1/64 (1.6 %) away from each duration in it.
const (
	subBits = 5

	minDuration = time.Microsecond // what is shorter counts as this
	maxDuration = time.Hour        // what is longer counts as this

	// What cellIndex gives for minDuration and maxDuration: the place of the highest bit
	// times 32, plus the five bits that follow it.
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
	}
	return &h.slots[i]
}

// quantiles returns for each share the duration that this share of all durations did not
// exceed, in seconds. The shares rise. Without any duration the results are 0.
func (h *histogram) quantiles(second uint64, shares ...float64) []float64 {
	var cells [cellCount]uint64
	var count uint64
	for i, epoch := range h.epochs {
		if epoch == 0 || epoch+slotCount <= epochOf(second) {
			continue
		}
		for cell, n := range &h.slots[i] {
			cells[cell] += uint64(n)
			count += uint64(n)
		}
	}
	results := make([]float64, len(shares))
	if count == 0 {
		return results
	}
	var seen uint64
	cell := -1
	for i, share := range shares {
		for rank := max(1, uint64(math.Ceil(share*float64(count)))); seen < rank; {
			cell++
			seen += cells[cell]
		}
		results[i] = cellMiddle(cell).Seconds()
	}
	return results
}
