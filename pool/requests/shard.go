package requests

import (
	"runtime"
	"sync"
	"sync/atomic"
)

const cacheLine = 128 // in bytes, because Intel's processors fetch lines in pairs

// shard is one processor's part of a Book. A fold moves all but begun to the ledger.
type shard struct {
	_       [cacheLine]byte
	begun   atomic.Uint64                // since the shard was made
	nanos   atomic.Uint64                // how long the requests took together
	buckets [maxBounds + 1]atomic.Uint32 // how many took how long, by requestBounds
	failed  atomic.Uint32
	codes   [codeCount + 1]atomic.Uint32 // the last is OtherCode's
	cells   [cellCount]atomic.Uint32     // how many took how long, finer: see cellOf
	_       [cacheLine]byte
}

// shardCount is how many shards a Book may have. Each processor counts in its own, so
// that no two of them send a cache line back and forth. There are numbers to spare,
// because a number that a processor has lost is free only after a garbage collection.
var shardCount = 2 * max(runtime.NumCPU(), runtime.GOMAXPROCS(0))

// processor is the number of a shard. It is too big for the allocator of tiny objects,
// which would keep it alive together with its neighbours.
type processor struct {
	n int
	_ [2]uint64
}

var (
	// localProcessor keeps a number for each processor, because a sync.Pool does so with
	// what is put back. The language has no other way to ask for the processor.
	localProcessor = sync.Pool{New: func() any { return newProcessor() }}

	processorsMu sync.Mutex
	processors   = make([]int, shardCount) // how many hold each number; guarded by processorsMu
)

// newProcessor returns the number that the fewest hold. The pool forgets the number of a
// processor that is idle for long, and the cleanup takes it back, so that two processors
// do not share a number for good.
func newProcessor() *processor {
	processorsMu.Lock()
	defer processorsMu.Unlock()
	p := new(processor)
	for n, held := range processors {
		if held < processors[p.n] {
			p.n = n
		}
	}
	processors[p.n]++
	runtime.AddCleanup(p, func(n int) {
		processorsMu.Lock()
		defer processorsMu.Unlock()
		processors[n]--
	}, p.n)
	return p
}

// local returns the shard of the processor that runs the caller. A goroutine that moves
// to another processor meanwhile is only slower.
func (b *Book) local() *shard {
	p := localProcessor.Get().(*processor)
	n := p.n
	localProcessor.Put(p)
	if s := b.shards[n].Load(); s != nil {
		return s
	}
	b.shards[n].CompareAndSwap(nil, new(shard)) // Unless another goroutine was faster.
	return b.shards[n].Load()
}
