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

// metricsView is the answer of /metrics in JSON. Fields may be added. No field changes its
// meaning.
type metricsView struct {
	Time time.Time `json:"time"`
	// Totals are the statistics of this moment.
	Totals mux.Stats `json:"totals"`
	// Drain is the report of the drain, null until the drain is over.
	Drain *drainView `json:"drain"`
	// IntervalSeconds is the time between two samples.
	IntervalSeconds float64 `json:"interval_seconds"`
	// History are the samples of the last five minutes, the oldest first.
	History []sample `json:"history"`
	// RejectedByMinute are the connections that were rejected in each of these minutes, the
	// last one first.
	RejectedByMinute []rejections `json:"rejected_by_minute"`
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
		view.Steps[i] = newStepView(s)
	}
	return view
}

func newStepView(s lifecycle.StepResult) stepView {
	view := stepView{Name: s.Name, Status: s.Status, DurationSeconds: s.Duration.Seconds(), Remaining: s.Remaining}
	if s.Err != nil {
		view.Error = s.Err.Error()
	}
	return view
}

// newRegistry returns the metrics of the server, of its configuration and of the process.
// The start counts as a reload.
func newRegistry(s Server) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		muxprom.New(s),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "mux_config_last_reload_successful",
			Help: "1 if the last reload of the configuration succeeded, 0 if it failed and an older one is still in force.",
		}, func() float64 {
			if s.History().Failing {
				return 0
			}
			return 1
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "mux_config_last_reload_success_timestamp_seconds",
			Help: "When a configuration was last put in force, in seconds since 1970.",
		}, func() float64 { return float64(s.History().Succeeded.UnixMilli()) / 1e3 }),
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
	registry := newRegistry(p.server)
	forPrometheus := promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry})
	return func(w http.ResponseWriter, r *http.Request) {
		format, negotiated := metricsFormat(r)
		if negotiated {
			w.Header().Set("Vary", "Accept")
		}
		switch format {
		case formatPrometheus:
		case formatJSON:
			page.JSON(w, http.StatusOK, p.metrics(time.Now()))
			return
		default:
			page.Error(w, http.StatusBadRequest, badParameter("format", format, "one of "+formatJSON+", "+formatPrometheus))
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		forPrometheus.ServeHTTP(w, r)
	}
}

// metricsFormat returns the format in which a request wants the metrics, by the parameter
// format or else by Accept, and reports whether it is by the latter.
func metricsFormat(r *http.Request) (format string, negotiated bool) {
	if format := r.URL.Query().Get("format"); format != "" {
		return format, false
	}
	if prefersJSON(r.Header.Values("Accept")) {
		return formatJSON, true
	}
	return formatPrometheus, true
}

func (p *Pages) metrics(now time.Time) metricsView {
	stats := p.server.Stats()
	return metricsView{
		Time:             now,
		Totals:           stats,
		Drain:            newDrainView(stats.Drain),
		IntervalSeconds:  sampleInterval.Seconds(),
		History:          p.history.list(),
		RejectedByMinute: p.history.byMinute(stats.Rejected),
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
