package admin

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

func TestMetricsFormat(t *testing.T) {
	t.Parallel()
	const (
		firefox    = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
		prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
	)
	tests := []struct {
		name   string
		query  string
		accept []string
		want   string // the Content-Type's beginning
	}{
		{"nothing said", "", nil, "text/plain"},
		{"anything", "", []string{"*/*"}, "text/plain"},
		{"a browser", "", []string{firefox}, "text/plain"},
		{"Prometheus", "", []string{prometheus}, "text/plain"},
		{"JSON alone", "", []string{"application/json"}, "application/json"},
		{"JSON among others", "", []string{"application/json, text/plain, */*"}, "application/json"},
		{"JSON in a second field", "", []string{"text/html", "Application/JSON; charset=utf-8"}, "application/json"},
		{"text rather", "", []string{"application/json;q=0.5, text/plain"}, "text/plain"},
		{"no JSON please", "", []string{"application/json;q=0"}, "text/plain"},
		{"a broken weight", "", []string{"application/json;q=high"}, "text/plain"},
		{"by name", "?format=json", []string{"text/plain"}, "application/json"},
		{"by the other name", "?format=prometheus", []string{"application/json"}, "text/plain"},
	}
	pages := New(example(), Options{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/metrics"+tt.query, nil)
			for _, field := range tt.accept {
				r.Header.Add("Accept", field)
			}
			w := httptest.NewRecorder()
			pages.ServeHTTP(w, r)
			if got := w.Header().Get("Content-Type"); !strings.HasPrefix(got, tt.want) || w.Code != http.StatusOK {
				t.Errorf("%d %q, want %q", w.Code, got, tt.want)
			}
			if got := w.Header().Get("Vary"); tt.query == "" && !strings.Contains(got, "Accept") {
				t.Errorf("Vary %q lacks Accept", got)
			}
		})
	}
}

func TestMetricsRefusesBadFormat(t *testing.T) {
	t.Parallel()
	w := get(t, example(), "localhost", "/metrics?format=xml")
	const want = `{"error":"format: \"xml\" is not one of json, prometheus"}` + "\n"
	if diff := cmp.Diff(want, w.Body.String()); diff != "" || w.Code != http.StatusBadRequest {
		t.Errorf("status %d (-want +got):\n%s", w.Code, diff)
	}
}

// TestMetricsJSON checks the names in the doc comment of metricsView.
func TestMetricsJSON(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	stats := mux.Stats{
		Phase:   lifecycle.PhaseStopped,
		Started: at,
		Drain: &lifecycle.Report{
			TraceID: "af", Started: at, Duration: 1500 * time.Millisecond, Forced: map[string]int{"grpc": 2},
			Steps: []lifecycle.StepResult{
				{Name: "announce", Status: lifecycle.StatusFailed, Duration: time.Second, Err: errors.New("no")},
			},
		},
	}
	p := New(scripted{stats: func() mux.Stats { return stats }}, Options{})
	p.history.add(at, stats)
	later := busy(lifecycle.PhaseServing, 0)
	calls := later.Pools["grpc"]
	calls.MessagesReceived, calls.MessagesSent = 50, 25
	later.Pools["grpc"] = calls
	p.history.add(at.Add(sampleInterval), later)
	got, err := json.MarshalIndent(p.metrics(at), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	const want = `{
 "time": "2026-01-01T12:00:00Z",
 "totals": TOTALS,
 "drain": {
  "trace_id": "af",
  "started": "2026-01-01T12:00:00Z",
  "duration_seconds": 1.5,
  "steps": [
   {
    "name": "announce",
    "status": "failed",
    "duration_seconds": 1,
    "error": "no",
    "remaining": null
   }
  ],
  "forced": {
   "grpc": 2
  }
 },
 "interval_seconds": 5,
 "history": [
  {
   "time": "2026-01-01T12:00:05Z",
   "phase": "serving",
   "protocols": {
    "grpc": {
     "active": 9,
     "accepted_per_second": 6,
     "rejected_per_second": 1.4,
     "bytes_received_per_second": 0,
     "bytes_sent_per_second": 0,
     "messages_received_per_second": 10,
     "messages_sent_per_second": 5,
     "requests_per_second": 20,
     "in_flight": 3,
     "error_rate": 0.25,
     "mean_seconds": 0.1,
     "p50_seconds": 0,
     "p95_seconds": 0,
     "p99_seconds": 0.5
    },
    "http1": {
     "active": 2,
     "accepted_per_second": 0,
     "rejected_per_second": 0,
     "bytes_received_per_second": 0,
     "bytes_sent_per_second": 0,
     "messages_received_per_second": 0,
     "messages_sent_per_second": 0,
     "requests_per_second": 0,
     "in_flight": 0,
     "error_rate": 0,
     "mean_seconds": 0,
     "p50_seconds": 0,
     "p95_seconds": 0,
     "p99_seconds": 0
    }
   },
   "health": {
    "grpc": "healthy",
    "total": "healthy"
   }
  }
 ],
 "rejected_by_minute": [
  {}
 ]
}`
	totals, err := json.MarshalIndent(stats, " ", " ")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Replace(want, "TOTALS", string(totals), 1), string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := New(example(), Options{}).metrics(at); got.History == nil || got.Drain != nil {
		t.Errorf("before a sample and a drain: history %v, drain %v; want [] and null", got.History, got.Drain)
	}
}

func TestReloadStatus(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		history mux.History
		want    string // the values of both metrics
	}{
		{"a good one", mux.History{Succeeded: time.Unix(2_000, 5e8)}, "1 2000.5"},
		{"a bad one after a good one", mux.History{Failing: true, Succeeded: time.Unix(2_000, 0)}, "0 2000"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			successful, at, _ := strings.Cut(tt.want, " ")
			want := `
# HELP mux_config_last_reload_success_timestamp_seconds When a configuration was last put in force, in seconds since 1970.
# TYPE mux_config_last_reload_success_timestamp_seconds gauge
mux_config_last_reload_success_timestamp_seconds ` + at + `
# HELP mux_config_last_reload_successful 1 if the last reload of the configuration succeeded, 0 if it failed and an older one is still in force.
# TYPE mux_config_last_reload_successful gauge
mux_config_last_reload_successful ` + successful + "\n"
			if err := testutil.GatherAndCompare(newRegistry(fakeServer{history: tt.history}), strings.NewReader(want),
				"mux_config_last_reload_success_timestamp_seconds", "mux_config_last_reload_successful"); err != nil {
				t.Error(err)
			}
		})
	}
}
