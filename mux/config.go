package mux

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

// Config is the part of a server's configuration that a file can hold. Each package owns
// its section. Start from [DefaultConfig]: a zero in a Config is a zero and not the
// default.
type Config struct {
	// Listeners are the addresses that the server opens.
	Listeners []listeners.Config `yaml:"listeners"`
	// Sniff bounds what a connection may cost before its protocol is known.
	Sniff protocols.SniffLimits `yaml:"sniff"`
	// Limits bounds all protocols' connections together; each protocol's section has a
	// bound of its own.
	Limits    pool.Config               `yaml:"limits"`
	HTTP1     protocols.HTTP1Config     `yaml:"http1"`
	HTTP2     protocols.HTTP2Config     `yaml:"http2"`
	GRPC      protocols.GRPCConfig      `yaml:"grpc"`
	WebSocket protocols.WebSocketConfig `yaml:"websocket"`
	// Health says how full a pool may be before it is no longer healthy.
	Health pool.HealthConfig `yaml:"health"`
	// Drain is the sequence that ends the server.
	Drain lifecycle.Config `yaml:"drain"`
	// Extra belongs to the embedder: the mux does not look at it, and passes it on to
	// functions of [Server.OnReload], also at a rollback. Two configurations may share
	// it.
	Extra any `yaml:"-"`
}

// DefaultAddress is the address of the listener in [DefaultConfig].
const DefaultAddress = "127.0.0.1:8080"

// DefaultConfig returns the defaults. These are what is not zero, empty or off:
//
//	Listeners[0].Address               127.0.0.1:8080
//	Listeners[0].TCPKeepalive          15s
//	Sniff.Timeout                      3s
//	Sniff.TLSTimeout                   10s
//	Sniff.MaxBytes                     16 KiB
//	Limits.MaxConnections              0.9 x (descriptors - 64), at most 50,000
//	Limits.OnLimit                     refuse
//	HTTP1.HeaderTimeout                10s
//	HTTP1.IdleTimeout                  2m
//	HTTP1.MaxHeaderBytes               64 KiB
//	HTTP1.Progress.MinBodyRate         240
//	HTTP1.Progress.BodyGrace           5s
//	HTTP1.Progress.ProgressTimeout     1m
//	HTTP2.MaxStreams                   250
//	HTTP2.MaxHeaderListBytes           64 KiB
//	HTTP2.StreamWindow                 1 MiB
//	HTTP2.ConnectionWindow             4 MiB
//	HTTP2.IdleTimeout                  2m
//	HTTP2.MaxFrameBytes                16 KiB
//	HTTP2.MaxResetsPerMinute           400
//	HTTP2.PingInterval                 1m
//	HTTP2.PingTimeout                  20s
//	HTTP2.Progress.MinBodyRate         240
//	HTTP2.Progress.BodyGrace           5s
//	HTTP2.Progress.ProgressTimeout     1m
//	GRPC.Transport                     auto
//	GRPC.MaxStreams                    250
//	GRPC.MaxRecvBytes                  4 MiB
//	GRPC.MaxIdle                       5m
//	GRPC.MaxAge                        30m
//	GRPC.PingInterval                  1m
//	GRPC.PingTimeout                   20s
//	GRPC.MinPingInterval               20s
//	WebSocket.ReadLimit                32 KiB
//	WebSocket.PingInterval             30s
//	WebSocket.PongTimeout              10s
//	WebSocket.Compression              off
//	Health.DegradedAbove               0.8
//	Health.OverloadedAbove             0.95
//	Drain.Delay                        5s
//	Drain.Timeout                      30s
//	Drain.StepTimeout                  6s
//	Drain.Spread                       10s
//	Drain.AcceptDuringDelay            true
//
// The comment of each field says what it bounds, and what a zero means.
func DefaultConfig() Config {
	l := listeners.DefaultConfig()
	l.Address = DefaultAddress
	return Config{
		Listeners: []listeners.Config{l},
		Sniff:     protocols.DefaultSniffLimits(),
		Limits:    pool.DefaultConfig(),
		HTTP1:     protocols.DefaultHTTP1Config(),
		HTTP2:     protocols.DefaultHTTP2Config(),
		GRPC:      protocols.DefaultGRPCConfig(),
		WebSocket: protocols.DefaultWebSocketConfig(),
		Health:    pool.DefaultHealthConfig(),
		Drain:     lifecycle.DefaultConfig(),
	}
}

// Validate joins all faults of the configuration, each with the path of its key.
func (c Config) Validate() error {
	var faults []error
	for i, l := range c.Listeners {
		if err := l.Validate(); err != nil {
			faults = append(faults, fmt.Errorf("mux: listeners[%d]: %w", i, err))
		}
	}
	for i, l := range c.Listeners {
		for j, other := range c.Listeners[:i] {
			if listeners.Collide(l.Address, other.Address) {
				faults = append(faults, fmt.Errorf("mux: listeners[%d]: address: %s cannot be listened on beside %s, which is that of listeners[%d]",
					i, l.Address, other.Address, j))
			}
		}
	}
	faults = append(faults,
		c.Sniff.Validate(),
		c.Limits.Validate(),
		c.HTTP1.Validate(),
		c.HTTP2.Validate(),
		c.GRPC.Validate(),
		c.WebSocket.Validate(),
		c.Health.Validate(),
		c.Drain.Validate(),
	)
	return errors.Join(faults...)
}

// limits returns the limits of the connections.
func (c Config) limits() pool.Limits {
	return pool.Limits{
		Config: c.Limits,
		Health: c.Health,
		PerTag: map[pool.Tag]int{
			pool.Tag(protocols.HTTP1):     c.HTTP1.MaxConnections,
			pool.Tag(protocols.HTTP2):     c.HTTP2.MaxConnections,
			pool.Tag(protocols.GRPC):      c.GRPC.MaxConnections,
			pool.Tag(protocols.WebSocket): c.WebSocket.MaxConnections,
		},
	}
}

// clone returns a copy that shares nothing which is changed.
func (c Config) clone() Config {
	c.Listeners = slices.Clone(c.Listeners)
	for i := range c.Listeners {
		l := &c.Listeners[i]
		l.Protocols = slices.Clone(l.Protocols)
		l.ProxyProtocol.Trusted = slices.Clone(l.ProxyProtocol.Trusted)
		l.TLS.CipherSuites = slices.Clone(l.TLS.CipherSuites)
		l.TLS.Certificates = slices.Clone(l.TLS.Certificates)
	}
	c.Drain.SkipSteps = slices.Clone(c.Drain.SkipSteps)
	c.WebSocket.OriginPatterns = slices.Clone(c.WebSocket.OriginPatterns)
	return c
}

// Edge sets the bounds for a port that strangers reach, where the defaults are those of
// net/http and grpc-go. It edits a configuration before other settings do:
//
//	mux.Configure(mux.Edge)
//
// Each protocol has at most 1000 connections, a connection 100 streams, and a head 32 KiB.
// Handlers that do not read keep 64 KiB of a stream and 1 MiB of its connection. A gRPC
// message that is sent has at most 4 MiB. What is in flight on a connection that has
// reached its age is cut after 30 s.
func Edge(c *Config) {
	const (
		connections = 1000
		streams     = 100
		headBytes   = 32 << 10
		window      = 64<<10 - 1 // HTTP/2's own, and the least that is allowed
		connWindow  = 1 << 20
		grace       = 30 * time.Second
	)
	h1, h2, g := &c.HTTP1, &c.HTTP2, &c.GRPC
	h1.MaxConnections, h2.MaxConnections, g.MaxConnections, c.WebSocket.MaxConnections = connections, connections, connections, connections
	h1.MaxHeaderBytes, h2.MaxHeaderListBytes = headBytes, headBytes
	h2.MaxStreams, g.MaxStreams = streams, streams
	h2.StreamWindow, g.StreamWindow = window, window
	h2.ConnectionWindow, g.ConnectionWindow = connWindow, connWindow
	g.MaxSendBytes = 4 << 20
	h1.MaxAgeGrace, h2.MaxAgeGrace, g.MaxAgeGrace = grace, grace, grace
}
