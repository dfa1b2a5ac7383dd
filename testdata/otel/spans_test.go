package otel_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// server is a traced server under test.
type server struct {
	*mux.Server
	addr  string
	spans *tracetest.InMemoryExporter
}

// start serves the handlers of this package with tracing on a loopback port, until the end of the test.
func start(t *testing.T, transport protocols.GRPCTransport) *server {
	t.Helper()
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	routes := http.NewServeMux()
	routes.HandleFunc("GET /hello", hello)
	routes.Handle("GET /ws", mux.WebSocket(echo))
	m := mux.New(
		mux.Configure(func(c *mux.Config) {
			c.Drain.Delay = 0
			c.Drain.Spread = 0
			c.GRPC.Transport = transport
		}),
		mux.WithLogger(slog.New(slog.DiscardHandler)),
		mux.WithHandler(otelhttp.NewHandler(routes, "server",
			otelhttp.WithTracerProvider(provider), otelhttp.WithPropagators(propagation.TraceContext{}))),
		mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, service{}) },
			grpc.StatsHandler(otelgrpc.NewServerHandler(
				otelgrpc.WithTracerProvider(provider), otelgrpc.WithPropagators(propagation.TraceContext{})))),
	)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- m.Serve(l) }()
	t.Cleanup(func() {
		_ = m.Close()
		if err := <-served; !errors.Is(err, mux.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	return &server{m, l.Addr().String(), spans}
}

// client returns an HTTP client that speaks version 1 or 2 and nothing else.
func (*server) client(t *testing.T, version int) *http.Client {
	t.Helper()
	p := new(http.Protocols)
	p.SetHTTP1(version == 1)
	p.SetUnencryptedHTTP2(version == 2)
	tr := &http.Transport{Protocols: p}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// get makes a request in the client's trace and returns what the handler has seen.
func (s *server) get(t *testing.T, c *http.Client) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.addr+"/hello", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Traceparent", traceparent)
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("status %s, %v", resp.Status, err)
	}
	return string(body)
}

// unary makes a call with grpc-go.
func (s *server) unary(t *testing.T) string {
	t.Helper()
	resp, err := testpb.NewTestServiceClient(s.dial(t)).UnaryCall(inTrace(t.Context()), &testpb.SimpleRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetUsername()
}

// duplex makes a call of two messages each way.
func (s *server) duplex(t *testing.T) string {
	t.Helper()
	call, err := testpb.NewTestServiceClient(s.dial(t)).FullDuplexCall(inTrace(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	var last string
	for range 2 {
		if err := call.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
			t.Fatal(err)
		}
		answer, err := call.Recv()
		if err != nil {
			t.Fatal(err)
		}
		last = string(answer.GetPayload().GetBody())
	}
	if err := call.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := call.Recv(); !errors.Is(err, io.EOF) {
		t.Fatalf("the end of the call: %v", err)
	}
	return last
}

func (s *server) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	cc, err := newGRPCClient(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// mixed makes a call on a connection that has had an ordinary request first, as
// a proxy does.
func (s *server) mixed(t *testing.T) string {
	t.Helper()
	c := s.client(t, 2)
	s.get(t, c)
	const prefix = 5 // Each message has one, of zeros where it is empty.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		"http://"+s.addr+testpb.TestService_UnaryCall_FullMethodName, bytes.NewReader(make([]byte, prefix)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	req.Header.Set("Traceparent", traceparent)
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	message, err := io.ReadAll(resp.Body)
	if err != nil || resp.Trailer.Get("Grpc-Status") != "0" || len(message) < prefix {
		t.Fatalf("message %q, %v, trailers %v", message, err, resp.Trailer)
	}
	var answer testpb.SimpleResponse
	if err := proto.Unmarshal(message[prefix:], &answer); err != nil {
		t.Fatal(err)
	}
	if got := s.Stats().Pools["http2"].Accepted; got != 1 {
		t.Errorf("%d HTTP/2 connections, want 1", got)
	}
	return answer.GetUsername()
}

// webSocket opens a WebSocket, has one message echoed, and closes it.
func (s *server) webSocket(t *testing.T) string {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), "ws://"+s.addr+"/ws", &websocket.DialOptions{
		HTTPClient: s.client(t, 1),
		HTTPHeader: http.Header{"Traceparent": {traceparent}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	_, first, err := c.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Write(t.Context(), websocket.MessageText, []byte("again")); err != nil {
		t.Fatal(err)
	}
	if _, again, err := c.Read(t.Context()); err != nil || string(again) != "again" {
		t.Fatalf("echo %q, %v", again, err)
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Fatal(err)
	}
	return string(first)
}

// TestSpans: each request, call and WebSocket leaves one span of the server, the
// child of the client's, and its handler runs in that trace.
func TestSpans(t *testing.T) {
	const (
		unary  = "grpc.testing.TestService/UnaryCall"
		duplex = "grpc.testing.TestService/FullDuplexCall"
	)
	auto, shared := protocols.TransportAuto, protocols.TransportShared
	get := func(version int) func(*server, *testing.T) string {
		return func(s *server, t *testing.T) string { //nolint:thelper // Its form is that of a method expression.
			t.Helper()
			return s.get(t, s.client(t, version))
		}
	}
	tests := []struct {
		name      string
		transport protocols.GRPCTransport
		visit     func(*server, *testing.T) (seen string)
		pool      string
		want      []string
	}{
		{"HTTP/1.1", auto, get(1), "http1", []string{"GET /hello"}},
		{"HTTP/2", auto, get(2), "http2", []string{"GET /hello"}},
		{"native call", auto, (*server).unary, "grpc", []string{unary}},
		{"native stream", auto, (*server).duplex, "grpc", []string{duplex}},
		{"shared call", shared, (*server).unary, "http2", []string{unary}},
		{"shared stream", shared, (*server).duplex, "http2", []string{duplex}},
		{"call after a request", auto, (*server).mixed, "http2", []string{"GET /hello", unary}},
		{"WebSocket", auto, (*server).webSocket, "websocket", []string{"GET /ws"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := start(t, tt.transport)
			if got, want := tt.visit(s, t), tt.pool+" "+clientTrace; got != want {
				t.Errorf("the handler saw %q, want %q", got, want)
			}
			// A span ends after the client has its answer, but before the drain does.
			if err := s.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, span := range s.spans.GetSpans() {
				names = append(names, span.Name)
				if span.SpanKind != trace.SpanKindServer {
					t.Errorf("%s: a span of kind %s", span.Name, span.SpanKind)
				}
				if got := span.SpanContext.TraceID().String(); got != clientTrace {
					t.Errorf("%s: trace %s, want %s", span.Name, got, clientTrace)
				}
				if got := span.Parent.SpanID().String(); got != clientSpan || !span.Parent.IsRemote() {
					t.Errorf("%s: parent %s, want the client's %s", span.Name, got, clientSpan)
				}
			}
			if diff := cmp.Diff(tt.want, names); diff != "" {
				t.Errorf("spans (-want +got):\n%s", diff)
			}
		})
	}
}
