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
	handler          http.Handler // nil: none
	webSocketHandler http.Handler
	registerGRPC     func(GRPCRegistrar)
	grpcOptions      []grpc.ServerOption
	tlsConfig        *tls.Config
	healthPaths      bool
	listen           func(context.Context, string) (net.Listener, error)
}

func defaultOptions() options {
	return options{initial: DefaultConfig(), healthPaths: true, listen: listeners.Listen}
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

// WithHandler sets the handler of HTTP requests that are not health probes. A gRPC call
// goes to it as well, as an HTTP/2 request, if its service is not registered by [WithGRPC]:
// so a Connect handler, a transcoder or a reverse proxy for gRPC may stand there. If the
// handler answers such a call with 404, 405 or 501 and not in gRPC's words, the call is
// answered UNIMPLEMENTED. Default, and for nil: 404 for everything.
func WithHandler(h http.Handler) Option {
	return func(o *options) {
		if h != nil {
			o.handler = h
		}
	}
}

// WithGRPC sets the function that registers the gRPC services, and further options for
// grpc-go. The function is called once for each of two servers: one serves native
// connections, the other serves calls that share a connection with HTTP/2 requests. It
// must register the same services each time. A reload that needs new servers calls it
// again.
//
// The service grpc.health.v1.Health is added unless the function registers one. Transport
// credentials have no effect: TLS is the listener's. Options win over the configuration.
// Those for windows and limits of HTTP/2 hold on native connections. A call to a service
// that is not registered goes to the handler of [WithHandler]; without one, and by default,
// calls are answered UNIMPLEMENTED.
func WithGRPC(register func(GRPCRegistrar), opts ...grpc.ServerOption) Option {
	return func(o *options) { o.registerGRPC, o.grpcOptions = register, opts }
}

// WithWebSocket sets a handler for WebSocket handshakes on every path. To serve
// WebSockets on some paths only, mount [WebSocket] in the HTTP handler
// instead. Default: handshakes are requests like any other.
func WithWebSocket(h WebSocketHandler, opts ...WebSocketOption) Option {
	return func(o *options) {
		if h != nil {
			o.webSocketHandler = WebSocket(h, opts...)
		}
	}
}

// WithTLS makes every connection that [Server.Serve] accepts start with a TLS handshake,
// and connections of ListenAndServe where the listener's configuration has no TLS. If c
// names no protocols, ALPN offers h2 and http/1.1.
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

// WithLogger sets where the server logs. What a client causes is logged at Debug.
// Default: [slog.Default].
func WithLogger(l *slog.Logger) Option {
	return func(o *options) { o.logger = l }
}

// WithoutHealthPaths leaves /livez and /readyz to the HTTP handler. By default
// the server answers them itself.
func WithoutHealthPaths() Option {
	return func(o *options) { o.healthPaths = false }
}

// WithListen sets the function that opens the sockets of the configured listeners, by
// address. It is for sockets that the process was passed, by a service manager or by its
// predecessor. Default: [listeners.Listen].
func WithListen(listen func(ctx context.Context, address string) (net.Listener, error)) Option {
	return func(o *options) {
		if listen != nil {
			o.listen = listen
		}
	}
}
