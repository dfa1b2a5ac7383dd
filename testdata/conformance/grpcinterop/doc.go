// Package grpcinterop runs the cases of grpc-go's interop client against its
// interop service behind a mux server, over both gRPC transports.
package grpcinterop
