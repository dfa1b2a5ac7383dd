package admin

import (
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/page"
	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/mux/muxprom"
)

// metricsView is the answer of /metrics in JSON. This example shows one protocol of
// several and one sample of up to sixty:
//
//	{
//	  "time": "2026-01-01T12:00:00Z",
//	  "totals": {
//	    "phase": "serving",
//	    "started": "2026-01-01T08:00:00Z",
//	    "pools": {"http1": {"active": 12, "accepted": 9000, "closed": 8988, "bytes_received": 1200000, …}},
//	    "rejected": {"http1": {"limit": 3}},
//	    "requests": {"http1": {"total": 90000, "failed": 2, "in_flight": 4, "p99_seconds": 0.012, …}},
//	    "codes": {"http1": {"200": 89998, "500": 2}},
//	    "health": {"http1": {"status": "healthy", "active": 12, "limit": 1000, "ratio": 0.012}}
//	  },
//	  "drain": null,
//	  "interval_seconds": 5,
//	  "history": [{
//	    "time": "2026-01-01T11:59:58Z",
//	    "phase": "serving",
//	    "protocols": {"http1": {
//	      "active": 12, "accepted_per_second": 0.4, "rejected_per_second": 0,
//	      "bytes_received_per_second": 4000, "bytes_sent_per_second": 90000,
//	      "requests_per_second": 31.2, "in_flight": 4, "error_rate": 0,
//	      "p50_seconds": 0.001, "p95_seconds": 0.004, "p99_seconds": 0.012
//	    }},
//	    "health": {"http1": "healthy", "total": "healthy"}
//	  }]
//	}
//
// Fields may be added. No field changes its meaning.
type metricsView struct {
	Time time.Time `json:"time"`
	// Totals are the statistics of this moment.
	Totals mux.Stats `json:"totals"`
	// Drain is the report of the drain, null until the drain is over.
	Drain *drainView `json:"drain"`
	// IntervalSeconds is the time between two samples.
	IntervalSeconds float64 `json:"interval_seconds"`
	// History are the samples of the last five minutes, the oldest first.
	History []Sample `json:"history"`
}

// drainView is the JSON form of a [lifecycle.Report].
type drainView struct {
	TraceID         string         `json:"trace_id"` // as in the log
	Started         time.Time      `json:"started"`
	DurationSeconds float64        `json:"duration_seconds"`
	Steps           []stepView     `json:"steps"`
	Forced          map[string]int `json:"forced"`           // connections that were cut, by protocol
	Reason          string         `json:"reason,omitempty"` // why steps were cut short; absent if none was
}

// stepView is the JSON form of a [lifecycle.StepResult].
type stepView struct {
	Name            string           `json:"name"`
	Status          lifecycle.Status `json:"status"`
	DurationSeconds float64          `json:"duration_seconds"`
	Error           string           `json:"error,omitempty"`
	Remaining       map[string]int   `json:"remaining"` // connections left after it, by protocol
}

func newDrainView(r *lifecycle.Report) *drainView {
	if r == nil {
		return nil
	}
	view := &drainView{
		TraceID:         r.TraceID,
		Started:         r.Started,
		DurationSeconds: r.Duration.Seconds(),
		Steps:           make([]stepView, len(r.Steps)),
		Forced:          r.Forced,
		Reason:          r.Reason,
	}
	for i, s := range r.Steps {
		view.Steps[i] = stepView{
			Name: s.Name, Status: s.Status, DurationSeconds: s.Duration.Seconds(), Remaining: s.Remaining,
		}
		if s.Err != nil {
			view.Steps[i].Error = s.Err.Error()
		}
	}
	return view
}

var (
	reloadSuccessful = prometheus.NewDesc("mux_config_last_reload_successful",
		"1 if the last reload of the configuration succeeded, 0 if it failed and an older one is still in force.", nil, nil)
	reloadTime = prometheus.NewDesc("mux_config_last_reload_success_timestamp_seconds",
		"When a configuration was last put in force, in seconds since 1970.", nil, nil)
)

// reloadCollector shows Prometheus how the last reload went. The start counts as a
// reload.
type reloadCollector struct{ server Server }

var _ prometheus.Collector = reloadCollector{}

// Describe implements [prometheus.Collector].
func (reloadCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- reloadSuccessful
	ch <- reloadTime
}

// Collect implements [prometheus.Collector].
func (c reloadCollector) Collect(ch chan<- prometheus.Metric) {
	h := c.server.History()
	successful := 1.0
	if h.Failing {
		successful = 0
	}
	const millis = 1e3
	ch <- prometheus.MustNewConstMetric(reloadSuccessful, prometheus.GaugeValue, successful)
	ch <- prometheus.MustNewConstMetric(reloadTime, prometheus.GaugeValue, float64(h.Succeeded.UnixMilli())/millis)
}

// newRegistry returns the metrics of the server, of its configuration and of the process.
func newRegistry(s Server) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		muxprom.New(s),
		reloadCollector{s},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return registry
}

// The values of the parameter format of /metrics.
const (
	formatJSON       = "json"
	formatPrometheus = "prometheus"
)

// serveMetrics returns the handler of /metrics. It answers with a [metricsView] where the
// client asks for ?format=json or prefers application/json by Accept, and otherwise in a
// format of Prometheus.
func (p *Pages) serveMetrics() http.HandlerFunc {
	forPrometheus := promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{Registry: p.registry})
	return func(w http.ResponseWriter, r *http.Request) {
		format := r.URL.Query().Get("format")
		switch format {
		case "":
			w.Header().Set("Vary", "Accept")
			if prefersJSON(r.Header.Values("Accept")) {
				format = formatJSON
			}
		case formatJSON, formatPrometheus:
		default:
			page.Error(w, http.StatusBadRequest, badParameter("format", format, "one of "+formatJSON+", "+formatPrometheus))
			return
		}
		if format == formatJSON {
			page.JSON(w, http.StatusOK, p.metrics(time.Now()))
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		forPrometheus.ServeHTTP(w, r)
	}
}

func (p *Pages) metrics(now time.Time) metricsView {
	stats := p.server.Stats()
	return metricsView{
		Time:            now,
		Totals:          stats,
		Drain:           newDrainView(stats.Drain),
		IntervalSeconds: SampleInterval.Seconds(),
		History:         p.history.list(),
	}
}

// prefersJSON reports whether the fields of an Accept header (RFC 9110, section 12.5.1)
// name application/json, and no format of Prometheus with more weight. Ranges such as */*
// are ignored.
func prefersJSON(fields []string) bool {
	asJSON, asOther := 0.0, 0.0
	for element := range strings.SplitSeq(strings.Join(fields, ","), ",") {
		kind, parameters, err := mime.ParseMediaType(element)
		if err != nil {
			continue
		}
		weight := 1.0
		if q, ok := parameters["q"]; ok {
			if weight, err = strconv.ParseFloat(q, 64); err != nil {
				continue
			}
		}
		switch kind {
		case "application/json":
			asJSON = max(asJSON, weight)
		case "text/plain", "application/openmetrics-text", "application/vnd.google.protobuf":
			asOther = max(asOther, weight)
		}
	}
	return asJSON > 0 && asJSON >= asOther
}
