package muxprom

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/pool/requests"
)

// fixed is a Source that does not change.
type fixed mux.Stats

func (f fixed) Stats() mux.Stats { return mux.Stats(f) }

func (fixed) Certificates() map[string][]*x509.Certificate {
	name := pkix.Name{CommonName: "example.com"}
	return map[string][]*x509.Certificate{"127.0.0.1:443": {
		{Subject: name, PublicKeyAlgorithm: x509.RSA, NotAfter: time.Unix(1_800_000_000, 0)},
		{Subject: name, PublicKeyAlgorithm: x509.ECDSA, NotAfter: time.Unix(1_900_000_000, 0)},
	}}
}

func example() fixed {
	return fixed{
		Phase: lifecycle.PhaseDraining,
		Pools: map[string]pool.Stats{
			"grpc":     {Active: 2, Accepted: 5, Closed: 3, BytesReceived: 700, BytesSent: 900},
			"sniffing": {Active: 1, Accepted: 9},
		},
		Rejected: map[string]map[string]uint64{"sniffing": {"silent": 3, "no_match": 1}},
		Requests: map[string]requests.Stats{"grpc": {InFlight: 2}},
		Codes:    map[string]map[int]uint64{"grpc": {0: 40, 14: 2}},
		Durations: map[string]requests.DurationTotals{"grpc": {
			Count: 42, SumSeconds: 8.5, Buckets: []requests.DurationBucket{{Seconds: 0.1, Count: 30}, {Seconds: 1, Count: 41}},
		}},
		ConnDurations: map[string]requests.DurationTotals{"http1": {
			Count: 3, SumSeconds: 90, Buckets: []requests.DurationBucket{{Seconds: 60, Count: 2}},
		}},
		Health:       map[string]pool.HealthStatus{"grpc": {Status: pool.Degraded}},
		LogDropped:   map[string]uint64{"server": 0, "access": 12},
		UnknownNames: 3,
		Drain:        &lifecycle.Report{Duration: 1500 * time.Millisecond, Forced: map[string]int{"grpc": 2}},
	}
}

func TestCollect(t *testing.T) {
	t.Parallel()
	const want = `
# HELP mux_connection_duration_seconds How long connections were open that are closed, by the pool they were closed in.
# TYPE mux_connection_duration_seconds histogram
mux_connection_duration_seconds_bucket{protocol="http1",le="60"} 2
mux_connection_duration_seconds_bucket{protocol="http1",le="+Inf"} 3
mux_connection_duration_seconds_sum{protocol="http1"} 90
mux_connection_duration_seconds_count{protocol="http1"} 3
# HELP mux_connections_accepted_total Connections that came into the protocol's pool.
# TYPE mux_connections_accepted_total counter
mux_connections_accepted_total{protocol="grpc"} 5
mux_connections_accepted_total{protocol="sniffing"} 9
# HELP mux_connections_active Connections open now.
# TYPE mux_connections_active gauge
mux_connections_active{protocol="grpc"} 2
mux_connections_active{protocol="sniffing"} 1
# HELP mux_connections_rejected_total Connections that were refused or given up.
# TYPE mux_connections_rejected_total counter
mux_connections_rejected_total{protocol="sniffing",reason="no_match"} 1
mux_connections_rejected_total{protocol="sniffing",reason="silent"} 3
# HELP mux_drain_duration_seconds How long the drain took; absent until it is over.
# TYPE mux_drain_duration_seconds gauge
mux_drain_duration_seconds 1.5
# HELP mux_drain_forced_connections_total Connections that the drain had to cut.
# TYPE mux_drain_forced_connections_total counter
mux_drain_forced_connections_total{protocol="grpc"} 2
# HELP mux_log_lines_dropped_total Lines of the server's log and of its access log that were dropped, because the log was too slow or failed.
# TYPE mux_log_lines_dropped_total counter
mux_log_lines_dropped_total{log="access"} 12
mux_log_lines_dropped_total{log="server"} 0
# HELP mux_phase 1 for the phase that the server is in, 0 for the others.
# TYPE mux_phase gauge
mux_phase{phase="draining"} 1
mux_phase{phase="new"} 0
mux_phase{phase="serving"} 0
mux_phase{phase="stopped"} 0
# HELP mux_pool_health 1 for the status that the pool is in, 0 for the others; total is all pools together.
# TYPE mux_pool_health gauge
mux_pool_health{protocol="grpc",status="degraded"} 1
mux_pool_health{protocol="grpc",status="healthy"} 0
mux_pool_health{protocol="grpc",status="overloaded"} 0
mux_pool_health{protocol="grpc",status="unavailable"} 0
# HELP mux_received_bytes_total Bytes received, below TLS.
# TYPE mux_received_bytes_total counter
mux_received_bytes_total{protocol="grpc"} 700
mux_received_bytes_total{protocol="sniffing"} 0
# HELP mux_request_duration_seconds How long requests, calls and WebSocket sessions took.
# TYPE mux_request_duration_seconds histogram
mux_request_duration_seconds_bucket{protocol="grpc",le="0.1"} 30
mux_request_duration_seconds_bucket{protocol="grpc",le="1"} 41
mux_request_duration_seconds_bucket{protocol="grpc",le="+Inf"} 42
mux_request_duration_seconds_sum{protocol="grpc"} 8.5
mux_request_duration_seconds_count{protocol="grpc"} 42
# HELP mux_requests_in_flight Requests, calls and WebSocket sessions that are not over.
# TYPE mux_requests_in_flight gauge
mux_requests_in_flight{protocol="grpc"} 2
# HELP mux_requests_total Requests, calls and WebSocket sessions that are over, by HTTP status or gRPC status code.
# TYPE mux_requests_total counter
mux_requests_total{code="0",protocol="grpc"} 40
mux_requests_total{code="14",protocol="grpc"} 2
# HELP mux_sent_bytes_total Bytes sent, below TLS.
# TYPE mux_sent_bytes_total counter
mux_sent_bytes_total{protocol="grpc"} 900
mux_sent_bytes_total{protocol="sniffing"} 0
# HELP mux_tls_certificate_not_after_timestamp_seconds When the certificate expires, in seconds since 1970; position is its place in the listener's configuration.
# TYPE mux_tls_certificate_not_after_timestamp_seconds gauge
mux_tls_certificate_not_after_timestamp_seconds{address="127.0.0.1:443",key="ECDSA",position="1",subject="CN=example.com"} 1.9e+09
mux_tls_certificate_not_after_timestamp_seconds{address="127.0.0.1:443",key="RSA",position="0",subject="CN=example.com"} 1.8e+09
# HELP mux_tls_unknown_names_total TLS handshakes for a server name that no certificate of the listener has; they get the first one.
# TYPE mux_tls_unknown_names_total counter
mux_tls_unknown_names_total 3
`
	names := []string{
		"mux_connections_accepted_total", "mux_connections_active", "mux_connections_rejected_total",
		"mux_phase", "mux_received_bytes_total", "mux_sent_bytes_total",
		"mux_tls_certificate_not_after_timestamp_seconds", "mux_requests_total", "mux_requests_in_flight",
		"mux_request_duration_seconds", "mux_pool_health", "mux_log_lines_dropped_total", "mux_drain_duration_seconds", "mux_drain_forced_connections_total",
		"mux_connection_duration_seconds", "mux_tls_unknown_names_total",
	}
	if err := testutil.CollectAndCompare(New(example()), strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}

func TestLint(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(New(example()))
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestBuildInfo(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(New(example()))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "mux_build_info" {
			continue
		}
		labels := make(map[string]string)
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		if diff := cmp.Diff([]string{"goversion", "revision", "version"}, slices.Sorted(maps.Keys(labels))); diff != "" {
			t.Errorf("labels (-want +got):\n%s", diff)
		}
		if !strings.HasPrefix(labels["goversion"], "go") {
			t.Errorf("goversion %q", labels["goversion"])
		}
		return
	}
	t.Error("no mux_build_info")
}

// TestLiveServer collects from a server that is being used, as a scrape does.
func TestLiveServer(t *testing.T) {
	t.Parallel()
	server := mux.New()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(New(server))
	var scrapes sync.WaitGroup
	for range 4 {
		scrapes.Go(func() {
			if _, err := registry.Gather(); err != nil {
				t.Error(err)
			}
		})
	}
	scrapes.Wait()
	if err := server.Close(); err != nil {
		t.Error(err)
	}
}
