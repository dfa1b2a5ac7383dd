package admin

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/pool"
)

// health is the answer of /health.
type health struct {
	Phase lifecycle.Phase `json:"phase"`
	// UptimeSeconds is 0 before the server serves.
	UptimeSeconds float64 `json:"uptime_seconds"`
	// Connections is how many are open, in all pools.
	Connections int64 `json:"connections"`
	// Protocols are the totals of each pool.
	Protocols map[string]pool.Stats `json:"protocols"`
	// Rejected counts connections by protocol and reason.
	Rejected map[string]map[string]uint64 `json:"rejected"`
}

// health answers 200 while the server wants traffic, and 503 with the same facts
// before and after.
func (h *handler) health(w http.ResponseWriter, _ *http.Request) {
	stats := h.server.Stats()
	answer := health{Phase: stats.Phase, Protocols: stats.Pools, Rejected: stats.Rejected}
	if !stats.Started.IsZero() {
		answer.UptimeSeconds = time.Since(stats.Started).Seconds()
	}
	for _, p := range stats.Pools {
		answer.Connections += p.Active
	}
	status := http.StatusOK
	if stats.Phase != lifecycle.PhaseServing {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, answer)
}

// serverView is one element of the answer of /servers.
type serverView struct {
	ID            string   `json:"id"`
	Protocol      string   `json:"protocol"`
	Status        string   `json:"status"`
	Addresses     []string `json:"addresses"`
	Connections   int64    `json:"connections"`
	UptimeSeconds float64  `json:"uptime_seconds"`
}

func (h *handler) servers(w http.ResponseWriter, _ *http.Request) {
	infos := h.server.Servers()
	views := make([]serverView, len(infos))
	for i, s := range infos {
		views[i] = serverView{
			ID:            s.ID,
			Protocol:      s.Protocol,
			Status:        s.Status,
			Addresses:     s.Addresses,
			Connections:   s.Connections,
			UptimeSeconds: s.Uptime.Seconds(),
		}
	}
	writeJSON(w, http.StatusOK, map[string]any{"servers": views})
}

func quoted(s string) string { return strconv.Quote(s) }

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// A client that has left needs no answer.
	_ = json.NewEncoder(w).Encode(value)
}
