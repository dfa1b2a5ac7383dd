package mux_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/soheilhy/cmux"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

// The programs of COMING_FROM.md. Each serves on l until ctx ends.

func beforeNetHTTP(ctx context.Context, l net.Listener) error {
	s := &http.Server{Handler: routes()}
	context.AfterFunc(ctx, func() { _ = s.Shutdown(context.Background()) })
	return s.Serve(l) // Returns when the shutdown begins.
}

func afterNetHTTP(ctx context.Context, l net.Listener) error {
	s := mux.New(mux.WithHandler(routes()), mux.Configure(direct))
	context.AfterFunc(ctx, func() { _ = s.Shutdown(context.Background()) })
	return s.Serve(l) // Returns when the drain is over.
}

// direct is for a server that clients reach without a balancer: its drain has no delay and
// no spread.
func direct(c *mux.Config) { c.Drain, _ = lifecycle.Profile("none") }

func beforeGRPC(ctx context.Context, l net.Listener) error {
	s := grpc.NewServer(grpc.MaxRecvMsgSize(1 << 20))
	testpb.RegisterTestServiceServer(s, testService{})
	context.AfterFunc(ctx, s.GracefulStop)
	return s.Serve(l)
}

func afterGRPC(ctx context.Context, l net.Listener) error {
	s := mux.New(
		mux.WithGRPC(func(r mux.GRPCRegistrar) {
			testpb.RegisterTestServiceServer(r, testService{})
		}, grpc.MaxRecvMsgSize(1<<20)),
		mux.Configure(direct),
	)
	context.AfterFunc(ctx, func() { _ = s.Shutdown(context.Background()) })
	return s.Serve(l)
}

func beforeCmux(ctx context.Context, l net.Listener) error {
	m := cmux.New(l)
	calls := m.MatchWithWriters(cmux.HTTP2MatchHeaderFieldSendSettings("content-type", "application/grpc"))
	requests := m.Match(cmux.HTTP1Fast())
	g, h := grpc.NewServer(), &http.Server{Handler: routes()}
	testpb.RegisterTestServiceServer(g, testService{})
	go func() { _ = g.Serve(calls) }()
	go func() { _ = h.Serve(requests) }()
	context.AfterFunc(ctx, func() {
		g.GracefulStop()
		_ = h.Shutdown(context.Background())
		m.Close()
	})
	return m.Serve()
}

func afterCmux(ctx context.Context, l net.Listener) error {
	s := mux.New(
		mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, testService{}) }),
		mux.WithHandler(routes()),
		mux.Configure(direct),
	)
	context.AfterFunc(ctx, func() { _ = s.Shutdown(context.Background()) })
	return s.Serve(l)
}

func beforeServeHTTP(ctx context.Context, l net.Listener) error {
	calls, requests := grpc.NewServer(), routes()
	testpb.RegisterTestServiceServer(calls, testService{})
	both := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			calls.ServeHTTP(w, r)
		} else {
			requests.ServeHTTP(w, r)
		}
	})
	s := &http.Server{Handler: h2c.NewHandler(both, &http2.Server{})}
	context.AfterFunc(ctx, func() { _ = s.Shutdown(context.Background()) })
	return s.Serve(l)
}

// afterServeHTTP is afterCmux: the handler no longer chooses.
func afterServeHTTP(ctx context.Context, l net.Listener) error {
	return afterCmux(ctx, l)
}

func afterKoattyServe(ctx context.Context, l net.Listener) error {
	s := mux.New(mux.WithHandler(routes()), mux.Configure(func(c *mux.Config) {
		c.Drain, _ = lifecycle.Profile("none")
		c.Limits.MaxConnections = 1000              // connectionPool.maxConnections
		c.HTTP1.IdleTimeout = 5 * time.Second       // connectionPool.keepAliveTimeout
		c.HTTP1.HeaderTimeout = 10 * time.Second    // connectionPool.headersTimeout
		c.HTTP1.RequestTimeout = 30 * time.Second   // connectionPool.requestTimeout
		c.WebSocket.PingInterval = 30 * time.Second // pingInterval
		c.WebSocket.PongTimeout = 5 * time.Second   // pongTimeout
		c.Drain.Timeout = 30 * time.Second          // gracefulShutdown: timeout
	}))
	context.AfterFunc(ctx, func() { _ = s.Shutdown(context.Background()) })
	return s.Serve(l)
}

// TestComingFrom: what stands in COMING_FROM.md as "before" and as "after" answers the same
// clients, and answers what is under way when it is told to stop.
func TestComingFrom(t *testing.T) {
	both := [2]func(*testing.T, string){postHello, callUnary}
	for _, tt := range []struct {
		name   string
		serve  func(context.Context, net.Listener) error
		visits []func(*testing.T, string)
	}{
		{"net/http, before", beforeNetHTTP, both[:1]},
		{"net/http, after", afterNetHTTP, both[:1]},
		{"grpc.Server, before", beforeGRPC, both[1:]},
		{"grpc.Server, after", afterGRPC, both[1:]},
		{"cmux, before", beforeCmux, both[:]},
		{"cmux, after", afterCmux, both[:]},
		{"ServeHTTP, before", beforeServeHTTP, both[:]},
		{"ServeHTTP, after", afterServeHTTP, both[:]},
		{"koatty_serve, after", afterKoattyServe, both[:1]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := listen(t)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			served := make(chan error, 1)
			go func() { served <- tt.serve(ctx, l) }()
			for _, visit := range tt.visits {
				visit(t, l.Addr().String())
			}
			stop()
			if err := within(t, "the server's end", served); err != nil && !isEnd(err) {
				t.Errorf("served: %v", err)
			}
		})
	}
}

// isEnd reports whether the error is what a server returns that was shut down.
func isEnd(err error) bool {
	return errors.Is(err, http.ErrServerClosed) || errors.Is(err, grpc.ErrServerStopped) || errors.Is(err, net.ErrClosed)
}

// postHello makes a request of HTTP/1.1.
func postHello(t *testing.T, addr string) {
	t.Helper()
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Post("http://"+addr+"/echo", "text/plain", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "hello" {
		t.Errorf("%s, %q, %v", resp.Status, body, err)
	}
}

// callUnary makes a gRPC call.
func callUnary(t *testing.T, addr string) {
	t.Helper()
	cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	body := []byte("hello")
	resp, err := testpb.NewTestServiceClient(cc).UnaryCall(t.Context(), &testpb.SimpleRequest{Payload: &testpb.Payload{Body: body}})
	if err != nil || !bytes.Equal(resp.GetPayload().GetBody(), body) {
		t.Errorf("%v, %v", resp, err)
	}
}
