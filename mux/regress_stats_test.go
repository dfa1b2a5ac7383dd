package mux_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// service waits for the end of the context, and says that that is why it ends.
type service struct {
	testpb.UnimplementedTestServiceServer
	begun chan struct{}
}

func (s *service) UnaryCall(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	if r.GetResponseSize() > 0 {
		return &testpb.SimpleResponse{Payload: &testpb.Payload{Body: make([]byte, r.GetResponseSize())}}, nil
	}
	s.begun <- struct{}{}
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestCallCodes: a call is booked with the code that the client got, on both transports.
func TestCallCodes(t *testing.T) {
	for _, transport := range []protocols.GRPCTransport{protocols.TransportNative, protocols.TransportShared} {
		setUp := func(t *testing.T) (*server, testpb.TestServiceClient, *service) {
			service := &service{begun: make(chan struct{}, 1)}
			s := start(t, false, mux.Configure(func(c *mux.Config) {
				c.GRPC.Transport = transport
				c.GRPC.MaxRecvBytes, c.GRPC.MaxSendBytes = 1000, 1000
			}), mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, service) }))
			return s, testpb.NewTestServiceClient(s.grpcClient(t)), service
		}
		check := func(t *testing.T, s *server, want codes.Code, failed uint64) {
			t.Helper()
			var got map[int]uint64
			deadline := time.Now().Add(2 * time.Second)
			for len(got) == 0 && time.Now().Before(deadline) {
				time.Sleep(10 * time.Millisecond)
				got = s.Stats().Codes["grpc"]
			}
			if diff := cmp.Diff(map[int]uint64{int(want): 1}, got); diff != "" {
				t.Errorf("codes (-want +got):\n%s", diff)
			}
			if n := s.Stats().Requests["grpc"].Failed; n != failed {
				t.Errorf("%d count as failed, want %d", n, failed)
			}
		}
		t.Run(string(transport)+"/the client gives up", func(t *testing.T) {
			s, client, service := setUp(t)
			ctx, cancel := context.WithCancel(t.Context())
			go func() { <-service.begun; cancel() }()
			_, err := client.UnaryCall(ctx, &testpb.SimpleRequest{})
			if status.Code(err) != codes.Canceled {
				t.Fatal(err)
			}
			check(t, s, codes.Canceled, 0)
		})
	}
}

// TestHijackedHandshakeCode: a WebSocket is one request with code 101, also where the handler writes the answer
// to the connection that it has taken over, as gorilla/websocket and httputil.ReverseProxy do.
func TestHijackedHandshakeCode(t *testing.T) {
	s := start(t, false, mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	})))
	conn := s.dial(t)
	_ = roundTrip(t, conn, bufio.NewReader(conn), handshake)
	eventually(t, "booked", func() bool { return len(s.Stats().Codes["websocket"]) > 0 })
	if diff := cmp.Diff(map[int]uint64{101: 1}, s.Stats().Codes["websocket"]); diff != "" {
		t.Errorf("codes (-want +got):\n%s", diff)
	}
}

// TestAbortedResponse: the code that is booked is the one that the client got, also where the handler breaks the response off.
func TestAbortedResponse(t *testing.T) {
	s := start(t, false, mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})))
	for version := 1; version <= 2; version++ {
		resp, err := s.client(t, version).Post("http://"+s.addr+"/", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusOK {
			t.Error(resp.Status)
		}
		_ = resp.Body.Close()
	}
	eventually(t, "booked", func() bool { c := s.Stats().Codes; return len(c["http1"]) > 0 && len(c["http2"]) > 0 })
	for _, p := range []string{"http1", "http2"} {
		if diff := cmp.Diff(map[int]uint64{200: 1}, s.Stats().Codes[p]); diff != "" {
			t.Errorf("%s: codes (-want +got):\n%s", p, diff)
		}
	}
}

// TestTimersAreObservable: each time that runs out is an event with its reason.
func TestTimersAreObservable(t *testing.T) {
	t.Parallel()
	short := mux.Configure(func(c *mux.Config) {
		c.HTTP2.IdleTimeout, c.GRPC.MaxIdle = 200*time.Millisecond, 200*time.Millisecond
		c.HTTP2.PingInterval, c.HTTP2.PingTimeout = 0, 0
	})
	t.Run("HTTP/2 idle", func(t *testing.T) {
		t.Parallel()
		s := start(t, false, short)
		events := observe(t, s.Server)
		resp, err := s.client(t, 2).Get("http://" + s.addr + "/echo")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		eventually(t, "closed", func() bool { return s.active("http2") == 0 })
		eventually(t, "the timeout is told", func() bool { return events.count(mux.EventTimeout, protocols.HTTP2, "idle_timeout") == 1 })
	})
	t.Run("gRPC idle", func(t *testing.T) {
		t.Parallel()
		s := start(t, false, short)
		events := observe(t, s.Server)
		if _, err := testpb.NewTestServiceClient(s.grpcClient(t)).UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "closed", func() bool { return s.active("grpc") == 0 })
		eventually(t, "the timeout is told", func() bool { return events.count(mux.EventTimeout, protocols.GRPC, "idle_timeout") == 1 })
	})
	t.Run("gRPC age", func(t *testing.T) {
		t.Parallel()
		s := start(t, false, mux.Configure(func(c *mux.Config) { c.GRPC.MaxAge, c.GRPC.MaxAgeGrace = 200*time.Millisecond, 100*time.Millisecond }))
		if _, err := testpb.NewTestServiceClient(s.grpcClient(t)).UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "closed", func() bool { return s.active("grpc") == 0 })
		if s.Stats().Closed["grpc"]["max_age"] == 0 {
			t.Errorf("closed %v", s.Stats().Closed)
		}
	})
	dead := mux.Configure(func(c *mux.Config) {
		c.HTTP2.PingInterval, c.HTTP2.PingTimeout = 200*time.Millisecond, 200*time.Millisecond
		c.GRPC.PingInterval, c.GRPC.PingTimeout = time.Second, 200*time.Millisecond
	})
	for _, p := range []protocols.Protocol{protocols.HTTP2, protocols.GRPC} {
		t.Run(string(p)+" ping", func(t *testing.T) {
			t.Parallel()
			s := start(t, false, dead)
			events := observe(t, s.Server)
			conn := s.dial(t)
			c := newH2Client(t, conn, conn)
			if p == protocols.GRPC {
				c.request(1, false, ":method", "POST", ":scheme", "http", ":authority", "x", ":path", "/grpc.testing.TestService/FullDuplexCall",
					"content-type", "application/grpc", "te", "trailers", "user-agent", "grpc-go/1.85.0")
			} else {
				c.get(1, "/echo")
			}
			eventually(t, "open", func() bool { return s.active(string(p)) == 1 })
			eventually(t, "closed", func() bool { return s.active(string(p)) == 0 })
			eventually(t, "the timeout is told", func() bool { return events.count(mux.EventTimeout, p, "ping_timeout") == 1 })
		})
	}
}
