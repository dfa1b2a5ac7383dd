package admin

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// serverView is one element of the answer of /servers.
type serverView struct {
	ID            string   `json:"id"`
	Protocol      string   `json:"protocol"`
	Status        string   `json:"status"`
	Addresses     []string `json:"addresses"`
	Connections   int64    `json:"connections"`
	UptimeSeconds float64  `json:"uptime_seconds"`
}

func (p *Pages) serveServers(w http.ResponseWriter, _ *http.Request) {
	infos := p.server.Servers()
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

// writeBadRequest tells a client what is wrong with what it asked for.
func writeBadRequest(w http.ResponseWriter, err error) {
	writeJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// A client that has left needs no answer.
	_ = json.NewEncoder(w).Encode(value)
}
