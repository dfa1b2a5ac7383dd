package mux_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// behaviour is a service whose calls behave as their request's status asks.
type behaviour struct {
	testService
	begun     chan struct{} // a call that waits for its context has begun
	cancelled chan error
}

func (b *behaviour) UnaryCall(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	_ = grpc.SetHeader(ctx, metadata.Pairs("echo-header", strings.Join(md["x-test"], ",")))
	_ = grpc.SetTrailer(ctx, metadata.Pairs("echo-bin", strings.Join(md["x-value-bin"], ",")))
	switch s := r.GetResponseStatus(); codes.Code(s.GetCode()) {
	case codes.OK:
		return b.testService.UnaryCall(ctx, r)
	case codes.DeadlineExceeded, codes.Canceled:
		b.begun <- struct{}{}
		<-ctx.Done()
		b.cancelled <- ctx.Err()
		return nil, status.FromContextError(ctx.Err()).Err()
	default:
		return nil, status.Error(codes.Code(s.GetCode()), s.GetMessage())
	}
}

func wantStatus(code codes.Code, message string) *testpb.SimpleRequest {
	return &testpb.SimpleRequest{ResponseStatus: &testpb.EchoStatus{Code: int32(code), Message: message}}
}

// TestTransports runs one suite against both transports, which must look the same to a
// caller.
func TestTransports(t *testing.T) {
	t.Parallel()
	for transport, pool := range map[protocols.GRPCTransport]string{
		protocols.TransportNative: "grpc",
		protocols.TransportAuto:   "grpc",
		protocols.TransportShared: "http2",
	} {
		t.Run(string(transport), func(t *testing.T) {
			b := &behaviour{begun: make(chan struct{}, 1), cancelled: make(chan error, 1)}
			bothForms(t, func(t *testing.T, s *server) {
				c := testpb.NewTestServiceClient(s.grpcClient(t))
				for name, f := range transportSuite {
					t.Run(name, func(t *testing.T) { f(t, c, b) })
				}
				if got := s.Stats().Pools[pool].Accepted; got != 1 {
					t.Errorf("pool %s took %d connections, want 1", pool, got)
				}
			},
				mux.Configure(func(c *mux.Config) { c.GRPC.Transport = transport }),
				mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, b) }))
		})
	}
}

var transportSuite = map[string]func(*testing.T, testpb.TestServiceClient, *behaviour){
	"streams": func(t *testing.T, c testpb.TestServiceClient, _ *behaviour) { streams(t.Context(), t, c) },
	"large unary": func(t *testing.T, c testpb.TestServiceClient, _ *behaviour) {
		want := payload(strings.Repeat("x", 1<<20))
		got, err := c.UnaryCall(t.Context(), &testpb.SimpleRequest{Payload: want})
		if err != nil || !bytes.Equal(got.GetPayload().GetBody(), want.GetBody()) {
			t.Errorf("1 MiB: %d bytes, %v", len(got.GetPayload().GetBody()), err)
		}
	},
	"message too large": func(t *testing.T, c testpb.TestServiceClient, _ *behaviour) {
		_, err := c.UnaryCall(t.Context(), &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 5<<20)}})
		if status.Code(err) != codes.ResourceExhausted {
			t.Errorf("5 MiB: %v", err)
		}
	},
	"trailers only": func(t *testing.T, c testpb.TestServiceClient, _ *behaviour) {
		const message = "special \t\n\r ☺ message"
		_, err := c.UnaryCall(t.Context(), wantStatus(codes.FailedPrecondition, message))
		if s := status.Convert(err); s.Code() != codes.FailedPrecondition || s.Message() != message {
			t.Errorf("status %v %q", s.Code(), s.Message())
		}
	},
	"unknown method": func(t *testing.T, c testpb.TestServiceClient, _ *behaviour) {
		if _, err := c.UnimplementedCall(t.Context(), &testpb.Empty{}); status.Code(err) != codes.Unimplemented {
			t.Errorf("status %v", err)
		}
	},
	"deadline": func(t *testing.T, c testpb.TestServiceClient, b *behaviour) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // The handler has to begin before.
		defer cancel()
		if _, err := c.UnaryCall(ctx, wantStatus(codes.DeadlineExceeded, "")); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("status %v", err)
		}
		within(t, "the handler", b.begun)
		if err := within(t, "the end of its context", b.cancelled); err == nil {
			t.Error("the handler's context did not end")
		}
	},
	"cancellation": func(t *testing.T, c testpb.TestServiceClient, b *behaviour) {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-b.begun
			cancel()
		}()
		if _, err := c.UnaryCall(ctx, wantStatus(codes.Canceled, "")); status.Code(err) != codes.Canceled {
			t.Errorf("status %v", err)
		}
		if err := within(t, "the end of its context", b.cancelled); !errors.Is(err, context.Canceled) {
			t.Errorf("the handler's context ended with %v", err)
		}
	},
	"compression": func(t *testing.T, c testpb.TestServiceClient, _ *behaviour) {
		got, err := c.UnaryCall(t.Context(), &testpb.SimpleRequest{Payload: payload("zip")}, grpc.UseCompressor(gzip.Name))
		if err != nil || string(got.GetPayload().GetBody()) != "zip" {
			t.Errorf("got %v, %v", got, err)
		}
	},
	"metadata": func(t *testing.T, c testpb.TestServiceClient, _ *behaviour) {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-test", "one", "x-test", "two", "x-value-bin", "\x00\xff")
		var header, trailer metadata.MD
		if _, err := c.UnaryCall(ctx, &testpb.SimpleRequest{}, grpc.Header(&header), grpc.Trailer(&trailer)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"one,two"}, header["echo-header"]); diff != "" {
			t.Errorf("header (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"\x00\xff"}, trailer["echo-bin"]); diff != "" {
			t.Errorf("trailer (-want +got):\n%s", diff)
		}
	},
	"client ends in the middle": func(t *testing.T, c testpb.TestServiceClient, _ *behaviour) {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := c.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := stream.Recv(); err == io.EOF || status.Code(err) != codes.Canceled {
			t.Errorf("status %v", err)
		}
	},
}
