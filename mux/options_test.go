package mux_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/muxserve/muxserve/mux"
)

// TestWithAddress: it sets the first listener's, also where the configuration has none.
func TestWithAddress(t *testing.T) {
	for name, option := range map[string]mux.Option{
		"default":     mux.Configure(func(*mux.Config) {}),
		"no listener": mux.Configure(func(c *mux.Config) { c.Listeners = nil }),
		"two": mux.Configure(func(c *mux.Config) {
			c.Listeners = append(c.Listeners, mux.ListenerConfig{Address: "127.0.0.1:0"})
		}),
	} {
		m := mux.New(option, mux.WithAddress("127.0.0.2:0"), mux.WithLogger(discard))
		if err := m.Listen(); err != nil {
			t.Fatal(err)
		}
		if got, _, _ := strings.Cut(m.Addrs()[0].String(), ":"); got != "127.0.0.2" {
			t.Errorf("%s: %v", name, m.Addrs())
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

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
