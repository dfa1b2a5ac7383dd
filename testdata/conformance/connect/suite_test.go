package connect

import "testing"

// TestHandlers has calls of Connect, gRPC and gRPC-Web served by connect-go, over HTTP/1.1
// and HTTP/2, in plaintext, over TLS, and with client certificates.
func TestHandlers(t *testing.T) {
	if *long {
		compare(t, "handlers.yaml", 10756, "connect", "connect-muxed")
		return
	}
	compare(t, "handlers-short.yaml", 3820, "connect", "connect-muxed")
}

// TestGRPC has calls served by grpc-go.
func TestGRPC(t *testing.T) {
	compare(t, "grpc.yaml", 374, "grpc", "grpc-muxed", "grpc-muxed-shared")
}

// TestGRPCWeb has calls of gRPC-Web served by a wrapper around grpc-go's server.
func TestGRPCWeb(t *testing.T) {
	compare(t, "grpc-web.yaml", 343, "grpc", "grpc-muxed", "grpc-muxed-shared")
}
