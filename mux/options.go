package mux

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"

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
	registerGRPC     []func(GRPCRegistrar)
	grpcOptions      []grpc.ServerOption
	tlsConfig        *tls.Config
	healthPaths      bool
	contexts         contexts
	listen           func(context.Context, string) (net.Listener, error)
}

func defaultOptions() options {
	return options{initial: DefaultConfig(), healthPaths: true, listen: new(listeners.Sockets).Listen}
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

// WithAddress sets the address of the first listener of the configuration: "host:port" or
// "unix:PATH". Default: [DefaultAddress].
func WithAddress(address string) Option {
	return Configure(func(c *Config) {
		if len(c.Listeners) == 0 {
			c.Listeners = DefaultConfig().Listeners
		}
		c.Listeners[0].Address = address
	})
}

// WithHandler sets the handler of HTTP requests that are not health probes. A gRPC call
// goes to it as well, as an HTTP/2 request, if its service is not registered by [WithGRPC]:
// so a Connect handler, a transcoder or a reverse proxy for gRPC may stand there. If the
// handler answers such a call with 404, 405 or 501 and not in gRPC's words, the call is
// answered UNIMPLEMENTED. Default, and for nil: 404 for everything.
//
// What the handler hijacks is a connection of the mux, and not a *net.TCPConn or *tls.Conn.
// Its method NetConn leads to the *tls.Conn, if there is one, and on to the socket. It has
// SyscallConn, CloseWrite, ReadFrom, WriteTo and, on a socket without TLS, File. [ConnOf]
// describes it, and [Conn.Draining] ends when it is to leave.
func WithHandler(h http.Handler) Option {
	return func(o *options) {
		if h != nil {
			o.handler = h
		}
	}
}

// WithGRPC adds a function that registers gRPC services, and further options for grpc-go. It
// may be given several times. Each function is called once, at the start of the server. Two
// servers of grpc-go have what it registers: one serves native connections, the other serves
// calls that share a connection with HTTP/2 requests. Code that asks for a *grpc.Server gets
// the first by [Server.ServerOf].
//
// The service grpc.health.v1.Health is added unless a function registers one; either says
// NOT_SERVING while the server does not want traffic (see [Server.AddReadiness]). Options win
// over the configuration. Those for windows and limits of HTTP/2 hold on native connections.
// The server does not start with one that cannot take effect: grpc.Creds, because [WithTLS]
// or the listener sets TLS; grpc.InTapHandle; with grpc.transport: shared, those of
// grpc-go's transport. A call to a service that is not registered goes to the handler of
// [WithHandler]; without one, and by default, calls are answered UNIMPLEMENTED.
//
// Where calls and requests share a connection, grpc.ChainStreamInterceptor is better than
// grpc.StreamInterceptor: it costs less, and grpc.SetSendCompressor works in it.
func WithGRPC(register func(GRPCRegistrar), opts ...grpc.ServerOption) Option {
	return func(o *options) {
		o.registerGRPC = append(o.registerGRPC, register)
		o.grpcOptions = append(o.grpcOptions, opts...)
	}
}

// WithWebSocket sets a [WebSocketHandler] for handshakes on every path. To serve
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
// names neither h2 nor http/1.1 for ALPN, both are added. c needs a certificate, or a
// function that gets one, or the server does not start. Nil has no effect.
func WithTLS(c *tls.Config) Option {
	return func(o *options) {
		if c == nil {
			return
		}
		own := c.Clone() // An option may be given to several servers.
		if !slices.Contains(own.NextProtos, alpnHTTP2) && !slices.Contains(own.NextProtos, alpnHTTP1) {
			own.NextProtos = slices.Concat(own.NextProtos, []string{alpnHTTP2, alpnHTTP1})
		}
		o.tlsConfig = own
	}
}

// check returns what keeps a server with these options from starting.
func (o *options) check() error {
	err := o.initial.Validate()
	if c := o.tlsConfig; c != nil && len(c.Certificates) == 0 && c.GetCertificate == nil && c.GetConfigForClient == nil {
		err = errors.Join(err, errors.New("mux: WithTLS: no certificate; set Certificates, GetCertificate or GetConfigForClient"))
	}
	return err
}

// WithBaseContext sets the function that returns the context from which the contexts of the
// requests on a listener derive, as [http.Server] has it. It is called once for each socket,
// in the goroutine that accepts from it, and may call the server but for what ends it.
// Contexts of gRPC calls have its values and end with it.
func WithBaseContext(base func(net.Listener) context.Context) Option {
	return func(o *options) { o.contexts.base = base }
}

// WithConnContext sets a function that modifies the context of a new connection, as
// [http.Server] has it, for HTTP requests, WebSockets and gRPC calls. Unlike in net/http the
// connection is always the one that the listener has accepted, with TLS too: a *net.TCPConn
// or *net.UnixConn on the listeners of a configuration without a PROXY header. It is for
// looking at the socket (SO_PEERCRED, TCP_INFO). [ConnOf] has the outcome of the TLS
// handshake.
func WithConnContext(conn func(context.Context, net.Conn) context.Context) Option {
	return func(o *options) { o.contexts.conn = conn }
}

// WithLogger sets where the server logs. What a client causes is logged at Debug.
// Default: [slog.Default].
//
// The server does not wait for its logs. Lines go through a bounded queue, from which one
// goroutine takes them to the logger's handler, in order and with the time of the event. While
// the queue is full, lines are dropped and counted ([Stats].LogDropped). The handler gets a line
// with the values of its call's context, unless 64 others were waiting before it. At its end the
// server waits up to a second for those that are left. A handler that package logqueue has
// made is used as it is.
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
// predecessor. Default: [listeners.Sockets.Listen] of empty Sockets.
func WithListen(listen func(ctx context.Context, address string) (net.Listener, error)) Option {
	return func(o *options) {
		if listen != nil {
			o.listen = listen
		}
	}
}
