package pool

import (
	"maps"
	"sync/atomic"
	"time"
)

// The codes that Requests tells apart: 0 to 599, which holds the status codes of
// both RFC 9110 section 15 and of remote calls. All others count as OtherCode.
const (
	codeCount = 600
	// OtherCode stands for every code below 0 and above 599.
	OtherCode = -1
)

// Requests are the statistics of one protocol's requests: calls, messages,
// whatever begins and ends. They take at most 64 KiB, whatever happens, and next to nothing until
// there is one; a request costs no other allocation and no lock. Make one with [NewRequests], or have it made by
// [Set.Requests]. All methods may be called concurrently.
type Requests struct {
	// What each request looks at lies together: of the latency its stripes, which come first.
	began   time.Time
	stripes stripes[requestStripe]
	usual   atomic.Int32 // the code that ended the first request, plus one; 0 before that
	latency Histogram
}

// Started is a request that Begin has counted.
type Started struct {
	at     time.Duration // since the beginning of the statistics
	stripe uint8         // which has counted it
}

// requestStripe is one processor's part of the counters. Those of a usual request lie in one cache line, between the two rates'
// marks: what a request touches is seldom in the processor's nearest cache any more, after all that the kernel did.
type requestStripe struct {
	ended     rate
	begun     atomic.Uint64
	usual     atomic.Uint64 // how many have ended with Requests.usual
	durations Durations     // of those that have ended, which may have begun in the other stripe
	failures  rate
	failed    atomic.Uint64
	codes     [codeCount + 1]atomic.Uint64 // without the usual one; the last is OtherCode's
	_         [cacheLine]byte
}

// NewRequests returns statistics in which nothing has happened yet.
func NewRequests() *Requests {
	now := time.Now()
	return &Requests{began: now, latency: Histogram{began: now}}
}

// Begin counts a request that is in flight from now on. Each Begin needs an End or an EndSince.
func (r *Requests) Begin() Started {
	n := stripe()
	r.stripes.at(n).begun.Add(1)
	return Started{time.Since(r.began), uint8(n)}
}

// EndSince is End for a request that Begin has counted, and returns how long it took.
func (r *Requests) EndSince(s Started, failed bool, code int) time.Duration {
	now := time.Since(r.began)
	r.end(int(s.stripe), now, now-s.at, failed, code)
	return now - s.at
}

// End counts a request that took d and is in flight no longer. Whether it failed is
// for the caller to say; code is what the peer was answered.
func (r *Requests) End(d time.Duration, failed bool, code int) {
	r.end(stripe(), time.Since(r.began), d, failed, code)
}

// end counts in stripe n. Most requests end on the processor that they began on, so to ask for its stripe again costs
// more than it brings.
func (r *Requests) end(n int, now, d time.Duration, failed bool, code int) {
	s, second := r.stripes.at(n), second(now)
	if !s.ended.isMarked(second) {
		r.latency.advance(now) // Nobody needs to look for it again in this second.
		s.ended.mark(second, s.durations.count())
	}
	r.latency.record(n, now, d)
	s.durations.Record(d)
	s.counterOf(code, &r.usual).Add(1)
	if failed {
		s.failures.mark(second, s.failed.Load())
		s.failed.Add(1)
	}
}

// counterOf returns the counter of a code.
func (s *requestStripe) counterOf(code int, usual *atomic.Int32) *atomic.Uint64 {
	if code < 0 || code >= codeCount {
		code = codeCount
	}
	which := usual.Load()
	if which == 0 {
		usual.CompareAndSwap(0, int32(code+1))
		which = usual.Load()
	}
	if int(which) == code+1 {
		return &s.usual
	}
	return &s.codes[code]
}

// RequestStats is what [Requests] held at one moment.
type RequestStats struct {
	Total    uint64 `json:"total"`     // requests that have ended
	Failed   uint64 `json:"failed"`    // of those, the ones that failed
	InFlight int64  `json:"in_flight"` // requests that have begun and not ended

	// PerSecond is how many ended in the last full second; PerMinute how many
	// ended a minute, over the last 60 full seconds or since the beginning.
	PerSecond float64 `json:"per_second"`
	PerMinute float64 `json:"per_minute"`

	// ErrorRate is the share, from 0 to 1, that failed of those that ended in the last minute.
	ErrorRate float64 `json:"error_rate"`

	// The time that half, 95 % and 99 % of the requests of the last 50 to 60 seconds did not
	// exceed, within 2.5 %; 0 when there were none.
	P50 float64 `json:"p50_seconds"`
	P95 float64 `json:"p95_seconds"`
	P99 float64 `json:"p99_seconds"`
}

// Stats returns the figures of this moment.
func (r *Requests) Stats() RequestStats {
	var stats RequestStats
	stats.Total = r.Durations().Count
	// The ends are read before the beginnings, so that there are never more of them.
	var begun uint64
	ended, failures := make([]counted, 0, stripeCount), make([]counted, 0, stripeCount)
	for s := range r.stripes.all() {
		begun += s.begun.Load()
		failed := s.failed.Load()
		stats.Failed += failed
		ended, failures = append(ended, counted{&s.ended, s.durations.count()}), append(failures, counted{&s.failures, failed})
	}
	stats.InFlight = int64(begun - stats.Total)

	now := second(time.Since(r.began))
	stats.PerSecond = lastSecond(now, ended...)
	stats.PerMinute = lastMinute(now, ended...)
	minute := now + 1 - min(now+1, rateWindow)
	if all := countAll(minute, now+1, ended); all > 0 {
		stats.ErrorRate = min(1, float64(countAll(minute, now+1, failures))/float64(all))
	}

	latency := r.latency.Snapshot()
	stats.P50 = latency.Quantile(0.50).Seconds()
	stats.P95 = latency.Quantile(0.95).Seconds()
	stats.P99 = latency.Quantile(0.99).Seconds()
	return stats
}

// Codes returns how many requests ended with each code, without those that none ended with.
func (r *Requests) Codes() map[int]uint64 {
	codes := make(map[int]uint64)
	add := func(code int, n uint64) {
		if code == codeCount {
			code = OtherCode
		}
		if n > 0 {
			codes[code] += n
		}
	}
	for s := range r.stripes.all() {
		n := s.usual.Load() // Which is 0 until it is known what is usual.
		add(int(r.usual.Load())-1, n)
		for code := range s.codes {
			add(code, s.codes[code].Load())
		}
	}
	return codes
}

// Durations returns how long the requests took, counted in fixed buckets since the beginning.
func (r *Requests) Durations() DurationTotals {
	parts := make([]*Durations, 0, stripeCount)
	for s := range r.stripes.all() {
		parts = append(parts, &s.durations)
	}
	return sumDurations(parts...)
}

// Requests returns the statistics of the requests that the pool named tag carries:
// the same each time, so that who counts asks once and keeps them.
func (s *Set) Requests(tag Tag) *Requests {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.requests[tag]
	if r == nil {
		if s.requests == nil {
			s.requests = make(map[Tag]*Requests)
		}
		r = NewRequests()
		s.requests[tag] = r
	}
	return r
}

// RequestStats returns the figures of every tag that [Set.Requests] was asked for.
func (s *Set) RequestStats() map[string]RequestStats {
	s.mu.Lock()
	requests := maps.Clone(s.requests)
	s.mu.Unlock()
	all := make(map[string]RequestStats, len(requests))
	for tag, r := range requests {
		all[string(tag)] = r.Stats()
	}
	return all
}
