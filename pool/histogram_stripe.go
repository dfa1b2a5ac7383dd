package pool

import (
	"sync"
	"sync/atomic"
)

// Counters that every request touches exist in stripes, and who counts takes the
// stripe of the processor that it runs on, so that two cores do not send one cache
// line back and forth. Two stripes are what the memory of a Histogram allows; on a bigger
// machine they still halve the traffic.
const (
	stripeCount = 2

	// cacheLine keeps stripes apart; 128 bytes, because Intel's processors fetch lines in pairs.
	cacheLine = 128
)

type stripeID struct{ n int }

var (
	stripeIDs  = [stripeCount]stripeID{{0}, {1}}
	nextStripe atomic.Uint32
	// localStripe holds at most one id for each processor: a sync.Pool keeps what is
	// put back apart by processor, which the language gives no other way to ask for.
	localStripe sync.Pool
)

// stripe returns the number of the current processor's stripe. It is a preference:
// a goroutine that is moved meanwhile is only slower.
func stripe() int {
	id, ok := localStripe.Get().(*stripeID)
	if !ok {
		id = &stripeIDs[nextStripe.Add(1)%stripeCount]
	}
	localStripe.Put(id)
	return id.n
}
