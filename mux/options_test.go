package mux_test

import (
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/muxserve/muxserve/mux"
)

// TestNoOptions: mux.New without options serves.
func TestNoOptions(t *testing.T) {
	s := serve(t, mux.New(mux.Configure(noDelay)))
	resp, err := s.client(t, 1).Get("http://" + s.addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("GET /: %s, want 404", resp.Status)
	}
	_, err = testpb.NewTestServiceClient(s.grpcClient(t)).UnaryCall(t.Context(), &testpb.SimpleRequest{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("call: %v, want UNIMPLEMENTED", err)
	}
	h, err := healthpb.NewHealthClient(s.grpcClient(t)).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || h.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", h, err)
	}
	_, wsResp, err := websocket.Dial(t.Context(), "ws://"+s.addr+"/", nil)
	if err == nil || wsResp == nil || wsResp.StatusCode != http.StatusNotFound {
		t.Errorf("WebSocket handshake: %v", err)
	}
}

// TestGRPCOptionAgainstSettings: clients get the configuration's SETTINGS before the
// server of their connection is known. A gRPC option that contradicts them is an error at
// the start, which names the key.
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
			// A server that accepts the option serves until it is closed.
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

// TestGRPCSettingsByConfig: the configuration sets what the gRPC options must not.
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

// TestNilOptions: options accept nil as their documentation says.
func TestNilOptions(t *testing.T) {
	s := serve(t, mux.New(mux.Configure(noDelay),
		mux.WithLogger(nil), mux.WithHandler(nil), mux.WithTLS(nil), mux.WithGRPC(nil), mux.WithWebSocket(nil)))
	if got := s.status(t, "/nowhere"); got != http.StatusNotFound {
		t.Errorf("HTTP: %d, want 404", got)
	}
	if got := s.status(t, "/livez"); got != http.StatusOK {
		t.Errorf("/livez: %d", got)
	}
	_, err := testpb.NewTestServiceClient(s.grpcClient(t)).UnaryCall(t.Context(), &testpb.SimpleRequest{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("gRPC: %v", err)
	}
	ws, resp, err := websocket.Dial(t.Context(), "ws://"+s.addr+"/", nil)
	if err == nil {
		_ = ws.CloseNow()
	}
	if err == nil || resp == nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("WebSocket: %v", err)
	}
}

// TestInvalidConfig: the error names every fault at once.
func TestInvalidConfig(t *testing.T) {
	err := mux.New(mux.Configure(func(c *mux.Config) {
		c.HTTP2.MaxStreams = 0
		c.GRPC.Transport = "carrier pigeon"
		c.Drain.Delay = -1
	})).ListenAndServe()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"http2.max_streams", "grpc.transport", "drain.delay"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
}
