package admin

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/pool/requests"
)

// scripted is a Server with the statistics that a test gives it.
type scripted struct {
	fakeServer

	stats func() mux.Stats
}

func (s scripted) Stats() mux.Stats { return s.stats() }

// busy returns the statistics of a server with a crowded pool.
func busy(phase lifecycle.Phase, status pool.Health) mux.Stats {
	return mux.Stats{
		Phase:    phase,
		Started:  time.Now().Add(-time.Minute),
		Pools:    map[string]pool.Stats{"grpc": {Active: 9, Accepted: 30, Closed: 21}, "http1": {Active: 2}},
		Rejected: map[string]map[string]uint64{"grpc": {"limit": 7}},
		Requests: map[string]requests.Stats{"grpc": {Total: 100, InFlight: 3, ErrorRate: 0.25, Mean: 0.1, P99: 0.5}},
		Health: map[string]pool.HealthStatus{
			"grpc":  {Status: status, Active: 9, Limit: 10, Ratio: 0.9},
			"total": {Active: 11, Limit: 100, Ratio: 0.11},
		},
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	s := scripted{stats: func() mux.Stats { return busy(lifecycle.PhaseServing, pool.Degraded) }}
	var got health
	if err := json.Unmarshal(get(t, s, "localhost", "/health").Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.UptimeSeconds < 60 {
		t.Errorf("up %v s, want a minute", got.UptimeSeconds)
	}
	got.UptimeSeconds = 0
	want := health{
		Status:      "degraded",
		Phase:       lifecycle.PhaseServing,
		Connections: 11,
		Total:       usage{Status: "healthy", Limit: 100, Ratio: 0.11},
		Protocols: map[string]protocolHealth{
			"grpc": {
				usage:            usage{Status: "degraded", Limit: 10, Ratio: 0.9},
				Stats:            pool.Stats{Active: 9, Accepted: 30, Closed: 21},
				InFlight:         3,
				ErrorRate:        0.25,
				Mean:             0.1,
				P99:              0.5,
				RejectedRecently: map[string]uint64{"limit": 7},
			},
			"http1": {
				usage:            usage{Status: "healthy"},
				Stats:            pool.Stats{Active: 2},
				RejectedRecently: map[string]uint64{},
			},
		},
		Rejected: map[string]map[string]uint64{"grpc": {"limit": 7}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(protocolHealth{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestHealthStatus: only an unavailable server answers 503.
func TestHealthStatus(t *testing.T) {
	t.Parallel()
	tests := []struct {
		phase  lifecycle.Phase
		pool   pool.Health
		want   string
		status int
	}{
		{lifecycle.PhaseServing, pool.Healthy, "healthy", http.StatusOK},
		{lifecycle.PhaseServing, pool.Degraded, "degraded", http.StatusOK},
		{lifecycle.PhaseServing, pool.Overloaded, "overloaded", http.StatusOK},
		{lifecycle.PhaseServing, pool.Unavailable, "unavailable", http.StatusServiceUnavailable},
		{lifecycle.PhaseNew, pool.Healthy, "unavailable", http.StatusServiceUnavailable},
		{lifecycle.PhaseDraining, pool.Unavailable, "unavailable", http.StatusServiceUnavailable},
		{lifecycle.PhaseStopped, pool.Unavailable, "unavailable", http.StatusServiceUnavailable},
	}
	for _, tt := range tests {
		t.Run(string(tt.phase)+" "+tt.pool.String(), func(t *testing.T) {
			t.Parallel()
			w := get(t, scripted{stats: func() mux.Stats { return busy(tt.phase, tt.pool) }}, "localhost", "/health")
			var got health
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if got.Status != tt.want || got.Protocols["grpc"].Status != tt.want || w.Code != tt.status {
				t.Errorf("%d %q, grpc %q; want %d %q", w.Code, got.Status, got.Protocols["grpc"].Status, tt.status, tt.want)
			}
		})
	}
}
