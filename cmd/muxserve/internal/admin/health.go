package admin

import (
	"maps"
	"net/http"
	"os"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/page"
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
	// Connections counts the open connections of all pools.
	Connections int64 `json:"connections"`
	// Total compares all connections with their common limit.
	Total usage `json:"total"`
	// Protocols are the pools by their tag.
	Protocols map[string]protocolHealth `json:"protocols"`
	// Rejected counts connections by protocol and reason, since the start.
	Rejected map[string]map[string]uint64 `json:"rejected"`

	processView
	// Ready is whether the server wants traffic, and NotReady why not.
	Ready    bool   `json:"ready"`
	NotReady string `json:"not_ready,omitempty"`
	// Thresholds are the ratios of connections to limit from which a pool is degraded and
	// overloaded.
	Thresholds thresholds `json:"thresholds"`
}

// processView describes the process.
type processView struct {
	PID      int    `json:"pid"`
	Version  string `json:"version"` // of muxserve
	LogLevel string `json:"log_level,omitempty"`
}

func (p *Pages) processView() processView {
	view := processView{PID: os.Getpid(), Version: p.version}
	if p.process != nil {
		view.LogLevel = levelName(p.process.LogLevel())
	}
	return view
}

type thresholds struct {
	Degraded   float64 `json:"degraded"`
	Overloaded float64 `json:"overloaded"`
}

// usage compares a pool with its limit.
type usage struct {
	Status string  `json:"status"` // healthy, degraded, overloaded or unavailable
	Limit  int     `json:"limit"`  // connections; 0 for no limit
	Ratio  float64 `json:"ratio"`  // active connections by limit; 0 where there is none
}

// protocolHealth is the part of /health about one pool.
type protocolHealth struct {
	usage
	pool.Stats

	// InFlight counts the requests, calls and WebSocket sessions under way.
	InFlight int64 `json:"in_flight"`
	// ErrorRate, from 0 to 1, Mean, P50 and P99 cover the requests that ended in the last
	// minute.
	ErrorRate float64 `json:"error_rate"`
	Mean      float64 `json:"mean_seconds"`
	P50       float64 `json:"p50_seconds"`
	P99       float64 `json:"p99_seconds"`
	// RejectedRecently counts by reason the connections that were rejected in the last
	// [historyLength], or since the start without a history.
	RejectedRecently map[string]uint64 `json:"rejected_recently"`
	// RejectedLastMinute counts rejections of the last minute by reason.
	RejectedLastMinute map[string]uint64 `json:"rejected_last_minute"`
}

// serveHealth answers with status 200 while the server is healthy, degraded or
// overloaded, and with 503 while it is unavailable: before it serves and from its drain
// on.
//
// An overloaded server serves the connections that it has, and refuses new ones in words
// that make their clients try elsewhere. With a 503 here, a balancer would send its share
// to the other servers and overload them too.
func (p *Pages) serveHealth(w http.ResponseWriter, _ *http.Request) {
	answer := p.health()
	status := http.StatusOK
	if answer.Status == pool.Unavailable.String() {
		status = http.StatusServiceUnavailable
	}
	page.JSON(w, status, answer)
}

func (p *Pages) health() health {
	stats := p.server.Stats()
	recently := p.history.recent(stats.Rejected)
	lastMinute := recently
	if minutes := p.history.byMinute(stats.Rejected); len(minutes) > 0 {
		lastMinute = minutes[0]
	}
	limits := p.server.Config().Health
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

		processView: p.processView(),
		Thresholds:  thresholds{limits.DegradedAbove, limits.OverloadedAbove},
	}
	if err := p.server.Ready(); err != nil {
		answer.NotReady = err.Error()
	} else {
		answer.Ready = true
	}
	if !stats.Started.IsZero() {
		answer.UptimeSeconds = time.Since(stats.Started).Seconds()
	}
	for tag, totals := range stats.Pools {
		requests := stats.Requests[tag]
		answer.Connections += totals.Active
		answer.Protocols[tag] = protocolHealth{
			usage:              use(tag),
			Stats:              totals,
			InFlight:           requests.InFlight,
			ErrorRate:          requests.ErrorRate,
			Mean:               requests.Mean,
			P50:                requests.P50,
			P99:                requests.P99,
			RejectedRecently:   maps.Collect(maps.All(recently[tag])), // It is {} in JSON and not null.
			RejectedLastMinute: maps.Collect(maps.All(lastMinute[tag])),
		}
	}
	answer.Status = worst.String()
	return answer
}
