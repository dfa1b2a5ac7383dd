package mux_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/keepalive"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

// plainGRPC serves the test service with grpc-go alone.
func plainGRPC(t *testing.T, options ...grpc.ServerOption) *server {
	t.Helper()
	return plainService(t, testService{}, options...)
}

// plainService serves an implementation of the test service with grpc-go alone.
func plainService(t *testing.T, service testpb.TestServiceServer, options ...grpc.ServerOption) *server {
	t.Helper()
	srv := grpc.NewServer(options...)
	testpb.RegisterTestServiceServer(srv, service)
	l := listen(t)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		<-served
	})
	return &server{addr: l.Addr().String()}
}

// echoes exchanges a message on a call.
func echoes(call grpc.BidiStreamingClient[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	if err := call.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
		return err
	}
	_, err := call.Recv()
	return err
}

// TestManyCancels: a client that cancels more calls in a minute than
// http2.max_resets_per_minute stays, and so do its other calls. grpc-go lets it.
func TestManyCancels(t *testing.T) {
	t.Parallel()
	const atOnce, calls = 100, 500
	client := func(t *testing.T, s *server, began func(grpc.BidiStreamingClient[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error) string {
		dials := 0
		cc, err := grpc.NewClient("passthrough:///"+s.addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				dials++
				return new(net.Dialer).DialContext(ctx, "tcp", addr)
			}))
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Close()
		service := testpb.NewTestServiceClient(cc)
		stays, err := service.FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range calls / (atOnce - 1) {
			ctx, cancel := context.WithCancel(t.Context())
			for range atOnce - 1 {
				call, err := service.FullDuplexCall(ctx)
				if err == nil {
					err = began(call)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if began(stays) == nil {
				time.Sleep(100 * time.Millisecond) // What is under test is time.
			}
			cancel()
		}
		if err := echoes(stays); err != nil {
			return err.Error()
		}
		if dials != 1 {
			return "the connection was given up"
		}
		return "all is well"
	}
	for name, began := range map[string]func(grpc.BidiStreamingClient[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error{
		"after an answer": echoes,
		"after a while": func(grpc.BidiStreamingClient[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
			return nil
		},
	} {
		for _, transport := range []protocols.GRPCTransport{protocols.TransportNative, protocols.TransportShared} {
			t.Run(name+", "+string(transport), func(t *testing.T) {
				t.Parallel()
				want := client(t, plainGRPC(t), began)
				s := start(t, false, mux.Configure(func(c *mux.Config) { c.GRPC.Transport = transport }))
				if got := client(t, s, began); got != want {
					t.Errorf("%s; behind grpc-go alone: %s", got, want)
				}
			})
		}
	}
}

// TestTooManyResets: a client that has too many streams broken off, by resets or by illegal
// frames, gets GOAWAY from net/http's, x/net's and grpc-go's connections. If the client goes on
// all the same, the connection ends before many more of its streams are served.
func TestTooManyResets(t *testing.T) {
	t.Parallel()
	breaks := map[string]func(c *h2Client, stream uint32) error{
		"resets": func(c *h2Client, stream uint32) error { return c.WriteRSTStream(stream, http2.ErrCodeCancel) },
		"WINDOW_UPDATE of 0": func(c *h2Client, stream uint32) error {
			return c.WriteRawFrame(http2.FrameWindowUpdate, 0, stream, make([]byte, 4))
		},
		"an exceeded window": func(c *h2Client, stream uint32) error { return c.WriteWindowUpdate(stream, 1<<31-1) },
	}
	for _, way := range []string{"HTTP/2", "upgraded", "native gRPC"} {
		for name, breakOff := range breaks {
			if way == "native gRPC" && name == "an exceeded window" {
				continue // grpc-go does not look, and resets nothing.
			}
			t.Run(way+", "+name, func(t *testing.T) {
				t.Parallel()
				s := start(t, false, mux.Configure(upgradesOn), mux.Configure(func(c *mux.Config) {
					c.HTTP2.MaxResetsPerMinute, c.HTTP2.MaxStreams, c.GRPC.MaxStreams = 20, 25, 25
				}))
				events := observe(t, s.Server)
				var account *pool.Conn
				first := uint32(1)
				conn := s.dial(t)
				r := bufio.NewReader(conn)
				var c *h2Client
				if way == "upgraded" {
					c, _ = upgradeConn(t, conn, r, "GET /echo HTTP/1.1\r\n"+upgradeFields+"\r\n")
					first = 3
				} else {
					c = newH2Client(t, conn, r)
				}
				fields := []string{":method", "GET", ":scheme", "http", ":authority", "x", ":path", "/slow"}
				if way == "native gRPC" {
					fields = []string{
						":method", "POST", ":scheme", "http", ":authority", "x", ":path", testpb.TestService_FullDuplexCall_FullMethodName,
						"content-type", "application/grpc", "te", "trailers", "user-agent", "grpc-go/1.85.0",
					}
				}
				reader := &h2Client{Framer: http2.NewFramer(io.Discard, r), t: t, streams: make(map[uint32]*h2Stream)}
				go func() {
					for stream := first; c.open(stream, false, fields...) == nil && breakOff(c, stream) == nil; stream += 2 {
						if stream%50 == 1 {
							time.Sleep(10 * time.Millisecond)
						}
					}
				}()
				eventually(t, "accepted", func() bool {
					if all := s.Accounts(); len(all) > 0 {
						account = all[0]
					}
					return account != nil
				})
				_, codes := reader.goAways(nil)
				if len(codes) == 0 || codes[0] != http2.ErrCodeNo {
					t.Errorf("GOAWAY %v; closed %v", codes, s.Stats().Closed)
				}
				eventually(t, "closed for it", func() bool {
					return events.count(mux.EventRemoved, protocols.HTTP2, "too_many_resets")+events.count(mux.EventRemoved, protocols.GRPC, "too_many_resets") == 1
				})
				// Some hundred frames may pass before the server has reset so many streams.
				if n := account.Requests(); n > 500 {
					t.Errorf("%d requests were served", n)
				}
			})
		}
	}
}

// TestStreamsBehindTooManyResets: what was in flight ends by itself, and then the
// connection does.
func TestStreamsBehindTooManyResets(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := start(t, false, mux.Configure(func(c *mux.Config) { c.HTTP2.MaxResetsPerMinute = 20 }),
		mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/whole" {
				<-release
				_, _ = io.WriteString(w, "whole")
				return
			}
			<-r.Context().Done()
		})))
	events := observe(t, s.Server)
	conn := s.dial(t)
	c := newH2Client(t, conn, conn)
	c.get(1, "/whole")
	const resets = 80 // Far more than the bound: on a busy machine some come too late to count.
	for stream := uint32(3); stream < 3+2*resets; stream += 2 {
		c.get(stream, "/")
		c.must(c.WriteRSTStream(stream, http2.ErrCodeCancel))
	}
	if code := c.goneAway(); code != http2.ErrCodeNo {
		t.Errorf("GOAWAY %v", code)
	}
	time.Sleep(2500 * time.Millisecond) // What is under test is time.
	close(release)
	if got := c.rest(1); got != "whole" {
		t.Errorf("%q", got)
	}
	_, _ = c.goAways(nil) // It reads on to the end, and answers the server's PING.
	eventually(t, "closed for it", func() bool { return events.count(mux.EventRemoved, protocols.HTTP2, "too_many_resets") == 1 })
}

// TestAgedCallMoves: a call that moves when its connection has reached its age is told by
// GOAWAY, and ends by itself. The clients of grpc-go alone see the same.
func TestAgedCallMoves(t *testing.T) {
	t.Parallel()
	const age = 200 * time.Millisecond
	client := func(t *testing.T, s *server) string {
		call, err := testpb.NewTestServiceClient(s.grpcClient(t)).FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for began := time.Now(); time.Since(began) < 8*age; time.Sleep(age / 10) {
			if err := echoes(call); err != nil {
				return err.Error()
			}
		}
		_ = call.CloseSend()
		if _, err := call.Recv(); err != io.EOF {
			return err.Error()
		}
		return "all is well"
	}
	want := client(t, plainGRPC(t, grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: age})))
	for _, transport := range []protocols.GRPCTransport{protocols.TransportNative, protocols.TransportShared} {
		t.Run(string(transport), func(t *testing.T) {
			t.Parallel()
			s := start(t, false, mux.Configure(func(c *mux.Config) {
				c.GRPC.Transport = transport
				c.GRPC.MaxAge, c.HTTP2.MaxAge = age, age
			}))
			events := observe(t, s.Server)
			if got := client(t, s); got != want {
				t.Errorf("%s; behind grpc-go alone: %s", got, want)
			}
			tag := map[protocols.GRPCTransport]protocols.Protocol{protocols.TransportNative: protocols.GRPC, protocols.TransportShared: protocols.HTTP2}[transport]
			eventually(t, "closed for its age", func() bool { return events.count(mux.EventRemoved, tag, "max_age") > 0 })
		})
	}
	defaults := mux.DefaultConfig()
	for _, grace := range []time.Duration{defaults.HTTP1.MaxAgeGrace, defaults.HTTP2.MaxAgeGrace, defaults.GRPC.MaxAgeGrace} {
		if grace != 0 {
			t.Errorf("a grace of %v by default", grace)
		}
	}
}

// TestAgedRequestIsReset: where a grace is set, the client can tell the end of it from the
// end of the response.
func TestAgedRequestIsReset(t *testing.T) {
	t.Parallel()
	bothForms(t, func(t *testing.T, s *server) {
		conn := s.dial(t, "http/1.1")
		send(t, conn, "GET / HTTP/1.0\r\n\r\n")
		if got, err := io.ReadAll(conn); err == nil || !strings.HasSuffix(string(got), "half") {
			t.Errorf("%q, %v", got, err)
		}
	}, aged(50*time.Millisecond, 200*time.Millisecond), mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})))
}
