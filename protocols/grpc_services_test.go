package protocols

import (
	"maps"
	"net"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
)

// own is a health service that is not grpc-go's.
type own struct {
	healthpb.HealthServer
}

// healthClient returns a client of the services' native server.
func healthClient(t *testing.T, services *GRPCServices) healthpb.HealthClient {
	t.Helper()
	s, err := NewGRPCServers(DefaultGRPCConfig(), DefaultHTTP2Config(), services)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Native.Serve(l)
	t.Cleanup(s.Stop)
	cc, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return healthpb.NewHealthClient(cc)
}

// TestReadinessStandsAboveHealth, whoever implements it, for calls and for open watches.
func TestReadinessStandsAboveHealth(t *testing.T) {
	const (
		serving    = healthpb.HealthCheckResponse_SERVING
		notServing = healthpb.HealthCheckResponse_NOT_SERVING
		unknown    = healthpb.HealthCheckResponse_SERVICE_UNKNOWN
	)
	grpcs := health.NewServer()
	grpcs.SetServingStatus("a", serving)
	grpcs.SetServingStatus("b", serving)
	for name, register := range map[string]func(GRPCRegistrar){
		"grpc-go's":   func(r GRPCRegistrar) { healthpb.RegisterHealthServer(r, grpcs) },
		"another":     func(r GRPCRegistrar) { healthpb.RegisterHealthServer(r, own{grpcs}) },
		"the default": func(r GRPCRegistrar) { add(r, "a"); add(r, "b") },
	} {
		t.Run(name, func(t *testing.T) {
			services := NewGRPCServices(nil, register)
			client := healthClient(t, services)
			watches := make(map[string]grpc.ServerStreamingClient[healthpb.HealthCheckResponse])
			for _, service := range []string{"", "a", "b", "nobody's"} {
				w, err := client.Watch(t.Context(), &healthpb.HealthCheckRequest{Service: service})
				if err != nil {
					t.Fatal(err)
				}
				watches[service] = w
			}
			next := func(service string, want healthpb.HealthCheckResponse_ServingStatus) {
				t.Helper()
				if resp, err := watches[service].Recv(); err != nil || resp.GetStatus() != want {
					t.Errorf("watch of %q: %v, %v, want %v", service, resp, err, want)
				}
			}
			is := func(want map[string]healthpb.HealthCheckResponse_ServingStatus) {
				t.Helper()
				got := make(map[string]healthpb.HealthCheckResponse_ServingStatus)
				for service := range want {
					resp, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
					if err != nil {
						t.Fatal(err)
					}
					got[service] = resp.GetStatus()
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("Check (-want +got):\n%s", diff)
				}
				list, err := client.List(t.Context(), &healthpb.HealthListRequest{})
				if err != nil {
					t.Fatal(err)
				}
				for service, status := range want {
					if got := list.GetStatuses()[service].GetStatus(); got != status {
						t.Errorf("List: %q is %v, want %v", service, got, status)
					}
				}
			}
			next("", serving)
			next("a", serving)
			next("b", serving)
			next("nobody's", unknown)
			is(map[string]healthpb.HealthCheckResponse_ServingStatus{"": serving, "a": serving, "b": serving})
			services.SetServing("a", false)
			next("a", notServing)
			is(map[string]healthpb.HealthCheckResponse_ServingStatus{"": serving, "a": notServing, "b": serving})
			services.SetReady(false)
			next("", notServing)
			next("b", notServing)
			is(map[string]healthpb.HealthCheckResponse_ServingStatus{"": notServing, "a": notServing, "b": notServing})
			services.SetServing("a", true)
			services.SetReady(true)
			next("", serving)
			next("a", serving)
			next("b", serving)
			is(map[string]healthpb.HealthCheckResponse_ServingStatus{"": serving, "a": serving, "b": serving})
			if name == "the default" {
				return
			}
			grpcs.SetServingStatus("b", notServing) // The implementation still has its say.
			next("b", notServing)
			grpcs.SetServingStatus("b", serving)
			next("b", serving)
			if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "nobody's"}); err == nil {
				t.Error("Check knows nobody's service")
			}
		})
	}
}

// add registers a service without methods.
func add(r GRPCRegistrar, name string) {
	r.RegisterService(&grpc.ServiceDesc{ServiceName: name, HandlerType: (*any)(nil)}, struct{}{})
}

// TestServicesAreMadeOnce and are on all servers.
func TestServicesAreMadeOnce(t *testing.T) {
	made := 0
	var late GRPCRegistrar
	services := NewGRPCServices(func(r GRPCRegistrar) {
		made++
		late = r
		add(r, "a")
		reflection.Register(r)
	})
	for range 2 {
		s, err := NewGRPCServers(DefaultGRPCConfig(), DefaultHTTP2Config(), services)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Stop()
		names := func(r GRPCRegistrar) []string { return slices.Sorted(maps.Keys(r.GetServiceInfo())) }
		if !s.Serves("/a/m") || !s.Serves("/grpc.reflection.v1.ServerReflection/m") {
			t.Error("a service is not known")
		}
		for i, srv := range s.all() {
			if diff := cmp.Diff(names(services), names(srv)); diff != "" {
				t.Errorf("server %d (-want +got):\n%s", i, diff)
			}
		}
	}
	if made != 1 {
		t.Errorf("made %d times", made)
	}
	defer func() {
		if recover() == nil {
			t.Error("a late registration is taken")
		}
	}()
	add(late, "b")
}
