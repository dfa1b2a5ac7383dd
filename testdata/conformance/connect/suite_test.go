package connect

import "testing"

// TestHandlers has calls of Connect, gRPC and gRPC-Web served by connect-go, over HTTP/1.1
// and HTTP/2, in plaintext, over TLS, and with client certificates.
func TestHandlers(t *testing.T) {
	if *long {
		compare(t, "handlers.yaml", 10756, nil, "connect", "connect-muxed")
		return
	}
	compare(t, "handlers-short.yaml", 3820, nil, "connect", "connect-muxed")
}

// TestGRPC has calls served by grpc-go.
func TestGRPC(t *testing.T) {
	compare(t, "grpc.yaml", 374, withoutStatus, "grpc", "grpc-muxed", "grpc-muxed-shared")
}

// TestGRPCWeb has calls of gRPC-Web served by a wrapper around grpc-go's server.
func TestGRPCWeb(t *testing.T) {
	compare(t, "grpc-web.yaml", 343, nil, "grpc", "grpc-muxed", "grpc-muxed-shared")
}

// withoutStatus are calls that fail before the first message, from a client of net/http, so
// that grpc-go's ServeHTTP serves them. The suite's client reads the error, but misses
// grpc-status where it looks for it in the answer. Now and then some of those with a deadline
// pass. The fault is open.
var withoutStatus = []string{
	"Timeouts/HTTPVersion:2/Protocol:PROTOCOL_GRPC/Codec:CODEC_PROTO/Compression:COMPRESSION_GZIP/TLS:false/client-stream",
	"Timeouts/HTTPVersion:2/Protocol:PROTOCOL_GRPC/Codec:CODEC_PROTO/Compression:COMPRESSION_GZIP/TLS:false/server-stream",
	"Timeouts/HTTPVersion:2/Protocol:PROTOCOL_GRPC/Codec:CODEC_PROTO/Compression:COMPRESSION_GZIP/TLS:false/unary",
	"Timeouts/HTTPVersion:2/Protocol:PROTOCOL_GRPC/Codec:CODEC_PROTO/Compression:COMPRESSION_IDENTITY/TLS:false/client-stream",
	"Timeouts/HTTPVersion:2/Protocol:PROTOCOL_GRPC/Codec:CODEC_PROTO/Compression:COMPRESSION_IDENTITY/TLS:false/server-stream",
	"Timeouts/HTTPVersion:2/Protocol:PROTOCOL_GRPC/Codec:CODEC_PROTO/Compression:COMPRESSION_IDENTITY/TLS:false/unary",
	"gRPC Unexpected Requests/HTTPVersion:2/TLS:false/unexpected-codec",
}
