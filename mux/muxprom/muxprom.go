// Package muxprom shows a server's statistics to Prometheus. It is a package of
// its own so that a program which does not import it does not link Prometheus.
package muxprom

import (
	"crypto/x509"
	"runtime"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

// Source is what a [Collector] asks; *[mux.Server] is one.
type Source interface {
	Stats() mux.Stats
	Certificates() map[string]*x509.Certificate
}

// The labels.
const (
	labelProtocol = "protocol"
	labelReason   = "reason"
	labelPhase    = "phase"
	labelAddress  = "address"
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
	received = describe("mux_received_bytes_total",
		"Bytes received, below TLS.", labelProtocol)
	sent = describe("mux_sent_bytes_total",
		"Bytes sent, below TLS.", labelProtocol)
	phase = describe("mux_phase",
		"1 for the phase that the server is in, 0 for the others.", labelPhase)
	notAfter = describe("mux_tls_certificate_not_after_timestamp_seconds",
		"When the listener's certificate expires, in seconds since 1970.", labelAddress)
	build = describe("mux_build_info",
		"Always 1; the labels say what the program was built from.", "version", "revision", "goversion")
)

// Describe implements [prometheus.Collector].
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{active, accepted, rejected, received, sent, phase, notAfter, build} {
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
	for protocol, p := range stats.Pools {
		gauge(active, float64(p.Active), protocol)
		counter(accepted, p.Accepted, protocol)
		counter(received, p.BytesReceived, protocol)
		counter(sent, p.BytesSent, protocol)
	}
	for protocol, reasons := range stats.Rejected {
		for reason, n := range reasons {
			counter(rejected, n, protocol, reason)
		}
	}
	for _, p := range lifecycle.Phases() {
		value := 0.0
		if p == stats.Phase {
			value = 1
		}
		gauge(phase, value, string(p))
	}
	for address, certificate := range c.source.Certificates() {
		gauge(notAfter, float64(certificate.NotAfter.Unix()), address)
	}
	ch <- c.build
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
