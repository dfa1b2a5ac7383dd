package protocols

// Protocol names what a connection speaks. Its values are the tags of the
// pools and the labels of the metrics.
type Protocol string

// The protocols that a connection can be recognised as.
const (
	HTTP1     Protocol = "http1"     // HTTP/1.0 or HTTP/1.1 (RFC 9112).
	HTTP2     Protocol = "http2"     // HTTP/2 for the shared server (RFC 9113).
	GRPC      Protocol = "grpc"      // HTTP/2 whose first stream is a gRPC client's.
	WebSocket Protocol = "websocket" // HTTP/1.1 whose first request asks for it (RFC 6455).
	TLS       Protocol = "tls"       // A TLS record that holds a handshake (RFC 8446).
)

// GRPCTransport says which server gets the gRPC connections. The empty value
// means [TransportAuto].
type GRPCTransport string

// The gRPC transports.
const (
	// TransportAuto gives a connection to the native gRPC server where its first
	// stream comes from a gRPC client itself, and to the shared HTTP/2 server
	// where a proxy may mix gRPC and other requests on it.
	TransportAuto GRPCTransport = "auto"
	// TransportNative decides by the first stream's content type alone.
	TransportNative GRPCTransport = "native"
	// TransportShared gives every HTTP/2 connection to the shared server. The
	// preface decides, and the sniffer never writes.
	TransportShared GRPCTransport = "shared"
)
