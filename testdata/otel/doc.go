// Package otel shows the server with OpenTelemetry, through its ordinary options
// alone: otelhttp around the HTTP handler, and otelgrpc's stats handler among the
// gRPC options. It is a module of its own, so that an embedder who does not trace
// links none of it. The example is what there is to copy.
package otel
