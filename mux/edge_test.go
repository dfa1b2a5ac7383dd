package mux_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
)

// TestDefaults: the bounds are net/http's and grpc-go's, where those have one.
func TestDefaults(t *testing.T) {
	c := mux.DefaultConfig()
	got := map[string]any{
		"connections of a protocol": [4]int{c.HTTP1.MaxConnections, c.HTTP2.MaxConnections, c.GRPC.MaxConnections, c.WebSocket.MaxConnections},
		"streams":                   [2]uint32{c.HTTP2.MaxStreams, c.GRPC.MaxStreams},
		"HTTP/2 windows":            [2]int32{c.HTTP2.StreamWindow, c.HTTP2.ConnectionWindow},
		"gRPC windows":              [2]int32{c.GRPC.StreamWindow, c.GRPC.ConnectionWindow},
		"gRPC messages":             [2]int{c.GRPC.MaxRecvBytes, c.GRPC.MaxSendBytes},
		"gRPC age":                  [2]time.Duration{c.GRPC.MaxAge, c.GRPC.MaxAgeGrace},
		"HTTP age":                  [4]time.Duration{c.HTTP1.MaxAge, c.HTTP1.MaxAgeGrace, c.HTTP2.MaxAge, c.HTTP2.MaxAgeGrace},
		"header bytes":              [2]int64{int64(c.HTTP1.MaxHeaderBytes), int64(c.HTTP2.MaxHeaderListBytes)},
	}
	want := map[string]any{
		"connections of a protocol": [4]int{}, // No bound.
		"streams":                   [2]uint32{250, 250},
		"HTTP/2 windows":            [2]int32{1 << 20, 4 << 20},
		"gRPC windows":              [2]int32{}, // grpc-go's estimate.
		"gRPC messages":             [2]int{4 << 20, 0},
		"gRPC age":                  [2]time.Duration{30 * time.Minute, 0},
		"HTTP age":                  [4]time.Duration{},
		"header bytes":              [2]int64{64 << 10, 64 << 10},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if c.Limits.MaxConnections < 1 {
		t.Errorf("all connections: %d", c.Limits.MaxConnections)
	}
}

// TestEdge: the strict bounds are valid, and only they differ from the defaults.
func TestEdge(t *testing.T) {
	c := mux.DefaultConfig()
	mux.Edge(&c)
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	m := mux.New()
	changes, err := m.Plan(c)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, change := range changes {
		got[change.Path] = change.New
	}
	want := map[string]string{
		"http1.max_connections": "1000", "http2.max_connections": "1000", "grpc.max_connections": "1000", "websocket.max_connections": "1000",
		"http1.max_header_bytes": "32768", "http2.max_header_list_bytes": "32768",
		"http2.max_streams": "100", "grpc.max_streams": "100",
		"http2.stream_window": "65535", "http2.connection_window": "1048576",
		"grpc.stream_window": "65535", "grpc.connection_window": "1048576",
		"grpc.max_send_bytes": "4194304",
		"http1.max_age_grace": "30s", "http2.max_age_grace": "30s", "grpc.max_age_grace": "30s",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what Edge changes (-want +got):\n%s", diff)
	}
}

// TestGRPCSendIsUnbounded: as in grpc-go, a message of any length is sent.
func TestGRPCSendIsUnbounded(t *testing.T) {
	const size = 5 << 20 // More than grpc-go's bound of what is received.
	for name, tt := range map[string]struct {
		option mux.Option
		fails  bool
	}{"default": {mux.Configure(func(*mux.Config) {}), false}, "edge": {mux.Configure(mux.Edge), true}} {
		s := start(t, false, tt.option, mux.Configure(func(c *mux.Config) { c.GRPC.MaxRecvBytes = 0 }))
		cc := s.grpcClient(t, grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(2*size)))
		stream, err := testpb.NewTestServiceClient(cc).FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&testpb.StreamingOutputCallRequest{Payload: &testpb.Payload{Body: make([]byte, size)}}); err != nil {
			t.Fatal(err)
		}
		got, err := stream.Recv()
		if (err != nil) != tt.fails {
			t.Errorf("%s: %d bytes, %v", name, len(got.GetPayload().GetBody()), err)
		}
	}
}
