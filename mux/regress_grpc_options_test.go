package mux_test

import (
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
)

// TestGRPCOptionAgainstSettings: clients are told the configuration's SETTINGS before
// it is known which server they get, so a gRPC option that goes against them is an
// error at the start that names the key.
func TestGRPCOptionAgainstSettings(t *testing.T) {
	for _, tt := range []struct {
		name   string
		option grpc.ServerOption
		want   string
	}{
		{"InitialWindowSize", grpc.InitialWindowSize(1 << 20), "http2.stream_window"},
		{"StaticStreamWindowSize", grpc.StaticStreamWindowSize(1 << 20), "http2.stream_window"},
		{"MaxConcurrentStreams", grpc.MaxConcurrentStreams(2), "http2.max_streams"},
		{"MaxHeaderListSize", grpc.MaxHeaderListSize(1 << 10), "http2.max_header_list_bytes"},
		{"HeaderTableSize", grpc.HeaderTableSize(0), "HEADER_TABLE_SIZE"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := listen(t)
			m := mux.New(mux.WithLogger(discard), mux.WithGRPC(nil, tt.option))
			served := make(chan error, 1)
			go func() { served <- m.Serve(l) }()
			// A server that takes the option serves until it is closed.
			defer m.Close()
			err := within(t, "Serve", served)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Serve: %v, want %s named", err, tt.want)
			}
			if conn, err := net.Dial("tcp", l.Addr().String()); err == nil {
				_ = conn.Close()
				t.Error("the listener is still open")
			}
		})
	}
}

// TestGRPCSettingsByConfig: what the options must not say, the configuration may.
func TestGRPCSettingsByConfig(t *testing.T) {
	const window = 1 << 20
	s := start(t, false,
		mux.Configure(func(c *mux.Config) {
			c.HTTP2.StreamWindow, c.HTTP2.ConnectionWindow = window, window
			c.HTTP2.MaxStreams = 2
		}),
		mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, testService{}) },
			grpc.MaxConcurrentStreams(1000))) // To allow more than was told is harmless.
	resp, err := testpb.NewTestServiceClient(s.grpcClient(t)).UnaryCall(t.Context(), &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 2*window)}})
	if err != nil || resp.GetUsername() != "grpc" {
		t.Errorf("call: %q, %v", resp.GetUsername(), err)
	}
}
