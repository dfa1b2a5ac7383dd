package transparency_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

// traced is a program below OpenTelemetry's wrappers. What it has seen are its spans.
func traced() program {
	spans := tracetest.NewInMemoryExporter()
	provider := trace.NewTracerProvider(trace.WithSyncer(spans))
	p := netGRPC()
	p.handler = otelhttp.NewHandler(netHTTP().handler, "server", otelhttp.WithTracerProvider(provider), otelhttp.WithPropagators(propagation.TraceContext{}))
	p.options = []grpc.ServerOption{grpc.StatsHandler(otelgrpc.NewServerHandler(otelgrpc.WithTracerProvider(provider), otelgrpc.WithPropagators(propagation.TraceContext{})))}
	p.seen = func() string {
		var lines []string
		for _, s := range spans.GetSpans() {
			var attributes []string
			for _, a := range s.Attributes {
				value := a.Value.Emit()
				if strings.HasSuffix(string(a.Key), ".port") {
					value = "PORT"
				}
				attributes = append(attributes, string(a.Key)+"="+value)
			}
			slices.Sort(attributes)
			text := fmt.Sprint(s.Name, s.SpanKind, s.Status, s.Parent.TraceID(), s.Parent.IsRemote(), attributes)
			for _, e := range s.Events {
				text += fmt.Sprint(e.Name, e.Attributes)
			}
			lines = append(lines, text)
		}
		slices.Sort(lines)
		spans.Reset()
		return strings.Join(lines, "\n")
	}
	return p
}

// TestTraces: the spans of requests and calls.
func TestTraces(t *testing.T) {
	t.Parallel()
	parent := "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	scenarios := make(map[string]scenario)
	for name, do := range map[string]scenario{
		"GET":        get("/mirror"),
		"POST":       request("POST", "/mirror", "hello"),
		"traced":     get("/mirror", field("Traceparent", parent)),
		"404":        get("/none"),
		"stream":     get("/stream"),
		"panic":      get("/panic"),
		"download":   get("/large?n=100000"),
		"unary":      over(unary("", &testpb.SimpleRequest{})),
		"in a trace": over(with(unary("", &testpb.SimpleRequest{}), "traceparent", parent)),
		"error":      over(unary("details", &testpb.SimpleRequest{})),
		"output":     over(output(nil, 1, 2)),
		"duplex":     over(duplex),
	} {
		scenarios[name] = withNote(do) // A span may end after the client has its answer.
	}
	for version := 1; version <= 2; version++ {
		t.Run(fmt.Sprintf("HTTP%d", version), func(t *testing.T) { alikeEach(t, traced, version, scenarios) })
	}
}
