package requests

import (
	"math"
	"math/bits"
	"time"
)

// Durations are counted in cells that begin at 1 µs and end at 1 h. Each power of ten is
// cut at 1, 2.5 and 5, and these three parts into 30, 20 and 20 cells of one width. So the
// middle of a cell is at most 2.5 % away from each duration in it, and the bounds that
// Prometheus' clients use are bounds of cells. A cell includes its upper bound.
const (
	minDuration = time.Microsecond // what is shorter counts as this
	maxDuration = time.Hour        // what is longer counts as this

	partCount = 29 // from 1 µs on, three for each power of ten
	// cellCount is that of the nine powers from 1 µs to 1000 s, of the first two parts of
	// the tenth (which reach to 5000 s), and of the cell for 1 µs itself.
	cellCount = 1 + 9*70 + 50
)

// part is a row of cells of one width.
type part struct {
	start, end, width time.Duration // nanoseconds
	first             int           // its first cell
}

var (
	parts = makeParts()
	// partOf is the first part that may hold a duration of so many bits.
	partOf = makePartOf()
	// bucketOfCell is the bucket of requestBounds that a cell lies in.
	bucketOfCell = makeBucketOfCell()
)

func makeParts() (all [partCount]part) {
	first, start := 1, minDuration
	for i := range all {
		end, cells := start*2, 20
		if i%3 == 0 {
			end, cells = start*5/2, 30
		}
		all[i] = part{start, end, (end - start) / time.Duration(cells), first}
		first, start = first+cells, end
	}
	return all
}

func makePartOf() (all [bits.UintSize]uint8) {
	for n := range all {
		shortest := time.Duration(1) << max(n-1, 0)
		for parts[all[n]].end < shortest && int(all[n]) < partCount-1 {
			all[n]++
		}
	}
	return all
}

// cellOf returns the cell that counts d.
func cellOf(d time.Duration) int {
	if d <= minDuration {
		return 0
	}
	d = min(d, maxDuration)
	i := partOf[bits.Len64(uint64(d))]
	for d > parts[i].end {
		i++
	}
	p := &parts[i]
	return p.first + int((d-p.start-1)/p.width)
}

// cellMiddle returns the duration that stands for all those in a cell.
func cellMiddle(cell int) time.Duration {
	if cell == 0 {
		return minDuration
	}
	p := parts[partCount-1]
	for i := 1; i < partCount; i++ {
		if parts[i].first > cell {
			p = parts[i-1]
			break
		}
	}
	return min(p.start+time.Duration(cell-p.first)*p.width+p.width/2, maxDuration)
}

func makeBucketOfCell() (all [cellCount]uint8) {
	for cell := range all {
		all[cell] = uint8(bucketOf(requestBounds, cellMiddle(cell)))
	}
	return all
}

const (
	slotSeconds = 10
	slotCount   = 6
)

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
