package muxprom

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
)

// startServer serves every protocol over TLS on a loopback port.
func startServer(t *testing.T) (*mux.Server, string) {
	t.Helper()
	routes := http.NewServeMux()
	routes.Handle("/ws", mux.WebSocket(func(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
		_, _, err := c.Read(ctx)
		return err
	}))
	s := mux.New(
		mux.Configure(func(c *mux.Config) {
			c.Listeners[0].Address = "127.0.0.1:0"
			c.Listeners[0].TLS.Mode = listeners.ModeSelfSigned
			c.Drain.Delay, c.Drain.Spread, c.Drain.Timeout = 0, 0, time.Second
		}),
		mux.WithHandler(routes),
		mux.WithLogger(slog.New(slog.DiscardHandler)),
	)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.ListenAndServe() }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		<-served
	})
	return s, s.Addrs()[0].String()
}

// anyCertificate is for the certificate that the server has made a moment ago.
func anyCertificate() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

func httpClient(t *testing.T, http2 bool) *http.Client {
	t.Helper()
	var protocols http.Protocols
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	transport := &http.Transport{Protocols: &protocols, TLSClientConfig: anyCertificate()}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// visit uses the server in every protocol, and once in none. What it returns is
// a connection that overstays every drain.
func visit(t *testing.T, addr string) io.Closer {
	t.Helper()
	for _, http2 := range []bool{false, true} {
		resp, err := httpClient(t, http2).Get("https://" + addr + "/livez")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	calls, err := grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(anyCertificate())))
	if err != nil {
		t.Fatal(err)
	}
	defer calls.Close()
	if _, err := healthpb.NewHealthClient(calls).Check(t.Context(), new(healthpb.HealthCheckRequest)); err != nil {
		t.Fatal(err)
	}
	stranger, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	fmt.Fprint(stranger, "this is no TLS record\r\n")
	_, _ = io.Copy(io.Discard, stranger)

	ws, _, err := websocket.Dial(t.Context(), "wss://"+addr+"/ws", &websocket.DialOptions{HTTPClient: httpClient(t, false)})
	if err != nil {
		t.Fatal(err)
	}
	return closeNow{ws}
}

// closeNow closes a WebSocket without a word.
type closeNow struct{ *websocket.Conn }

func (c closeNow) Close() error { return c.CloseNow() }

// TestServerWithTraffic gathers from a server that has served every protocol, has
// refused a connection and has cut one in its drain: there is a sample of each metric then.
func TestServerWithTraffic(t *testing.T) {
	t.Parallel()
	s, addr := startServer(t)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(New(s))
	defer visit(t, addr).Close()
	_ = s.Shutdown(t.Context()) // It says that a connection was cut.

	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		got = append(got, f.GetName())
	}
	want := []string{
		"mux_build_info",
		"mux_connection_duration_seconds",
		"mux_connections_accepted_total",
		"mux_connections_active",
		"mux_connections_reclassified_total",
		"mux_connections_rejected_total",
		"mux_drain_duration_seconds",
		"mux_drain_forced_connections_total",
		"mux_log_lines_dropped_total",
		"mux_phase",
		"mux_pool_health",
		"mux_received_bytes_total",
		"mux_request_duration_seconds",
		"mux_requests_in_flight",
		"mux_requests_total",
		"mux_sent_bytes_total",
		"mux_sniff_duration_seconds",
		"mux_tls_certificate_not_after_timestamp_seconds",
		"mux_tls_handshake_duration_seconds",
		"mux_tls_unknown_names_total",
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}
