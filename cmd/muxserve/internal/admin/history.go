package admin

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
)

// The history covers five minutes. Its steps are short enough to show a burst, and few
// enough to be sent to the page each time.
const (
	// sampleInterval is the time between two samples.
	sampleInterval = 5 * time.Second
	// historyLength is the age of the oldest sample.
	historyLength = 5 * time.Minute

	sampleCount = int(historyLength / sampleInterval)
)

// sample describes a server in the [sampleInterval] that ended at Time.
type sample struct {
	Time      time.Time                 `json:"time"`
	Phase     lifecycle.Phase           `json:"phase"`
	Protocols map[string]protocolSample `json:"protocols"` // by the tag of the pool
	// Health is the status of each pool by its tag, and of all together as "total".
	Health map[string]string `json:"health"`
}

// protocolSample is one pool's part of a [sample]. The rates are means since the sample
// before.
type protocolSample struct {
	Active                 int64   `json:"active"` // connections, at the sample's time
	AcceptedPerSecond      float64 `json:"accepted_per_second"`
	RejectedPerSecond      float64 `json:"rejected_per_second"`
	BytesReceivedPerSecond float64 `json:"bytes_received_per_second"`
	BytesSentPerSecond     float64 `json:"bytes_sent_per_second"`

	// Messages are those of WebSockets and of gRPC calls.
	MessagesReceivedPerSecond float64 `json:"messages_received_per_second"`
	MessagesSentPerSecond     float64 `json:"messages_sent_per_second"`

	// Requests are requests, calls and WebSocket sessions.
	RequestsPerSecond float64 `json:"requests_per_second"` // that ended
	InFlight          int64   `json:"in_flight"`           // at the sample's time
	// ErrorRate, from 0 to 1, the mean and the quantiles cover the last minute, as in Stats of
	// package pool/requests.
	ErrorRate float64 `json:"error_rate"`
	Mean      float64 `json:"mean_seconds"`
	P50       float64 `json:"p50_seconds"`
	P95       float64 `json:"p95_seconds"`
	P99       float64 `json:"p99_seconds"`
}

// moment is a server's totals at one time.
type moment struct {
	at    time.Time
	stats mux.Stats
}

// rejections counts connections by pool and reason.
type rejections map[string]map[string]uint64

// history has the last samples. The zero value is empty. All methods may be called
// concurrently.
type history struct {
	mu      sync.Mutex // guards all that follows
	last    moment
	samples []sample     // the oldest first
	before  []rejections // the totals when the sample at the same index began
}

// add adds a sample of the time since the last call, and drops the oldest of a full
// history. The first call only sets the totals that the first sample is compared with.
func (h *history) add(now time.Time, stats mux.Stats) {
	h.mu.Lock()
	defer h.mu.Unlock()
	current := moment{now, stats}
	if !h.last.at.IsZero() {
		full := max(0, len(h.samples)+1-sampleCount)
		h.samples = append(slices.Delete(h.samples, 0, full), newSample(h.last, current))
		h.before = append(slices.Delete(h.before, 0, full), h.last.stats.Rejected)
	}
	h.last = current
}

// list returns the samples, the oldest first. They must not be changed.
func (h *history) list() []sample {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]sample{}, h.samples...)
}

// recent returns the part of all rejections that is newer than the beginning of the
// oldest sample, without zeros. While there is no sample, that is all of them.
func (h *history) recent(all rejections) rejections {
	h.mu.Lock()
	var before rejections
	if len(h.before) > 0 {
		before = h.before[0]
	}
	h.mu.Unlock()
	return all.since(before)
}

// perMinute is how many samples a minute has.
const perMinute = int(time.Minute / sampleInterval)

// byMinute returns the rejections of each of the last minutes, the last one first. all are
// those of now. The last minute is up to a sample longer, and the first one may be shorter.
func (h *history) byMinute(all rejections) []rejections {
	h.mu.Lock()
	before := slices.Clone(h.before)
	h.mu.Unlock()
	minutes := []rejections{}
	for end := len(before); end > 0; end -= perMinute {
		from := before[max(0, end-perMinute)]
		minutes = append(minutes, all.since(from))
		all = from
	}
	return minutes
}

// since returns what has come since earlier totals, without zeros.
func (r rejections) since(before rejections) rejections {
	since := make(rejections)
	for tag, reasons := range r {
		counts := maps.Clone(reasons)
		for reason, n := range before[tag] {
			counts[reason] -= n
		}
		maps.DeleteFunc(counts, func(_ string, n uint64) bool { return n == 0 })
		if len(counts) > 0 {
			since[tag] = counts
		}
	}
	return since
}

// newSample compares two moments.
func newSample(from, to moment) sample {
	seconds := to.at.Sub(from.at).Seconds()
	rate := func(now, before uint64) float64 { return float64(now-before) / seconds }
	s := sample{
		Time:      to.at,
		Phase:     to.stats.Phase,
		Protocols: make(map[string]protocolSample, len(to.stats.Pools)),
		Health:    make(map[string]string, len(to.stats.Health)),
	}
	for tag, now := range to.stats.Pools {
		before, requests := from.stats.Pools[tag], to.stats.Requests[tag]
		s.Protocols[tag] = protocolSample{
			Active:                    now.Active,
			AcceptedPerSecond:         rate(now.Accepted, before.Accepted),
			RejectedPerSecond:         rate(sum(to.stats.Rejected[tag]), sum(from.stats.Rejected[tag])),
			BytesReceivedPerSecond:    rate(now.BytesReceived, before.BytesReceived),
			BytesSentPerSecond:        rate(now.BytesSent, before.BytesSent),
			MessagesReceivedPerSecond: rate(now.MessagesReceived, before.MessagesReceived),
			MessagesSentPerSecond:     rate(now.MessagesSent, before.MessagesSent),
			RequestsPerSecond:         rate(requests.Total, from.stats.Requests[tag].Total),
			InFlight:                  requests.InFlight,
			ErrorRate:                 requests.ErrorRate,
			Mean:                      requests.Mean,
			P50:                       requests.P50,
			P95:                       requests.P95,
			P99:                       requests.P99,
		}
	}
	for tag, health := range to.stats.Health {
		s.Health[tag] = statusOf(to.stats.Phase, health.Status).String()
	}
	return s
}

func sum(counts map[string]uint64) uint64 {
	var n uint64
	for _, count := range counts {
		n += count
	}
	return n
}

// statusOf returns the health of a pool as the pages show it: a server that does not
// serve is unavailable, whatever its pools are.
func statusOf(phase lifecycle.Phase, health pool.Health) pool.Health {
	if phase != lifecycle.PhaseServing {
		return pool.Unavailable
	}
	return health
}
