package otel_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
)

// One tracer provider for the four protocols. A request is traced by the HTTP
// handler that it reaches, and a call by grpc-go, whichever transport it came on;
// neither sees the other's, so each leaves one span.
func Example() {
	spans := tracetest.NewInMemoryExporter() // Where a service has the exporter of its collector.
	provider := trace.NewTracerProvider(trace.WithSyncer(spans))

	routes := http.NewServeMux()
	routes.HandleFunc("GET /hello/{name}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "hello", r.PathValue("name"))
	})
	// WebSockets are traced where they are mounted in the handler; the span lasts as long as the WebSocket.
	routes.Handle("GET /ws", mux.WebSocket(echo))

	s := mux.New(
		mux.Configure(func(c *mux.Config) { c.Drain.Delay = 0 }),
		mux.WithHandler(otelhttp.NewHandler(routes, "server",
			otelhttp.WithTracerProvider(provider),
			otelhttp.WithPropagators(propagation.TraceContext{}))),
		mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, service{}) },
			grpc.StatsHandler(otelgrpc.NewServerHandler(
				otelgrpc.WithTracerProvider(provider),
				otelgrpc.WithPropagators(propagation.TraceContext{})))),
	)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = s.Serve(l) }()
	visit(l.Addr().String())
	if err := s.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
	for _, span := range spans.GetSpans() {
		fmt.Println(span.SpanContext.TraceID(), span.SpanKind, span.Name)
	}
	// Output:
	// hello Ada
	// 4bf92f3577b34da6a3ce929d0e0e4736 server GET /hello/{name}
	// 4bf92f3577b34da6a3ce929d0e0e4736 server grpc.testing.TestService/EmptyCall
}

// visit is the example's client. It makes a request and a call, both in a trace of its own.
func visit(addr string) {
	req, err := http.NewRequest(http.MethodGet, "http://"+addr+"/hello/Ada", nil)
	if err != nil {
		log.Fatal(err)
	}
	req.Header.Set("Traceparent", traceparent)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		log.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	fmt.Print(string(body))

	cc, err := newGRPCClient(addr)
	if err != nil {
		log.Fatal(err)
	}
	_, err = testpb.NewTestServiceClient(cc).EmptyCall(inTrace(context.Background()), &testpb.Empty{})
	_ = cc.Close()
	if err != nil {
		log.Fatal(err)
	}
}
