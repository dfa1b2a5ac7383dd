package mux_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
)

// readyz returns the status and the text of /readyz.
func (s *server) readyz(t *testing.T) (int, string) {
	t.Helper()
	resp, err := s.client(t, 1).Get(s.scheme() + "://" + s.addr + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(text))
}

// isServing reports what gRPC's health service says of a service.
func (s *server) isServing(t *testing.T, client healthpb.HealthClient, service string) bool {
	t.Helper()
	resp, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetStatus() == healthpb.HealthCheckResponse_SERVING
}

// TestReadiness: a failing check turns /readyz and gRPC's health, and nothing else.
func TestReadiness(t *testing.T) {
	var broken atomic.Bool
	broken.Store(true)
	m, _ := newServer(t, false)
	m.AddReadiness("database", func(context.Context) error {
		if broken.Load() {
			return errors.New("connection refused")
		}
		return nil
	})
	m.AddReadiness("cache", func(context.Context) error { return nil })
	s := serve(t, m)
	health := healthpb.NewHealthClient(s.grpcClient(t))
	const service = "grpc.testing.TestService"
	eventually(t, "the database alone is not ready", func() bool {
		status, text := s.readyz(t)
		return status == http.StatusServiceUnavailable && text == "not ready: database"
	})
	if s.isServing(t, health, "") || s.isServing(t, health, service) {
		t.Error("gRPC's health says SERVING")
	}
	if status := s.status(t, "/echo"); status != http.StatusOK {
		t.Errorf("a request: %d", status)
	}
	broken.Store(false)
	eventually(t, "ready", func() bool { status, _ := s.readyz(t); return status == http.StatusOK })
	if !s.isServing(t, health, "") || !s.isServing(t, health, service) {
		t.Error("gRPC's health says NOT_SERVING")
	}

	m.AddReadiness("late", func(context.Context) error { panic("out of order") })
	eventually(t, "a check that comes late fails", func() bool { _, text := s.readyz(t); return text == "not ready: late" })
}

// TestSetServing, before the server serves and after.
func TestSetServing(t *testing.T) {
	const service = "grpc.testing.TestService"
	m, _ := newServer(t, false)
	m.SetServing(service, false)
	s := serve(t, m)
	health := healthpb.NewHealthClient(s.grpcClient(t))
	if s.isServing(t, health, service) || !s.isServing(t, health, "") {
		t.Error("not the service alone is off")
	}
	m.SetServing(service, true)
	m.SetServing("", false)
	if status, text := s.readyz(t); status != http.StatusServiceUnavailable || text != "not ready: switched off" {
		t.Errorf("switched off: %d %s", status, text)
	}
	if s.isServing(t, health, service) || s.isServing(t, health, "") {
		t.Error("gRPC's health says SERVING")
	}
	m.SetServing("", true)
	if status, _ := s.readyz(t); status != http.StatusOK || !s.isServing(t, health, service) {
		t.Errorf("switched on: %d", status)
	}
}

// otherHealth is a health service that is not grpc-go's.
type otherHealth struct{ healthpb.HealthServer }

// TestDrainTurnsAnyHealth: whichever health service is registered says NOT_SERVING when a
// drain begins.
func TestDrainTurnsAnyHealth(t *testing.T) {
	grpcs := health.NewServer()
	for name, impl := range map[string]healthpb.HealthServer{"grpc-go's": grpcs, "another": otherHealth{grpcs}} {
		t.Run(name, func(t *testing.T) {
			s := start(t, false, mux.Configure(patient), mux.WithGRPC(func(r mux.GRPCRegistrar) { healthpb.RegisterHealthServer(r, impl) }))
			watch, err := healthpb.NewHealthClient(s.grpcClient(t)).Watch(t.Context(), &healthpb.HealthCheckRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if resp, err := watch.Recv(); err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
				t.Fatalf("before: %v, %v", resp, err)
			}
			// The drain ends with the watch.
			_ = s.drain(context.Background())
			if resp, err := watch.Recv(); err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
				t.Errorf("in the drain: %v, %v", resp, err)
			}
		})
	}
}

// TestKeepReady: probes go on being told that the server is ready until the clients are told
// to leave.
func TestKeepReady(t *testing.T) {
	s := start(t, false, mux.Configure(patient), mux.WithGRPC(func(r mux.GRPCRegistrar) { healthpb.RegisterHealthServer(r, health.NewServer()) }))
	client := healthpb.NewHealthClient(s.grpcClient(t))
	ctx, leave := context.WithCancel(t.Context())
	watch, err := client.Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := watch.Recv(); err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("before: %v, %v", resp, err)
	}
	asked := make(chan struct{})
	if err := s.OnDrain(mux.StepDrainDelay, "ask", func(context.Context) error {
		defer close(asked)
		if status, text := s.readyz(t); status != http.StatusOK || s.Ready() != nil {
			t.Errorf("in the drain: %d %s, %v", status, text, s.Ready())
		}
		if !s.isServing(t, client, "") {
			t.Error("in the drain: gRPC's health says NOT_SERVING")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	s.KeepReady()
	drained := s.drain(t.Context())
	<-asked
	if resp, err := watch.Recv(); err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("when the client was told: %v, %v", resp, err)
	}
	leave()
	if result := <-drained; result.err != nil {
		t.Error(result.err)
	}
}

// TestGRPCAddsUp: every WithGRPC counts, each function is called once, and reloads that make
// other servers call none again.
func TestGRPCAddsUp(t *testing.T) {
	var made atomic.Int32
	s := start(t, false, // With the test service.
		mux.WithGRPC(func(r mux.GRPCRegistrar) {
			made.Add(1)
			healthpb.RegisterHealthServer(r, health.NewServer())
		}))
	eventually(t, "serving", func() bool { return s.Phase() == mux.PhaseServing })
	c := s.Config()
	c.GRPC.MaxRecvBytes++
	if _, err := s.Reload(c, "test"); err != nil {
		t.Fatal(err)
	}
	cc := s.grpcClient(t)
	if _, err := testpb.NewTestServiceClient(cc).UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
		t.Error(err)
	}
	if !s.isServing(t, healthpb.NewHealthClient(cc), "") {
		t.Error("the second service is not there")
	}
	if n := made.Load(); n != 1 {
		t.Errorf("made %d times", n)
	}
}
