package mux_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/connectivity"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

// isOpen reports whether c has neither a value nor an end yet.
func isOpen(c <-chan struct{}) bool {
	select {
	case <-c:
		return false
	default:
		return true
	}
}

// checkOrder expects a drain without an error or a cut connection, with its steps in this
// order.
func checkOrder(t *testing.T, got drainResult, want ...string) {
	t.Helper()
	if got.err != nil || got.report.ForcedTotal() != 0 {
		t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
	}
	var steps []string
	for _, step := range got.report.Steps {
		if step.Status != lifecycle.StatusDone {
			t.Errorf("%s: %s", step.Name, step.Status)
		}
		steps = append(steps, step.Name)
	}
	if diff := cmp.Diff(want, steps); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}

// TestDrainEndsAllProtocols: at the drain, slow requests, a gRPC stream, a WebSocket,
// idle connections and one without a request are open. All of them end properly and none
// is cut.
func TestDrainEndsAllProtocols(t *testing.T) {
	t.Parallel()
	bothForms(t, func(t *testing.T, s *server) {
		url := s.scheme() + "://" + s.addr
		for version := range 2 {
			if got := <-get(s.client(t, version+1), url+"/echo"); got != "" {
				t.Fatal(got)
			}
		}
		undecided := s.grpcClient(t)
		undecided.Connect()
		eventually(t, "ready before its first call", func() bool { return undecided.GetState() == connectivity.Ready })

		ws := s.webSocket(t)
		stream, echo := s.echoCall(t)
		echo("before")
		slow1, slow2 := get(s.client(t, 1), url+"/slow"), get(s.client(t, 2), url+"/slow")
		eventually(t, "all connections open", func() bool {
			return s.active("http1") == 2 && s.active("http2") == 2 && s.active("websocket") == 1 && s.active("grpc") == 1
		})

		done := s.drain(t.Context())
		if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
			t.Errorf("WebSocket ended with %v, want 1001", err)
		}
		for _, slow := range []<-chan string{slow1, slow2} {
			if got := <-slow; got != "slow" {
				t.Errorf("slow request: %q", got)
			}
		}
		echo("during")
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != io.EOF {
			t.Errorf("stream ended with %v", err)
		}
		got := <-done
		if got.err != nil || got.report.ForcedTotal() != 0 {
			t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
		}
		var steps []string
		for _, step := range got.report.Steps {
			steps = append(steps, step.Name+" "+string(step.Status))
		}
		want := []string{"announce done", "drain-delay done", "stop-accepting done", "wait-connections done", "force-close done", "cleanup done"}
		if diff := cmp.Diff(want, steps); diff != "" {
			t.Errorf("steps (-want +got):\n%s", diff)
		}
		if s.Phase() != lifecycle.PhaseStopped {
			t.Errorf("phase %s", s.Phase())
		}
	})
}

// TestDrainForces: the drain cuts what is left after its timeout, and counts it by
// protocol.
func TestDrainForces(t *testing.T) {
	t.Parallel()
	s := start(t, false, mux.Configure(func(c *mux.Config) { c.Drain.Timeout = 200 * time.Millisecond }))
	stream, err := testpb.NewTestServiceClient(s.grpcClient(t)).FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "stream open", func() bool { return s.active("grpc") == 1 })
	report, err := s.Drain(t.Context())
	if !errors.Is(err, lifecycle.ErrForced) {
		t.Errorf("drain: %v, want ErrForced", err)
	}
	if diff := cmp.Diff(map[string]int{"grpc": 1}, report.Forced); diff != "" {
		t.Errorf("forced (-want +got):\n%s", diff)
	}
	if _, err := stream.Recv(); err == nil {
		t.Error("the stream goes on")
	}
}

// TestDrainDelay: during the delay new connections are served and readiness fails.
func TestDrainDelay(t *testing.T) {
	s := start(t, false, mux.Configure(func(c *mux.Config) { c.Drain.Delay = time.Minute }))
	eventually(t, "ready", func() bool { return s.status(t, "/readyz") == http.StatusOK })
	health := healthpb.NewHealthClient(s.grpcClient(t))
	ctx, cancel := context.WithCancel(t.Context())
	done := s.drain(ctx)
	eventually(t, "not ready", func() bool { return s.status(t, "/readyz") == http.StatusServiceUnavailable })
	if got := s.status(t, "/livez"); got != http.StatusOK {
		t.Errorf("live: %d", got)
	}
	if got := s.status(t, "/echo"); got != http.StatusOK {
		t.Errorf("new connection during the delay: %d", got)
	}
	eventually(t, "gRPC health says NOT_SERVING", func() bool {
		h, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{})
		return err == nil && h.GetStatus() == healthpb.HealthCheckResponse_NOT_SERVING
	})
	cancel()
	<-done
}

// TestDrainShared: concurrent stops share one drain.
func TestDrainShared(t *testing.T) {
	s := start(t, false)
	first, second := s.drain(t.Context()), s.drain(t.Context())
	if (<-first).report != (<-second).report {
		t.Error("two reports")
	}
}

// TestServeAfterShutdown: Serve fails on a server that was shut down.
func TestServeAfterShutdown(t *testing.T) {
	s := mux.New(mux.Configure(noDelay))
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	err := s.Serve(l)
	if !errors.Is(err, mux.ErrServerClosed) || !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("Serve: %v", err)
	}
}

// TestForcedEndIsNoCompleteOne: a client whose response or tunnel lasts until the
// connection ends can tell that a drain has cut it.
func TestForcedEndIsNoCompleteOne(t *testing.T) {
	t.Parallel()
	h := http.NewServeMux()
	h.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "part")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	h.HandleFunc("/tunnel", func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "part")
		_, _ = io.Copy(io.Discard, conn)
	})
	bothForms(t, func(t *testing.T, s *server) {
		var conns []net.Conn
		for _, path := range []string{"/endless", "/tunnel"} {
			conn := s.dial(t)
			send(t, conn, "GET "+path+" HTTP/1.0\r\n\r\n") // Whose responses end with the connection.
			r := bufio.NewReader(conn)
			for last := ""; !strings.HasSuffix(last, "part"); {
				b, err := r.ReadByte()
				if err != nil {
					t.Fatal(err)
				}
				last += string(b)
			}
			conns = append(conns, conn)
		}
		report, err := s.Drain(t.Context())
		if !errors.Is(err, lifecycle.ErrForced) || report.ForcedTotal() != len(conns) {
			t.Errorf("%v, forced %v", err, report.Forced)
		}
		for i, conn := range conns {
			if b, err := io.ReadAll(conn); err == nil || len(b) > 0 {
				t.Errorf("%d: read %q, %v, which looks like a complete end", i, b, err)
			}
		}
	}, mux.WithHandler(h), mux.Configure(func(c *mux.Config) { c.Drain.Timeout = 50 * time.Millisecond }))
}
