package mux

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"

	"google.golang.org/grpc"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/websocket"
)

// Option is one thing that [New] is told.
type Option func(*options)

// options are what options set. They do not change once [New] returns.
type options struct {
	initial          Config // in force at the start
	logger           *slog.Logger
	accessLog        *slog.Logger // nil: none
	handler          http.Handler
	webSocketHandler http.Handler
	registerGRPC     func(GRPCRegistrar)
	grpcOptions      []grpc.ServerOption
	tlsConfig        *tls.Config
	healthPaths      bool
	listen           func(context.Context, string) (net.Listener, error)
}

func defaultOptions() options {
	return options{initial: DefaultConfig(), handler: http.NotFoundHandler(), healthPaths: true, listen: listeners.Listen}
}

// GRPCRegistrar is what gRPC services are registered with. It is enough for
// generated code and for reflection.Register.
type GRPCRegistrar = protocols.GRPCRegistrar

// WebSocketHandler serves one WebSocket; see [websocket.Handler] for
// its context and for how the connection is closed.
type WebSocketHandler = websocket.Handler

// Configure edits the server's configuration, which starts as [DefaultConfig]:
//
//	mux.Configure(func(c *mux.Config) { c.Drain.Delay = 0 })
//
// A field that is not touched keeps its default, and a zero that is written is a zero.
func Configure(edit func(*Config)) Option {
	return func(o *options) { edit(&o.initial) }
}

// WithHandler sets the handler of HTTP requests that are neither gRPC nor a
// health probe. Default, and for nil: 404 for everything.
func WithHandler(h http.Handler) Option {
	return func(o *options) {
		if h != nil {
			o.handler = h
		}
	}
}

// WithGRPC sets the function that registers the gRPC services, and further
// options for grpc-go. The function is called twice, because two servers stand
// behind it: one for native connections and one for calls on connections that they
// share with other HTTP/2 requests. It must register the same services both times.
//
// The service grpc.health.v1.Health is added unless the function registers one.
// Transport credentials among the options have no effect: TLS is the listener's.
// What clients are told in SETTINGS is the configuration's, so an option that
// changes a window or lowers a limit there is an error at the start, which names the key to set instead.
// Default: no service; calls are answered UNIMPLEMENTED.
func WithGRPC(register func(GRPCRegistrar), opts ...grpc.ServerOption) Option {
	return func(o *options) { o.registerGRPC, o.grpcOptions = register, opts }
}

// WithWebSocket sets a handler for WebSocket handshakes on every path. To serve
// WebSockets on some paths only, mount [WebSocket] in the HTTP handler
// instead. Default: handshakes are requests like any other.
func WithWebSocket(h WebSocketHandler) Option {
	return func(o *options) {
		if h != nil {
			o.webSocketHandler = WebSocket(h)
		}
	}
}

// WithTLS makes every connection that [Server.Serve] accepts start with a TLS
// handshake, and ListenAndServe likewise for listeners whose configuration does not say how. Where
// the configuration names no protocols, h2 and http/1.1 are offered by ALPN.
func WithTLS(c *tls.Config) Option {
	return func(o *options) {
		if c == nil {
			return
		}
		c = c.Clone()
		if len(c.NextProtos) == 0 {
			c.NextProtos = []string{"h2", "http/1.1"}
		}
		o.tlsConfig = c
	}
}

// WithLogger sets where the server logs. What a peer causes stands at Debug.
// Default: [slog.Default].
func WithLogger(l *slog.Logger) Option {
	return func(o *options) { o.logger = l }
}

// WithoutHealthPaths leaves /livez and /readyz to the HTTP handler. By default
// the server answers them itself.
func WithoutHealthPaths() Option {
	return func(o *options) { o.healthPaths = false }
}

// WithListen sets what opens the sockets of the configured listeners, by their address: for sockets that
// the process was given by a service manager or by its predecessor. Default: [listeners.Listen].
func WithListen(listen func(ctx context.Context, address string) (net.Listener, error)) Option {
	return func(o *options) {
		if listen != nil {
			o.listen = listen
		}
	}
}
