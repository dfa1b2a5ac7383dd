package mux

import (
	"errors"
	"fmt"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

// Config is what can be said about a server in a file. Each package owns its
// section. A Config starts as [DefaultConfig]; a zero in it is a zero, not "the default".
type Config struct {
	// Listeners are the addresses that ListenAndServe opens.
	Listeners []listeners.Config `yaml:"listeners"`
	// Sniff bounds what a connection may cost before its protocol is known.
	Sniff protocols.SniffLimits `yaml:"sniff"`
	// Limits bounds all protocols' connections together; each protocol's section has a bound of its own.
	Limits    pool.Config               `yaml:"limits"`
	HTTP1     protocols.HTTP1Config     `yaml:"http1"`
	HTTP2     protocols.HTTP2Config     `yaml:"http2"`
	GRPC      protocols.GRPCConfig      `yaml:"grpc"`
	WebSocket protocols.WebSocketConfig `yaml:"websocket"`
	// Health says how full a pool may be before it is no longer healthy.
	Health pool.HealthConfig `yaml:"health"`
	// Drain is the sequence that ends the server.
	Drain lifecycle.Config `yaml:"drain"`
}

// DefaultAddress is where a server listens that was not told otherwise.
const DefaultAddress = "127.0.0.1:8080"

// DefaultConfig returns a Config with every default filled in.
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

// Validate reports every fault of the configuration at once, each with the path
// of its key.
func (c Config) Validate() error {
	var faults []error
	for i, l := range c.Listeners {
		if err := l.Validate(); err != nil {
			faults = append(faults, fmt.Errorf("mux: listeners[%d]: %w", i, err))
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
	if most := protocols.GRPCFrameBytes; c.HTTP2.MaxFrameBytes > most && c.GRPC.Transport != protocols.TransportShared {
		faults = append(faults, fmt.Errorf("mux: http2.max_frame_bytes: %d needs grpc.transport: shared, because native gRPC connections take no more than %d",
			c.HTTP2.MaxFrameBytes, most))
	}
	return errors.Join(faults...)
}

// limits returns what the configuration says about the number of connections.
func (c Config) limits() pool.Limits {
	return pool.Limits{
		Total:      c.Limits.MaxConnections,
		Wait:       c.Limits.OnLimit == pool.Wait,
		PerAddress: c.Limits.PerAddress,
		Health:     c.Health,
		PerTag: map[pool.Tag]int{
			pool.Tag(protocols.HTTP1):     c.HTTP1.MaxConnections,
			pool.Tag(protocols.HTTP2):     c.HTTP2.MaxConnections,
			pool.Tag(protocols.GRPC):      c.GRPC.MaxConnections,
			pool.Tag(protocols.WebSocket): c.WebSocket.MaxConnections,
		},
	}
}
