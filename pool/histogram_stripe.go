package pool

import (
	"iter"
	"runtime"
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
		id = &stripeIDs[int(nextStripe.Add(1))%min(stripeCount, runtime.GOMAXPROCS(0))]
	}
	localStripe.Put(id)
	return id.n
}

// stripes are such parts, each made when something is counted in it first: what nobody uses is not
// there for the garbage collector, whose pace depends on how much there is. The zero value is ready to use.
type stripes[T any] [stripeCount]atomic.Pointer[T]

// at returns stripe n.
func (s *stripes[T]) at(n int) *T {
	if part := s[n].Load(); part != nil {
		return part
	}
	s[n].CompareAndSwap(nil, new(T)) // Somebody else may have been faster.
	return s[n].Load()
}

// all yields those that there are.
func (s *stripes[T]) all() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for i := range s {
			if part := s[i].Load(); part != nil && !yield(part) {
				return
			}
		}
	}
}
