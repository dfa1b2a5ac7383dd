package mux_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// lastingService is a service whose unary call goes on when its client has left.
type lastingService struct {
	testpb.UnimplementedTestServiceServer
	called  chan<- struct{}
	release <-chan struct{}
	ended   atomic.Bool
}

func (l *lastingService) UnaryCall(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	close(l.called)
	<-l.release
	l.ended.Store(true)
	return new(testpb.SimpleResponse), nil
}

// TestDrainWaitsForCalls: a drain waits for a gRPC handler whose client has left, as
// grpc-go's GracefulStop does, as long as it waits for connections.
func TestDrainWaitsForCalls(t *testing.T) {
	t.Parallel()
	for _, transport := range []protocols.GRPCTransport{protocols.TransportNative, protocols.TransportShared} {
		for name, patience := range map[string]time.Duration{"in time": time.Hour, "too long": 200 * time.Millisecond} {
			t.Run(string(transport)+" "+name, func(t *testing.T) {
				t.Parallel()
				called, release := make(chan struct{}), make(chan struct{})
				service := &lastingService{called: called, release: release}
				s := start(t, false, mux.Configure(func(c *mux.Config) {
					c.GRPC.Transport, c.Drain.Timeout = transport, patience
				}), mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, service) }))
				cc := s.grpcClient(t)
				go func() { _, _ = testpb.NewTestServiceClient(cc).UnaryCall(t.Context(), new(testpb.SimpleRequest)) }()
				within(t, "the handler", called)
				_ = cc.Close()
				eventually(t, "the client has left", func() bool { return len(s.Connections()) == 0 })
				told := s.told(t)
				var early atomic.Bool
				if err := s.OnDrain(mux.StepCleanup, "look", func(context.Context) error {
					early.Store(!service.ended.Load())
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				done := s.drain(t.Context())
				if patience < time.Hour {
					got := within(t, "the drain", done)
					if !errors.Is(got.err, context.DeadlineExceeded) {
						t.Errorf("drain: %v, want what it has waited for", got.err)
					}
					close(release)
					return
				}
				within(t, "the wait", told)
				close(release)
				if got := within(t, "the drain", done); got.err != nil || early.Load() {
					t.Errorf("drain: %v, it left the handler behind: %t", got.err, early.Load())
				}
			})
		}
	}
}
