package otel_test

import (
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/coder/websocket"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/muxserve/muxserve/mux"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The trace that the clients are in, and the field that says so (W3C Trace
// Context, section 3.2): version, trace, the client's span, and "sampled".
const (
	clientTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	clientSpan  = "00f067aa0ba902b7"
	traceparent = "00-" + clientTrace + "-" + clientSpan + "-01"
)

// inTrace returns the context of a call in the client's trace.
func inTrace(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "traceparent", traceparent)
}

func newGRPCClient(addr string) (*grpc.ClientConn, error) {
	return grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// seen is what a handler says of itself: the pool that its connection is in, and the trace that it runs in.
func seen(ctx context.Context) string {
	info, _ := mux.ConnOf(ctx)
	return info.Protocol + " " + trace.SpanContextFromContext(ctx).TraceID().String()
}

// hello is an HTTP handler.
func hello(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, seen(r.Context())) }

// echo is a WebSocket handler: it says what it sees, and then what it is told.
func echo(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
	if err := c.Write(ctx, websocket.MessageText, []byte(seen(ctx))); err != nil {
		return err
	}
	for {
		typ, message, err := c.Read(ctx)
		if err != nil {
			return err
		}
		if err := c.Write(ctx, typ, message); err != nil {
			return err
		}
	}
}

// service is a gRPC service.
type service struct {
	testpb.UnimplementedTestServiceServer
}

func (service) EmptyCall(context.Context, *testpb.Empty) (*testpb.Empty, error) {
	return &testpb.Empty{}, nil
}

func (service) UnaryCall(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{Username: seen(ctx)}, nil
}

func (service) FullDuplexCall(s grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	for {
		if _, err := s.Recv(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := s.Send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: []byte(seen(s.Context()))}}); err != nil {
			return err
		}
	}
}
