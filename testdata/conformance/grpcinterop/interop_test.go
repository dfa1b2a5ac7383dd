package grpcinterop

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/orca"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/testdata/conformance/internal/served"
)

// caseTimeout ends a case that hangs; all of them together take a few seconds.
const caseTimeout = 30 * time.Second

// reportsMetrics selects the interop package's balancing policy, by which orca_per_rpc sees a call's report.
const reportsMetrics = `{"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}`

func TestInterop(t *testing.T) {
	for _, transport := range []struct {
		transport protocols.GRPCTransport
		served    protocols.Protocol // what a connection of grpc-go's is recognised as
	}{
		{protocols.TransportAuto, protocols.GRPC},
		{protocols.TransportNative, protocols.GRPC},
		{protocols.TransportShared, protocols.HTTP2},
	} {
		for _, form := range served.Forms {
			t.Run(string(transport.transport)+"/"+form.Name, func(t *testing.T) {
				var seen protocolsSeen
				s := served.Mux(t, form.TLS,
					mux.Configure(func(c *mux.Config) { c.GRPC.Transport = transport.transport }),
					mux.WithGRPC(func(r mux.GRPCRegistrar) { testgrpc.RegisterTestServiceServer(r, interop.NewTestServer()) },
						grpc.ChainUnaryInterceptor(seen.unary), grpc.ChainStreamInterceptor(seen.stream),
						orca.CallMetricsServerOption(nil)))
				runCases(t, s)
				if diff := cmp.Diff(map[string]bool{string(transport.served): true}, seen.protocols); diff != "" {
					t.Errorf("the calls' connections were served as (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// runCases runs every case on a connection of its own, as the interop client does.
func runCases(t *testing.T, s served.Server) {
	t.Helper()
	dial := func(t *testing.T) *grpc.ClientConn { return dial(t, s) }
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			running.Store(t)
			defer running.Store(nil)
			ctx, cancel := context.WithTimeout(t.Context(), caseTimeout)
			defer cancel()
			conn := dial(t)
			c.run(ctx, t, client{dial: dial, conn: conn, TestServiceClient: testgrpc.NewTestServiceClient(conn)})
		})
	}
}

func dial(t *testing.T, s served.Server) *grpc.ClientConn {
	t.Helper()
	creds := insecure.NewCredentials()
	if s.Roots != nil {
		creds = credentials.NewClientTLSFromCert(s.Roots, "")
	}
	conn, err := grpc.NewClient(s.Addr, grpc.WithTransportCredentials(creds), grpc.WithDefaultServiceConfig(reportsMetrics))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// protocolsSeen records what the connections of the calls were recognised as.
type protocolsSeen struct {
	mu        sync.Mutex
	protocols map[string]bool // Guarded by mu.
}

func (s *protocolsSeen) add(ctx context.Context) {
	info, ok := mux.ConnOf(ctx)
	if !ok {
		return // The client of a cancelled call can be gone by now.
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.protocols == nil {
		s.protocols = make(map[string]bool)
	}
	s.protocols[info.Protocol] = true
}

func (s *protocolsSeen) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
	s.add(ctx)
	return h(ctx, req)
}

func (s *protocolsSeen) stream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
	s.add(stream.Context())
	return h(srv, stream)
}
