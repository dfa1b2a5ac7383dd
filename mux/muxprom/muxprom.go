// Package muxprom shows a server's statistics to Prometheus. It is a package of
// its own so that a program which does not import it does not link Prometheus.
package muxprom

import (
	"crypto/x509"
	"maps"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/pool/requests"
)

// Source is what a [Collector] asks; *[mux.Server] is one.
type Source interface {
	Stats() mux.Stats
	Certificates() map[string][]*x509.Certificate
}

// The labels.
const (
	labelProtocol = "protocol"
	labelReason   = "reason"
	labelKind     = "kind"
	labelPhase    = "phase"
	labelAddress  = "address"
	labelCode     = "code"
	labelStatus   = "status"
	labelDetail   = "detail"
	labelMethod   = "method"
	labelLog      = "log"
	labelPosition = "position"
	labelSubject  = "subject"
	labelKey      = "key"
)

// Collector is a [prometheus.Collector] over one server. It keeps no state: each
// collection asks the server once, so the figures belong together. It may be collected
// concurrently.
type Collector struct {
	source Source
	build  prometheus.Metric
}

var _ prometheus.Collector = (*Collector)(nil)

// New returns a collector over source. To tell several servers of one process
// apart, register each with [prometheus.WrapRegistererWith].
func New(source Source) *Collector {
	return &Collector{source: source, build: buildInfo()}
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	active = describe("mux_connections_active",
		"Connections open now.", labelProtocol)
	accepted = describe("mux_connections_accepted_total",
		"Connections that came into the protocol's pool.", labelProtocol)
	rejected = describe("mux_connections_rejected_total",
		"Connections that were refused or given up.", labelProtocol, labelReason)
	refused = describe("mux_refusals_total",
		"Connections that were refused or given up, by what exactly was wrong.", labelReason, labelDetail)
	closed = describe("mux_connections_closed_total",
		"Connections that were closed in the protocol's pool, by who closed them and why.", labelProtocol, labelReason)
	limit = describe("mux_connections_limit",
		"How many connections the pool may have, 0 for no limit; total is all pools together.", labelProtocol)
	calls = describe("mux_grpc_calls_total",
		"gRPC calls that are over; other is the methods that are not registered.", labelMethod, labelCode)
	reclassified = describe("mux_connections_reclassified_total",
		"Native gRPC connections that brought something else, after which the client's connections are shared.", labelKind)
	received = describe("mux_received_bytes_total",
		"Bytes received, below TLS.", labelProtocol)
	sent = describe("mux_sent_bytes_total",
		"Bytes sent, below TLS.", labelProtocol)
	connectionDuration = describe("mux_connection_duration_seconds",
		"How long connections were open that are closed, by the pool they were closed in.", labelProtocol)
	phase = describe("mux_phase",
		"1 for the phase that the server is in, 0 for the others.", labelPhase)
	requestCount = describe("mux_requests_total",
		"Requests, calls and WebSocket sessions that are over, by HTTP status or gRPC status code.", labelProtocol, labelCode)
	requestDuration = describe("mux_request_duration_seconds",
		"How long requests, calls and WebSocket sessions took.", labelProtocol)
	inFlight = describe("mux_requests_in_flight",
		"Requests, calls and WebSocket sessions that are not over.", labelProtocol)
	poolHealth = describe("mux_pool_health",
		"1 for the status that the pool is in, 0 for the others; total is all pools together.", labelProtocol, labelStatus)
	sniffDuration = describe("mux_sniff_duration_seconds",
		"From a connection's first byte to the verdict what it speaks.")
	tlsDuration = describe("mux_tls_handshake_duration_seconds",
		"How long TLS handshakes took that succeeded.")
	logDropped = describe("mux_log_lines_dropped_total",
		"Lines of the server's log and of its access log that were dropped, because the log was too slow or failed.", labelLog)
	drainDuration = describe("mux_drain_duration_seconds",
		"How long the drain took; absent until it is over.")
	drainForced = describe("mux_drain_forced_connections_total",
		"Connections that the drain had to cut.", labelProtocol)
	notAfter = describe("mux_tls_certificate_not_after_timestamp_seconds",
		"When the certificate expires, in seconds since 1970; position is its place in the listener's configuration.",
		labelAddress, labelPosition, labelSubject, labelKey)
	unknownNames = describe("mux_tls_unknown_names_total",
		"TLS handshakes for a server name that no certificate of the listener has; they get the first one.")
	build = describe("mux_build_info",
		"Always 1; the labels say what the program was built from.", "version", "revision", "goversion")
)

// Describe implements [prometheus.Collector].
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		active, accepted, rejected, reclassified, received, sent, phase, notAfter, build, requestCount, requestDuration, inFlight,
		refused, closed, limit, calls, poolHealth, sniffDuration, tlsDuration, drainDuration, drainForced, connectionDuration, logDropped, unknownNames,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	counter := func(d *prometheus.Desc, value uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	stats := c.source.Stats()
	collectConnections(stats, gauge, counter, ch)
	collectRequests(stats, gauge, counter, ch)
	collectState(stats, gauge)
	histogram(ch, sniffDuration, stats.Sniffs)
	histogram(ch, tlsDuration, stats.Handshakes)
	for log, n := range stats.LogDropped {
		counter(logDropped, n, log)
	}
	forced := zeros(pools...)
	if stats.Drain != nil {
		gauge(drainDuration, stats.Drain.Duration.Seconds())
		for protocol, n := range stats.Drain.Forced {
			forced[protocol] = uint64(n)
		}
	}
	for protocol, n := range forced {
		counter(drainForced, n, protocol)
	}
	counter(unknownNames, stats.UnknownNames)
	for address, certificates := range c.source.Certificates() {
		for i, one := range certificates {
			gauge(notAfter, float64(one.NotAfter.Unix()), address, strconv.Itoa(i), one.Subject.String(), one.PublicKeyAlgorithm.String())
		}
	}
	ch <- c.build
}

// collectConnections sends what is known of connections.
func collectConnections(
	stats mux.Stats,
	gauge func(*prometheus.Desc, float64, ...string),
	counter func(*prometheus.Desc, uint64, ...string),
	ch chan<- prometheus.Metric,
) {
	for kind, n := range stats.Reclassified {
		counter(reclassified, n, kind)
	}
	all := maps.Clone(stats.Pools)
	if _, used := all[string(pool.Sniffing)]; !used && all != nil {
		all[string(pool.Sniffing)] = pool.Stats{}
	}
	for protocol, p := range all {
		gauge(active, float64(p.Active), protocol)
		counter(accepted, p.Accepted, protocol)
		counter(received, p.BytesReceived, protocol)
		counter(sent, p.BytesSent, protocol)
	}
	faults := make(map[[2]string]uint64) // by reason and detail, in all pools together
	var reasons []string
	for _, r := range stats.Refusals {
		faults[[2]string{r.Reason, r.Detail}] += r.Total
		reasons = append(reasons, r.Reason)
	}
	for fault, n := range faults {
		counter(refused, n, fault[0], fault[1])
	}
	byReason(stats.Rejected, reasons, func(n uint64, protocol, reason string) { counter(rejected, n, protocol, reason) })
	byReason(stats.Closed, mux.CloseReasons(), func(n uint64, protocol, reason string) { counter(closed, n, protocol, reason) })
	for protocol, totals := range stats.ConnDurations {
		histogram(ch, connectionDuration, totals, protocol)
	}
}

// pools are those of which every counter is there from the start.
var pools = []string{"sniffing", "http1", "http2", "grpc", "websocket"}

// zeros returns a map with a 0 for each key.
func zeros(keys ...string) map[string]uint64 {
	all := make(map[string]uint64, len(keys))
	for _, key := range keys {
		all[key] = 0
	}
	return all
}

// byReason calls send for each count, and for 0 where a reason has not come up in a pool.
func byReason(counts map[string]map[string]uint64, reasons []string, send func(n uint64, protocol, reason string)) {
	all := make(map[string]map[string]uint64)
	for _, protocol := range pools {
		all[protocol] = zeros(reasons...)
	}
	for protocol, byReason := range counts {
		if all[protocol] == nil {
			all[protocol] = make(map[string]uint64)
		}
		maps.Copy(all[protocol], byReason)
	}
	for protocol, byReason := range all {
		for reason, n := range byReason {
			send(n, protocol, reason)
		}
	}
}

// usualCodes are the codes of requests that are counted from the start, by protocol. The
// others come up with their first request.
var usualCodes = map[string][]int{
	"http1":     {http.StatusOK, http.StatusBadRequest, http.StatusNotFound, http.StatusInternalServerError, http.StatusServiceUnavailable},
	"http2":     {http.StatusOK, http.StatusBadRequest, http.StatusNotFound, http.StatusInternalServerError, http.StatusServiceUnavailable},
	"websocket": {http.StatusSwitchingProtocols, http.StatusInternalServerError, http.StatusServiceUnavailable},
	"grpc": {
		int(codes.OK), int(codes.Unknown), int(codes.DeadlineExceeded), int(codes.ResourceExhausted),
		int(codes.Unimplemented), int(codes.Internal), int(codes.Unavailable), int(codes.DataLoss),
	},
}

// collectRequests sends what is known of requests, calls and WebSocket sessions.
func collectRequests(
	stats mux.Stats,
	gauge func(*prometheus.Desc, float64, ...string),
	counter func(*prometheus.Desc, uint64, ...string),
	ch chan<- prometheus.Metric,
) {
	for protocol, byCode := range stats.Codes {
		for _, code := range usualCodes[protocol] {
			if _, counted := byCode[code]; !counted {
				counter(requestCount, 0, protocol, strconv.Itoa(code))
			}
		}
		for code, n := range byCode {
			counter(requestCount, n, protocol, strconv.Itoa(code))
		}
	}
	for method, byCode := range stats.Calls {
		for code, n := range byCode {
			counter(calls, n, method, strconv.Itoa(code))
		}
	}
	for protocol, totals := range stats.Durations {
		histogram(ch, requestDuration, totals, protocol)
	}
	for protocol, r := range stats.Requests {
		gauge(inFlight, float64(r.InFlight), protocol)
	}
}

// collectState sends the phase and the pools' health: of all the values that there are, the one that holds is 1.
func collectState(stats mux.Stats, gauge func(*prometheus.Desc, float64, ...string)) {
	oneIf := func(holds bool) float64 {
		if holds {
			return 1
		}
		return 0
	}
	for _, p := range lifecycle.Phases() {
		gauge(phase, oneIf(p == stats.Phase), string(p))
	}
	for tag, health := range stats.Health {
		gauge(limit, float64(health.Limit), tag)
		for status := pool.Healthy; status <= pool.Unavailable; status++ {
			gauge(poolHealth, oneIf(status == health.Status), tag, status.String())
		}
	}
}

func histogram(ch chan<- prometheus.Metric, d *prometheus.Desc, t requests.DurationTotals, labels ...string) {
	ch <- prometheus.MustNewConstHistogram(d, t.Count, t.SumSeconds, t.Map(), labels...)
}

// buildInfo reads what the linker recorded; what it did not is "unknown".
func buildInfo() prometheus.Metric {
	version, revision := "unknown", "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Version != "" {
			version = info.Main.Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	return prometheus.MustNewConstMetric(build, prometheus.GaugeValue, 1, version, revision, runtime.Version())
}
