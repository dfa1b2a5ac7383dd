package admin

import (
	"net/http"
	"time"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/pool"
)

// health is the answer of /health.
type health struct {
	// Status is the worst status of any pool and of all connections together.
	Status string          `json:"status"`
	Phase  lifecycle.Phase `json:"phase"`
	// UptimeSeconds is 0 before the server serves.
	UptimeSeconds float64 `json:"uptime_seconds"`
	// Connections is how many are open, in all pools.
	Connections int64 `json:"connections"`
	// Total is how near all connections together are to their limit.
	Total usage `json:"total"`
	// Protocols are the pools by their tag.
	Protocols map[string]protocolHealth `json:"protocols"`
	// Rejected counts connections by protocol and reason, since the start.
	Rejected map[string]map[string]uint64 `json:"rejected"`
}

// usage says how near a pool is to its limit.
type usage struct {
	Status string  `json:"status"` // healthy, degraded, overloaded or unavailable
	Limit  int     `json:"limit"`  // connections; 0 for no limit
	Ratio  float64 `json:"ratio"`  // active connections by limit; 0 where there is none
}

// protocolHealth is what /health says of one pool.
type protocolHealth struct {
	usage
	pool.Stats

	// InFlight is how many requests, calls and WebSocket sessions are not over.
	InFlight int64 `json:"in_flight"`
	// ErrorRate, from 0 to 1, and P99 are those of the requests that ended in the last minute.
	ErrorRate float64 `json:"error_rate"`
	P99       float64 `json:"p99_seconds"`
	// RejectedRecently counts by reason the connections that were rejected in the
	// last [HistoryLength], or since the start where no history is kept.
	RejectedRecently map[string]uint64 `json:"rejected_recently"`
}

// serveHealth answers with a health: status 200 while the server is healthy,
// degraded or overloaded, and 503 while it is unavailable.
//
// An overloaded server is not a failed one: it serves those it has, and refuses
// newcomers in words that make them try elsewhere. If it answered 503, a balancer that asks here
// would send its share to the others and overload them too. An unavailable
// one, which has not begun or is draining, wants no traffic.
func (p *Pages) serveHealth(w http.ResponseWriter, _ *http.Request) {
	answer := p.health()
	status := http.StatusOK
	if answer.Status == pool.Unavailable.String() {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, answer)
}

func (p *Pages) health() health {
	stats := p.server.Stats()
	recently := p.history.recent(stats.Rejected)
	worst := statusOf(stats.Phase, pool.Healthy)
	use := func(tag string) usage {
		h := stats.Health[tag]
		status := statusOf(stats.Phase, h.Status)
		worst = max(worst, status)
		return usage{Status: status.String(), Limit: h.Limit, Ratio: h.Ratio}
	}
	answer := health{
		Phase:     stats.Phase,
		Total:     use(string(pool.TotalTag)),
		Protocols: make(map[string]protocolHealth, len(stats.Pools)),
		Rejected:  stats.Rejected,
	}
	if !stats.Started.IsZero() {
		answer.UptimeSeconds = time.Since(stats.Started).Seconds()
	}
	for tag, totals := range stats.Pools {
		requests := stats.Requests[tag]
		answer.Connections += totals.Active
		answer.Protocols[tag] = protocolHealth{
			usage:            use(tag),
			Stats:            totals,
			InFlight:         requests.InFlight,
			ErrorRate:        requests.ErrorRate,
			P99:              requests.P99,
			RejectedRecently: notNil(recently[tag]),
		}
	}
	answer.Status = worst.String()
	return answer
}

// notNil returns counts such that none of them is {} in JSON and not null.
func notNil(counts map[string]uint64) map[string]uint64 {
	if counts == nil {
		return map[string]uint64{}
	}
	return counts
}
