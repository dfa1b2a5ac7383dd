package mux

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/muxserve/muxserve/mux/internal/sub"
	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/moments"
)

// backend is one generation of the protocols' servers. What net/http and grpc-go
// fix when a server is made is changed by making another backend: new connections go
// to that one, and the old one lives as long as its connections.
type backend struct {
	config   *Config // what it was made from
	settings []byte  // the SETTINGS for clients that wait for them, which both HTTP/2 servers keep
	// saysNative is whether the native gRPC server's own SETTINGS add nothing to settings.
	saysNative bool
	http1      *http.Server
	http2      *http.Server
	h2c        *protocols.H2CUpgrades // nil: no upgrades to HTTP/2
	grpc       *protocols.GRPCServers
	// toRefuse is where HTTP/2 connections go that a limit keeps out.
	toRefuse *sub.Listener
	refuser  *http.Server
}

// lateAnswers is how much longer net/http and grpc-go wait for the answer to a PING than is
// configured. They do not know what stands before the PING, and the sweep does.
const lateAnswers = 2 * moments.LongestQueue

// pingTimeouts returns how long the client of an HTTP/2 connection may be silent behind a PING
// of its server, which is grpc-go for [protocols.GRPC]: until the sweep ends it, where the
// client has read all that stands before the PING, and until the server does.
func (b *backend) pingTimeouts(server protocols.Protocol) (bySweep, byServer time.Duration) {
	bySweep = b.config.HTTP2.PingTimeout
	if server == protocols.GRPC {
		if own := b.grpc.PingTimeoutOfOption(); own > 0 {
			return own, own
		}
		bySweep = cmp.Or(b.config.GRPC.PingTimeout, protocols.DefaultGRPCConfig().PingTimeout) // As grpc-go takes 0.
	}
	return bySweep, moments.Sum(bySweep, lateAnswers)
}

// muteTime returns how long the client of an HTTP/2 connection may be silent until its server,
// as in pingTimeouts, has pinged it in vain; 0 for no bound.
func (b *backend) muteTime(server protocols.Protocol) time.Duration {
	interval := b.config.HTTP2.PingInterval
	if server == protocols.GRPC {
		interval = b.config.GRPC.PingInterval
	}
	if interval <= 0 {
		return 0
	}
	timeout, _ := b.pingTimeouts(server)
	return moments.Sum(interval, timeout)
}

// close ends the servers at once.
func (b *backend) close() {
	_ = b.toRefuse.Close()
	for _, srv := range []*http.Server{b.http1, b.http2, b.refuser} {
		_ = srv.Close()
	}
	b.grpc.Stop()
}

// services is what backends are made around: code, as opposed to configuration.
type services struct {
	front    *front
	books    *books
	contexts *contexts
	grpc     func() *protocols.GRPCServices // makes them at the first call
	options  []grpc.ServerOption
}

// newBackend makes servers that are ready for connections, but serve none yet.
func (s services) newBackend(c *Config) (*backend, error) {
	b := &backend{config: c}
	var err error
	hooks := protocols.HTTPHooks{
		Handler:     s.front,
		BaseContext: s.contexts.baseContext,
		ConnContext: s.contexts.connContext,
		ConnState:   trackState,
		Logger:      s.books.logger,
	}
	// The sweep keeps these times: net/http and grpc-go close a connection when its last
	// answer is written, whether its client has read that or not.
	own, native := c.HTTP2, c.GRPC
	own.IdleTimeout = 0
	if c.sweepsCalls() {
		native.MaxAge, native.MaxAgeGrace = 0, 0
	}
	own.PingTimeout, native.PingTimeout = moments.Sum(own.PingTimeout, lateAnswers), moments.Sum(native.PingTimeout, lateAnswers)
	b.http2 = protocols.NewHTTP2Server(own, hooks)
	refusing := hooks
	refusing.BaseContext, refusing.ConnContext = nil, connContext
	b.refuser = protocols.NewRefusingHTTP2Server(c.HTTP2, refusing, connAge, s.front.probes, s.books.countRefused)
	b.toRefuse = sub.New(listenAddr("refusals"), maxRefusals)
	b.http1 = protocols.NewHTTP1Server(c.HTTP1, hooks)
	if c.HTTP2.UpgradeH2C {
		if b.h2c, err = protocols.NewH2CUpgrades(own, hooks, s.front.h2cUpgraded, s.front.h2cResets); err != nil {
			return nil, fmt.Errorf("mux: %w", err)
		}
	}
	b.grpc, err = protocols.NewGRPCServers(native, c.HTTP2, s.grpc(), s.books.grpcCalls(c.HTTP2.MaxStreams),
		slices.Concat(s.contexts.grpcOptions(), s.options)...)
	if err != nil {
		return nil, fmt.Errorf("mux: %w", err)
	}
	for method := range b.grpc.Methods() {
		s.books.calls.show(method)
	}
	if b.settings, b.saysNative, err = protocols.CommonSettings(c.HTTP2, b.grpc); err != nil {
		b.grpc.Stop()
		return nil, fmt.Errorf("mux: %w", err)
	}
	return b, nil
}

// sweepsCalls reports whether the sweep ends native gRPC connections. With grpc.transport:
// native nothing but grpc-go refuses a stream beyond the last that the client was told, so
// grpc-go ends them.
func (c Config) sweepsCalls() bool { return c.GRPC.Transport != protocols.TransportNative }
