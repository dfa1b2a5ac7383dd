// Package requests counts the requests of a server: how many, how fast, how long they
// took, and how they ended.
//
// A [Book] holds the counts of one protocol. A request adds to the counters of the
// processor that runs it. The owner of the Book calls [Book.Fold] once a second, which
// moves these counts to a ledger by second. [Book.Figures] folds first, so that what it
// returns is exact.
package requests

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// codeCount is how many codes a Book tells apart: 0 to 599, among which are the status
// codes of both HTTP (RFC 9110 section 15) and gRPC.
const codeCount = 600

// OtherCode stands for every code below 0 and above 599.
const OtherCode = -1

// Book holds the statistics of one protocol's requests: HTTP requests, gRPC calls,
// WebSocket sessions. Make one with [New].
//
// All methods may be called concurrently. Begin and End take no lock and allocate
// nothing, except for a processor's counters at its first Begin. A Book takes 2 KB, some
// 7 KB for each processor that has counted in it, and 25 KB once there was a request.
type Book struct {
	began  time.Time
	shards []atomic.Pointer[shard] // by processor; nil where nothing was counted
	folded atomic.Uint64           // the second of the last fold

	mu     sync.Mutex // guards ledger
	ledger *ledger
}

// ledger is what the shards have counted until the last fold.
type ledger struct {
	ended, failed         uint64
	endedRate, failedRate Rate
	codes                 map[int]uint64
	durations             Durations  // since the beginning
	recent                *histogram // nil until there was a request
}

// New returns a Book in which nothing has happened. Its seconds are numbered from began.
func New(began time.Time) *Book {
	l := &ledger{codes: make(map[int]uint64)}
	return &Book{began: began, shards: make([]atomic.Pointer[shard], shardCount), ledger: l}
}

// Started is a request that Begin has counted.
type Started struct {
	at    time.Duration // since the Book began
	shard *shard
}

// Begin counts a request that is in flight from now on. Each Begin needs an End.
func (b *Book) Begin() Started {
	s := b.local()
	s.begun.Add(1)
	return Started{time.Since(b.began), s}
}

// End counts that a request is over, and returns how long it took. The caller says
// whether it failed; code is what the client was answered.
func (b *Book) End(started Started, failed bool, code int) time.Duration {
	took := time.Since(b.began) - started.at
	started.shard.end(took, failed, code) // Most requests end on the processor that they began on.
	return took
}

func (s *shard) end(took time.Duration, failed bool, code int) {
	if code < 0 || code >= codeCount {
		code = codeCount
	}
	s.codes[code].Add(1)
	s.nanos.Add(uint64(max(took, 0)))
	s.cells[cellOf(took)].Add(1)
	s.buckets[bucketOf(requestBounds, took)].Add(1)
	if failed {
		s.failed.Add(1) // After the bucket, so that no fold finds more failures than requests.
	}
}

// Fold moves what the processors have counted to the ledger, if a new second has begun
// since the last fold. It is to be called once a second while there are requests. What
// was counted since the last fold belongs to the second of that fold.
func (b *Book) Fold() {
	second := Second(time.Since(b.began))
	if b.folded.Load() >= second {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fold(second)
}

// fold is Fold in any case, for a caller that holds mu.
func (b *Book) fold(second uint64) {
	l, running := b.ledger, b.folded.Load()
	for i := range b.shards {
		if s := b.shards[i].Load(); s != nil {
			l.take(s, running)
		}
	}
	b.folded.Store(max(second, running))
	l.endedRate.Advance(second, l.ended)
	l.failedRate.Advance(second, l.failed)
}

// take moves the counts of a shard, which belong to the second running.
func (l *ledger) take(s *shard, running uint64) {
	l.failed += uint64(swap(&s.failed))
	before := l.ended
	for i := range s.buckets {
		n := uint64(swap(&s.buckets[i]))
		l.durations.buckets[i].Add(n)
		l.ended += n
	}
	if l.ended == before {
		return
	}
	nanos := s.nanos.Swap(0)
	l.durations.addSeconds(time.Duration(nanos).Seconds())
	if l.recent == nil {
		l.recent = new(histogram)
	}
	slot := l.recent.slot(running)
	l.recent.nanos[epochOf(running)%slotCount] += nanos
	for cell := range s.cells {
		slot[cell] += swap(&s.cells[cell])
	}
	for code := range s.codes {
		if n := swap(&s.codes[code]); n > 0 {
			if code == codeCount {
				code = OtherCode
			}
			l.codes[code] += uint64(n)
		}
	}
}

// swap empties a counter. It does not write to one that is empty.
func swap(n *atomic.Uint32) uint32 {
	if n.Load() == 0 {
		return 0
	}
	return n.Swap(0)
}

// Stats is what a [Book] held at one moment.
type Stats struct {
	Total    uint64 `json:"total"`     // requests that have ended
	Failed   uint64 `json:"failed"`    // of those, the ones that failed
	InFlight int64  `json:"in_flight"` // requests that have begun and not ended

	PerSecond float64 `json:"per_second"` // that ended in the last full second
	PerMinute float64 `json:"per_minute"` // and over the last 60, or since the beginning
	ErrorRate float64 `json:"error_rate"` // the share, from 0 to 1, that failed in the last minute

	// Mean is how long the requests of the last 50 to 60 seconds took on average; 0 when
	// there were none.
	Mean float64 `json:"mean_seconds"`
	// What half, 95 % and 99 % of the requests of the last 50 to 60 seconds did not
	// exceed, within 2.5 %; 0 when there were none.
	P50 float64 `json:"p50_seconds"`
	P95 float64 `json:"p95_seconds"`
	P99 float64 `json:"p99_seconds"`
}

// Totals is what a [Book] has counted since its beginning.
type Totals struct {
	Codes     map[int]uint64 // how many requests ended with each code; none is 0
	Durations DurationTotals // how long the requests took, in buckets from 50 µs to 30 s
}

// Figures returns the statistics of this moment.
func (b *Book) Figures() (Stats, Totals) {
	b.mu.Lock()
	defer b.mu.Unlock()
	second := Second(time.Since(b.began))
	b.fold(second)
	var begun uint64 // which is read after the ends, so that it is never less
	for i := range b.shards {
		if s := b.shards[i].Load(); s != nil {
			begun += s.begun.Load()
		}
	}
	l := b.ledger
	mean, quantiles := l.recent.summary(second, 0.50, 0.95, 0.99)
	stats := Stats{
		Total:     l.ended,
		Failed:    l.failed,
		InFlight:  int64(begun - l.ended),
		PerSecond: l.endedRate.PerSecond(),
		PerMinute: l.endedRate.PerMinute(),
		Mean:      mean,
		P50:       quantiles[0],
		P95:       quantiles[1],
		P99:       quantiles[2],
	}
	if ended := l.endedRate.lastMinute(l.ended); ended > 0 {
		stats.ErrorRate = min(1, float64(l.failedRate.lastMinute(l.failed))/float64(ended))
	}
	return stats, Totals{Codes: maps.Clone(l.codes), Durations: l.durations.Totals()}
}
