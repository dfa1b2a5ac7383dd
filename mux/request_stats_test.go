package mux_test

import (
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// service waits for the end of the call's context and returns its error.
type service struct {
	testpb.UnimplementedTestServiceServer
	begun chan struct{}
}

func (s *service) UnaryCall(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	s.begun <- struct{}{}
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestCallCodes: a call counts under the code that the client got, on both transports.
func TestCallCodes(t *testing.T) {
	for _, transport := range []protocols.GRPCTransport{protocols.TransportNative, protocols.TransportShared} {
		t.Run(string(transport)+"/the client gives up", func(t *testing.T) {
			service := &service{begun: make(chan struct{}, 1)}
			s := start(t, false, mux.Configure(func(c *mux.Config) { c.GRPC.Transport = transport }),
				mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, service) }))
			ctx, cancel := context.WithCancel(t.Context())
			go func() { <-service.begun; cancel() }()
			_, err := testpb.NewTestServiceClient(s.grpcClient(t)).UnaryCall(ctx, &testpb.SimpleRequest{})
			if status.Code(err) != codes.Canceled {
				t.Fatal(err)
			}
			eventually(t, "counted", func() bool { return len(s.Stats().Codes["grpc"]) > 0 })
			if diff := cmp.Diff(map[int]uint64{int(codes.Canceled): 1}, s.Stats().Codes["grpc"]); diff != "" {
				t.Errorf("codes (-want +got):\n%s", diff)
			}
			if n := s.Stats().Requests["grpc"].Failed; n != 0 {
				t.Errorf("%d count as failed, want none", n)
			}
		})
	}
}

// TestRequestStats: requests, calls and WebSocket sessions count by path or method, with
// the code that the client got, and none stays in flight.
func TestRequestStats(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		for version := range 2 {
			c := s.client(t, version+1)
			for _, path := range []string{"/echo", "/echo", "/nowhere", "/panic"} {
				// This is a POST, because net/http's client retries a GET.
				resp, err := c.Post(s.scheme()+"://"+s.addr+path, "text/plain", nil)
				if path == "/panic" {
					if err == nil {
						t.Errorf("%s: %s", path, resp.Status)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		}
		native := testpb.NewTestServiceClient(s.grpcClient(t))
		for _, code := range []codes.Code{codes.OK, codes.NotFound, codes.Internal} {
			_, _ = native.UnaryCall(t.Context(), wantStatus(code, ""))
		}
		if got := grpcOverHTTP(t, s.client(t, 2), s.scheme()+"://"+s.addr); got != "0" {
			t.Errorf("shared call: %q", got)
		}
		ws := s.webSocket(t)
		eventually(t, "one session in flight", func() bool { return s.Stats().Requests["websocket"].InFlight == 1 })
		_ = ws.CloseNow()

		eventually(t, "nothing in flight", func() bool {
			for _, r := range s.Stats().Requests {
				if r.InFlight != 0 {
					return false
				}
			}
			return true
		})
		st := s.Stats()
		want := map[string]map[int]uint64{
			"http1":     {200: 2, 404: 1, 500: 1},
			"http2":     {200: 2, 404: 1, 500: 1},
			"grpc":      {0: 2, int(codes.NotFound): 1, int(codes.Internal): 1},
			"websocket": {101: 1},
		}
		if diff := cmp.Diff(want, st.Codes); diff != "" {
			t.Errorf("codes (-want +got):\n%s", diff)
		}
		if got := st.Requests["grpc"].ErrorRate; got != 0.25 {
			t.Errorf("error rate of gRPC %v, want 0.25", got)
		}
		if got := st.Health["grpc"].Status.String(); got != "healthy" {
			t.Errorf("health of gRPC %s", got)
		}
	}, mux.WithHandler(withPanic()), mux.WithGRPC(func(r mux.GRPCRegistrar) {
		testpb.RegisterTestServiceServer(r, &behaviour{cancelled: make(chan error, 1)})
	}))
}

func withPanic() http.Handler {
	m := http.NewServeMux()
	m.Handle("/", routes())
	m.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	return m
}
