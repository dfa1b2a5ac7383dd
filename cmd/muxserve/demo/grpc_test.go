package demo

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
)

// echoClient returns a client of the demo's services on a grpc-go server in memory.
func echoClient(t *testing.T) demov1.EchoClient {
	t.Helper()
	const bufferBytes = 64 << 10
	l := bufconn.Listen(bufferBytes)
	server := grpc.NewServer()
	RegisterGRPC(server)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///memory",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return demov1.NewEchoClient(conn)
}

func TestUnary(t *testing.T) {
	t.Parallel()
	got, err := echoClient(t).Unary(t.Context(), &demov1.EchoRequest{Message: "hello", Delay: durationpb.New(time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&demov1.EchoResponse{Message: "hello", Sequence: 1}, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestServerStream(t *testing.T) {
	t.Parallel()
	stream, err := echoClient(t).ServerStream(t.Context(), &demov1.EchoRequest{
		Message: "m", Repeat: 3, Interval: durationpb.New(time.Millisecond),
	})
	if err != nil {
		t.Fatal(err)
	}
	for want := uint64(1); want <= 3; want++ {
		got, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&demov1.EchoResponse{Message: "m", Sequence: want}, got, protocmp.Transform()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if got, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last: %v, %v", got, err)
	}
}

func TestClientStream(t *testing.T) {
	t.Parallel()
	stream, err := echoClient(t).ClientStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []string{"a", "b", "c"} {
		if err := stream.Send(&demov1.EchoRequest{Message: m}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := stream.CloseAndRecv()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&demov1.EchoResponse{Message: "c", Sequence: 3}, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBidiStream(t *testing.T) {
	t.Parallel()
	stream, err := echoClient(t).BidiStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sequence := uint64(0)
	for _, repeat := range []uint32{0, 2, 1} {
		if err := stream.Send(&demov1.EchoRequest{Message: "m", Repeat: repeat}); err != nil {
			t.Fatal(err)
		}
		for range max(repeat, 1) {
			sequence++
			got, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&demov1.EchoResponse{Message: "m", Sequence: sequence}, got, protocmp.Transform()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if got, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last: %v, %v", got, err)
	}
}

func TestRefusedRequests(t *testing.T) {
	t.Parallel()
	client := echoClient(t)
	tests := map[string]*demov1.EchoRequest{
		"negative delay":       {Delay: durationpb.New(-time.Second)},
		"delay too long":       {Delay: durationpb.New(maxWait + 1)},
		"interval too long":    {Interval: durationpb.New(time.Hour)},
		"delay that is none":   {Delay: &durationpb.Duration{Seconds: 1, Nanos: -1}},
		"too many repetitions": {Repeat: maxRepeat + 1},
	}
	for name, req := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := client.Unary(t.Context(), req); status.Code(err) != codes.InvalidArgument {
				t.Errorf("unary: %v", err)
			}
			stream, err := client.ServerStream(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
				t.Errorf("stream: %v", err)
			}
		})
	}
}

func TestCallEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := echoClient(t).Unary(ctx, &demov1.EchoRequest{Delay: durationpb.New(maxWait)})
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("error %v", err)
	}
}
