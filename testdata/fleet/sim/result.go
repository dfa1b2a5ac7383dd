package sim

import (
	"math"
	"time"
)

// Result is what happened.
type Result struct {
	// Clients and Links are how many there were.
	Clients, Links int
	// Took is the time from the first event to the end of the run.
	Took time.Duration
	// Reconnects counts attempts to connect that reached a process, those of HTTP1New
	// aside. PeakReconnects is how many there were in the busiest second, which may begin
	// at any [SeriesStep]. Series has them by SeriesStep.
	Reconnects, PeakReconnects int
	Series                     []int32
	// Refused counts attempts that failed: refused, timed out, or broken off. Cut counts
	// established connections that ended without a word, or with something in flight.
	// Retried counts requests that crossed the end of an idle connection and were sent
	// again, as net/http does.
	Refused, Cut, Retried int
	// Longest is the longest time that a client wanted service and had no connection.
	// Outages has all of those times.
	Longest time.Duration
	Outages Histogram
	// PeakHandshake is the processor time a second for new connections that one replica was
	// asked for in its busiest second, in processors. LongestQueue is the longest time that
	// a handshake waited for its processor time, and its own.
	PeakHandshake float64
	LongestQueue  time.Duration
	// Drain is the longest time from the start of a drain to its end.
	Drain time.Duration
	// BalancedAfter is when [Scenario.Balanced] was reached; negative if it was not.
	BalancedAfter time.Duration
	// Fullest has the connections of the fullest replica, in means, by SampleEvery.
	Fullest []float64
	// Events is how many events were simulated.
	Events int
}

// Loss returns how many connections were refused or cut.
func (r *Result) Loss() int { return r.Refused + r.Cut }

// SeriesStep is the time that one number of [Result.Series] stands for.
const SeriesStep = 100 * time.Millisecond

// perSecond is how many SeriesSteps make the second of a peak.
const perSecond = int(time.Second / SeriesStep)

// peak returns the largest sum of a second, which may begin at any step.
func peak(series []int32) int {
	sum, most := 0, 0
	for i, n := range series {
		sum += int(n)
		if i >= perSecond {
			sum -= int(series[i-perSecond])
		}
		most = max(most, sum)
	}
	return most
}

// window is the sum over the last second, by SeriesSteps, and the largest that it was.
type window struct {
	parts [perSecond]float64
	last  int
	most  float64
}

func (w *window) add(now, work time.Duration) {
	at := int(now / SeriesStep)
	for i := max(w.last+1, at-perSecond+1); i <= at; i++ {
		w.parts[i%perSecond] = 0
	}
	w.last = at
	w.parts[at%perSecond] += work.Seconds()
	sum := 0.0
	for _, p := range w.parts {
		sum += p
	}
	w.most = max(w.most, sum)
}

// Histogram counts times, in buckets that are 2 % wide.
type Histogram struct {
	buckets [1024]int
	count   int
	most    time.Duration
}

// bucketsPerE is how many buckets there are for each factor of e.
const bucketsPerE = 50

func (h *Histogram) add(d time.Duration) {
	h.count++
	h.most = max(h.most, d)
	i := 0
	if d > time.Microsecond {
		i = min(len(h.buckets)-1, 1+int(bucketsPerE*math.Log(float64(d)/float64(time.Microsecond))))
	}
	h.buckets[i]++
}

// Count returns how many times there are.
func (h *Histogram) Count() int { return h.count }

// Quantile returns the time below which a share q of all are, within 2 %.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := int(math.Ceil(q * float64(h.count)))
	for i, n := range h.buckets {
		if rank -= n; rank <= 0 {
			if i == 0 {
				return 0
			}
			return min(h.most, time.Duration(math.Exp(float64(i)/bucketsPerE)*float64(time.Microsecond)))
		}
	}
	return 0
}
