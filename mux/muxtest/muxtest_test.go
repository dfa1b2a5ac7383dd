package muxtest_test

import (
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/coder/websocket"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/mux/muxtest"
)

type service struct {
	testpb.UnimplementedTestServiceServer
}

func (service) UnaryCall(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{Username: "gRPC"}, nil
}

// TestServer speaks all four protocols, with and without TLS.
func TestServer(t *testing.T) {
	routes := http.NewServeMux()
	routes.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })
	routes.Handle("/ws", mux.WebSocket(func(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
		return c.Write(ctx, websocket.MessageText, []byte("WebSocket"))
	}))
	for name, start := range map[string]func(testing.TB, ...mux.Option) *muxtest.Server{"plaintext": muxtest.New, "TLS": muxtest.NewTLS} {
		t.Run(name, func(t *testing.T) {
			s := start(t,
				mux.WithAddress("192.0.2.1:1"), // Has no effect.
				mux.WithHandler(routes),
				mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, service{}) }))
			if s.Phase() != mux.PhaseServing {
				t.Errorf("the server is %s", s.Phase())
			}
			for want, client := range map[string]*http.Client{"HTTP/1.1": s.Client(), "HTTP/2.0": s.HTTP2Client()} {
				resp, err := client.Get(s.URL)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(resp.Body); err != nil || string(got) != want {
					t.Errorf("%s: %q, %v", want, got, err)
				}
				_ = resp.Body.Close()
			}
			resp, err := testpb.NewTestServiceClient(s.GRPC()).UnaryCall(t.Context(), &testpb.SimpleRequest{})
			if err != nil || resp.GetUsername() != "gRPC" {
				t.Errorf("%v, %v", resp, err)
			}
			if _, got, err := s.WebSocket("/ws", nil).Read(t.Context()); err != nil || string(got) != "WebSocket" {
				t.Errorf("%q, %v", got, err)
			}
			if c := s.Config(); c.Drain.Delay != 0 || c.Drain.Spread != 0 {
				t.Errorf("a drain waits: %+v", c.Drain)
			}
		})
	}
}
