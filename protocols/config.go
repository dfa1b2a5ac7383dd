package protocols

import (
	"errors"
	"fmt"
	"time"

	"github.com/muxserve/muxserve/protocols/internal/h2"
	"github.com/muxserve/muxserve/protocols/moments"
)

// SniffLimits bounds what a connection may cost before its protocol is known.
type SniffLimits struct {
	// Timeout bounds the time from a connection's first byte, behind the TLS handshake, to
	// the verdict. A head whose bytes keep coming has http1.header_timeout, if that is
	// longer, in HTTP/2 as well. A connection that has sent nothing is kept as long as an
	// idle one, for http1.idle_timeout (2m where that has no bound), or for this time if it
	// is longer. 0: no bound. Default 3s.
	Timeout time.Duration `apply:"runtime" yaml:"timeout"`
	// TLSTimeout bounds the TLS handshake, from the accept on. 0: no bound. Default 10s.
	TLSTimeout time.Duration `apply:"runtime" yaml:"tls_timeout"`
	// MaxBytes bounds the bytes that are looked at and kept. Default 16 KiB.
	MaxBytes int `apply:"runtime" yaml:"max_bytes"`
}

// HTTP1Config is the section of the HTTP/1.1 server. The WebSocket server, which
// begins as an HTTP/1.1 one, shares it.
type HTTP1Config struct {
	// MaxConnections bounds the connections in the pool. A WebSocket handshake is in the pool
	// of WebSockets until it is answered: where handlers are to be bounded, set that limit as
	// well. 0, the default: no bound.
	MaxConnections int `apply:"runtime" yaml:"max_connections"`
	// HeaderTimeout bounds the time from a request's first byte to the end of its head.
	// 0: no bound. Default 10s.
	HeaderTimeout time.Duration `apply:"restart" yaml:"header_timeout"`
	// IdleTimeout is how long a connection may wait for its first byte or for its next
	// request. 0: no bound. Default 2m.
	IdleTimeout time.Duration `apply:"restart" yaml:"idle_timeout"`
	// MaxHeaderBytes bounds a request's head. Default 64 KiB.
	MaxHeaderBytes int `apply:"restart" yaml:"max_header_bytes"`
	// MaxAge is how long a connection is kept, give or take a tenth; then its next
	// response closes it. 0, the default: no bound.
	MaxAge time.Duration `apply:"runtime" yaml:"max_age"`
	// MaxAgeGrace is what a request that is in flight gets after that, before its
	// connection is reset, even if it moves. 0, the default: it ends by itself.
	MaxAgeGrace time.Duration `apply:"runtime" yaml:"max_age_grace"`
	// MaxRequests is how many requests a connection may have; the last response closes
	// it. 0, the default: no bound.
	MaxRequests uint64 `apply:"runtime" yaml:"max_requests"`
	// RequestTimeout bounds the time of a request from its head to the end of its response,
	// even if it moves. Then it is answered with 503, or 408 where its handler waits for
	// the body; if its response has begun, the connection is reset. It bounds neither
	// WebSockets nor hijacked connections. 0, the default: no bound.
	RequestTimeout time.Duration `apply:"runtime" yaml:"request_timeout"`
	// Progress is what a client has to do while a request of its own is in flight.
	Progress ProgressConfig `yaml:",inline"`
}

// ProgressConfig ends requests whose client has stopped moving. It bounds no stream that
// moves, however long it takes, no handler that has nothing to say, and no connection that
// a handler has hijacked. A handler that sets a read or write deadline by
// [http.ResponseController], or lifts it by the zero time, bounds that direction of its
// request itself.
type ProgressConfig struct {
	// MinBodyRate is how many bytes a second a request body of declared length has to
	// bring on average, over the time that the handler waits for it, counted from its
	// first byte, and from BodyGrace on. 0: no bound. Default 240.
	MinBodyRate int `apply:"runtime" yaml:"min_body_rate"`
	// BodyGrace is how long a body may be slower than that at first. Default 5s.
	BodyGrace time.Duration `apply:"runtime" yaml:"body_grace"`
	// ProgressTimeout is how long a handler may wait for the next byte of a request body,
	// or for the client to take any byte of the response. A body without a declared
	// length, and one that is read beside the response (full duplex), has no bound once the
	// response has begun, and a stream of gRPC or Connect has none at all. In HTTP/2 the
	// client may also need up to 5 minutes for what it has got, at 16 KiB a second. What it
	// may not have read of its connection adds to the time for a body in the same way, and to
	// BodyGrace. The streams of a connection that wait share this time, up to 16 times, and
	// MinBodyRate, while it moves 1 KiB a second. 0: no bound, but 5 minutes for a WebSocket
	// that is being closed. Default 1m.
	ProgressTimeout time.Duration `apply:"runtime" yaml:"progress_timeout"`
}

// HTTP2Config is the section of the HTTP/2 server. Its bounds of the header list and of
// resets hold for native gRPC connections too.
type HTTP2Config struct {
	// MaxConnections bounds the connections in the pool. 0, the default: no bound.
	MaxConnections int `apply:"runtime" yaml:"max_connections"`
	// MaxStreams is the number of concurrent streams on a connection
	// (SETTINGS_MAX_CONCURRENT_STREAMS). Default 250.
	MaxStreams uint32 `apply:"restart" yaml:"max_streams"`
	// MaxHeaderListBytes bounds a request's header list, as RFC 9113 section 6.5.2 counts
	// it (SETTINGS_MAX_HEADER_LIST_SIZE). Default 64 KiB.
	MaxHeaderListBytes uint32 `apply:"restart" yaml:"max_header_list_bytes"`
	// StreamWindow and ConnectionWindow are the initial flow-control windows in bytes, at
	// least 65,535 (RFC 9113 section 6.9.2). The server keeps up to ConnectionWindow of
	// what handlers have not read. Where that is no larger than StreamWindow, one upload
	// that is not read stops all others of its connection. Defaults 1 MiB and 4 MiB.
	StreamWindow     int32 `apply:"restart" yaml:"stream_window"`
	ConnectionWindow int32 `apply:"restart" yaml:"connection_window"`
	// IdleTimeout is how long a connection without streams is kept, one that never had a
	// stream included. 0: no bound. Default 2m.
	IdleTimeout time.Duration `apply:"restart" yaml:"idle_timeout"`
	// MaxAge is how long a connection is kept, give or take a tenth; then it is told to
	// leave by GOAWAY. 0, the default: no bound.
	MaxAge time.Duration `apply:"runtime" yaml:"max_age"`
	// MaxAgeGrace is what its streams get after that, even if they move. 0, the default:
	// they end by themselves.
	MaxAgeGrace time.Duration `apply:"runtime" yaml:"max_age_grace"`
	// MaxRequests is how many requests a connection may have before GOAWAY. 0, the
	// default: no bound.
	MaxRequests uint64 `apply:"runtime" yaml:"max_requests"`
	// MaxFrameBytes is the largest frame that is taken (SETTINGS_MAX_FRAME_SIZE), from
	// 16384 to 16777215. grpc-go takes no more than 16384 on connections that it serves
	// itself. Default 16 KiB.
	MaxFrameBytes uint32 `apply:"restart" yaml:"max_frame_bytes"`
	// MaxResetsPerMinute bounds Rapid Reset (CVE-2023-44487) and MadeYouReset
	// (CVE-2025-8671), on native gRPC connections too. It is how many streams a client may
	// have broken off in a minute, if they are more than its other streams: by a reset
	// within 20 ms of the opening and before an answer, or by illegal frames. More is
	// answered by GOAWAY with NO_ERROR, as in a drain: streams in flight may be those of a
	// proxy's other clients. A client that opens more of them is cut: after a second, or at
	// once, with ENHANCE_YOUR_CALM, if they are more than eight times MaxStreams. 0: no
	// bound. Default 400.
	MaxResetsPerMinute int `apply:"runtime" yaml:"max_resets_per_minute"`
	// PingInterval is how long a silent peer is left alone before it is pinged (0: for
	// ever), and PingTimeout how long it may be silent behind the PING before the connection
	// is closed. Each 16 KiB of responses that were sent before the PING, and that the peer
	// may not have read, add a second to PingTimeout, up to 5 minutes. It has read what
	// stands before a PING that it has answered. While it has streams open and may not have
	// read 256 KiB or more, it gets another PING, about once a second. Defaults 1m and 20s.
	PingInterval time.Duration `apply:"restart" yaml:"ping_interval"`
	PingTimeout  time.Duration `apply:"restart" yaml:"ping_timeout"`
	// RequestTimeout bounds the time of a request from its head to the end of its response,
	// even if it moves. Then it is answered with 503, or 408 where its handler waits for
	// the body; if its response has begun, the stream is reset. It bounds neither gRPC
	// calls, which have deadlines of their own, nor WebSockets. What is a call, a client
	// says by its content type, whatever the handler makes of it. 0, the default: no bound.
	RequestTimeout time.Duration `apply:"runtime" yaml:"request_timeout"`
	// Progress is what a client has to do while a request of its own is in flight.
	Progress ProgressConfig `yaml:",inline"`
	// UpgradeH2C lets a client turn an HTTP/1.1 connection without TLS into an HTTP/2 one
	// by "Upgrade: h2c". It is off by default: RFC 9113 section 3.1 has given it up, and
	// a proxy in front that forwards the header unseen no longer knows what passes
	// through it. Where it is off, the request is answered in HTTP/1.1.
	UpgradeH2C bool `apply:"restart" yaml:"upgrade_h2c"`
	// WebSocket lets a client open WebSockets on streams of an HTTP/2 connection (RFC
	// 8441). It needs a process that was started with GODEBUG=http2xconnect=1 in its
	// environment; see [ErrNoExtendedConnect]. In such a process net/http announces it
	// even where this is off; the streams are then refused with 501.
	WebSocket bool `apply:"restart" yaml:"websocket"`
}

// GRPCConfig is the section of the gRPC servers. The fields are those of grpc-go's
// server options and keepalive parameters.
type GRPCConfig struct {
	// MaxConnections bounds the connections in the pool. 0, the default: no bound.
	MaxConnections int `apply:"runtime" yaml:"max_connections"`
	// Transport says which connections grpc-go serves itself; the others are
	// served by net/http, stream by stream, which is slower. Default auto.
	Transport GRPCTransport `apply:"restart" yaml:"transport"`
	// MaxStreams is the number of concurrent streams on a connection that grpc-go serves
	// itself (SETTINGS_MAX_CONCURRENT_STREAMS). On the others http2.max_streams holds.
	// Default 250.
	MaxStreams uint32 `apply:"restart" yaml:"max_streams"`
	// StreamWindow and ConnectionWindow are the flow-control windows in bytes, at least
	// 65,535, of connections that grpc-go serves itself. 0, the default: grpc-go estimates
	// what the network needs, and begins with 65,535. Where only one is set, the other is
	// the same. On other connections, StreamWindow (0: 1 MiB) is how much of a call is read
	// before its handler asks for it. Behind that the client has the window of a stream of
	// http2 left. When the calls of a connection hold 16 MiB together, all its streams get
	// windows of 48 KiB, until they hold 8 MiB.
	StreamWindow     int32 `apply:"restart" yaml:"stream_window"`
	ConnectionWindow int32 `apply:"restart" yaml:"connection_window"`
	// MaxRecvBytes and MaxSendBytes bound one message. 0: no bound. Defaults 4 MiB and
	// 0.
	MaxRecvBytes int `apply:"restart" yaml:"max_recv_bytes"`
	MaxSendBytes int `apply:"restart" yaml:"max_send_bytes"`
	// MaxIdle is how long a connection without calls is kept. 0: no bound. Default 5m.
	MaxIdle time.Duration `apply:"restart" yaml:"idle_timeout"`
	// MaxAge is how long a connection is kept, give or take a tenth; then it is told to
	// leave by GOAWAY. 0: no bound. MaxAgeGrace is what its calls get after that, even if
	// they move. 0: they end by themselves. Defaults 30m and 0.
	MaxAge      time.Duration `apply:"restart" yaml:"max_age"`
	MaxAgeGrace time.Duration `apply:"restart" yaml:"max_age_grace"`
	// PingInterval is how long a silent peer is left alone before it is pinged (0: for
	// ever), and PingTimeout how long it may be silent behind the PING (0: 20s). What was
	// sent before the PING adds to PingTimeout as in http2. Defaults 1m and 20s.
	PingInterval time.Duration `apply:"restart" yaml:"ping_interval"`
	PingTimeout  time.Duration `apply:"restart" yaml:"ping_timeout"`
	// MinPingInterval is how often a client may ping; one that pings more often is told
	// ENHANCE_YOUR_CALM. 0: as often as it likes. Default 20s.
	MinPingInterval time.Duration `apply:"restart" yaml:"min_ping_interval"`
}

// WebSocketConfig is the section of the WebSocket server.
type WebSocketConfig struct {
	// MaxConnections bounds the connections in the pool. 0, the default: no bound.
	MaxConnections int `apply:"runtime" yaml:"max_connections"`
	// ReadLimit bounds one message in bytes; a longer one closes the connection with
	// 1009. -1: no bound. Default 32 KiB.
	ReadLimit int64 `apply:"runtime" yaml:"read_limit"`
	// PingInterval is how long a silent peer is left alone before it is pinged (0: for
	// ever), and PongTimeout how long it may take to answer before the connection is
	// closed. Only a peer whose handler is reading can be heard, and is pinged. A ping
	// waits behind the message that is being sent, and PongTimeout begins when the ping
	// has left the socket; until then the peer has to take a byte within
	// http1.progress_timeout. Messages that were sent before may wait for the peer in a
	// proxy: what it may not have read of them, at 16 KiB a second, adds its time to
	// PongTimeout, up to 5 minutes. On a stream of HTTP/2 that is what it may not have read
	// of all streams. Defaults 30s and 10s.
	PingInterval time.Duration `apply:"runtime" yaml:"ping_interval"`
	PongTimeout  time.Duration `apply:"runtime" yaml:"pong_timeout"`
	// IdleTimeout is how long a WebSocket may exchange no part of a message, pings
	// aside; then it is closed with 1001. 0, the default: no bound.
	IdleTimeout time.Duration `apply:"runtime" yaml:"idle_timeout"`
	// MaxAge is how long a WebSocket is kept, give or take a tenth; then it is closed
	// with 1001, behind the message that is being sent. 0, the default: no bound.
	MaxAge time.Duration `apply:"runtime" yaml:"max_age"`
	// Compression is whether messages are compressed where the client offers it (RFC
	// 7692): off, takeover (each message refers to those before it, which costs 1.2 MB a
	// connection) or no-takeover. Default off.
	Compression WebSocketCompression `apply:"runtime" yaml:"compression"`
	// OriginPatterns are the hosts, besides the request's own, whose pages may open a
	// WebSocket. A star stands for any text without a slash, and a question mark for one
	// character. A pattern with "://" is for the scheme as well. On a port with TLS, the
	// request's own host counts with https alone.
	OriginPatterns []string `apply:"runtime" yaml:"origin_patterns"`
}

// WebSocketCompression says how the messages of a WebSocket are compressed.
type WebSocketCompression string

// The values of WebSocketCompression. The empty one is CompressionOff.
const (
	CompressionOff        WebSocketCompression = "off"
	CompressionTakeover   WebSocketCompression = "takeover"
	CompressionNoTakeover WebSocketCompression = "no-takeover"
)

// The defaults.
const (
	// defaultHeaderBytes is for HTTP/1.1 heads and for HTTP/2 and gRPC header lists
	// alike.
	defaultHeaderBytes = 64 << 10
	// defaultMaxStreams and defaultStreamWindow are net/http's.
	defaultMaxStreams   = 250
	defaultStreamWindow = 1 << 20
	// defaultConnectionWindow is four times net/http's, so that an upload that its handler
	// does not read leaves room for others.
	defaultConnectionWindow = 4 * defaultStreamWindow
	// minWindow is the least that the servers take for a window.
	minWindow = h2.DefaultWindow
	// largestFrameSize is the largest SETTINGS_MAX_FRAME_SIZE (RFC 9113 section 6.5.2).
	largestFrameSize = 1<<24 - 1
)

// DefaultSniffLimits returns 3 s, 10 s for TLS, and 16 KiB.
func DefaultSniffLimits() SniffLimits {
	return SniffLimits{Timeout: 3 * time.Second, TLSTimeout: 10 * time.Second, MaxBytes: 16 << 10}
}

// DefaultProgressConfig returns 240 bytes a second after 5 s, as Kestrel has it, and 60
// s.
func DefaultProgressConfig() ProgressConfig {
	return ProgressConfig{MinBodyRate: 240, BodyGrace: 5 * time.Second, ProgressTimeout: 60 * time.Second}
}

// DefaultHTTP1Config returns the defaults. The idle timeout stays under the 350 s after
// which an AWS NLB forgets a flow.
func DefaultHTTP1Config() HTTP1Config {
	return HTTP1Config{
		HeaderTimeout:  10 * time.Second,
		IdleTimeout:    120 * time.Second,
		MaxHeaderBytes: defaultHeaderBytes,
		Progress:       DefaultProgressConfig(),
	}
}

// DefaultHTTP2Config returns the defaults.
func DefaultHTTP2Config() HTTP2Config {
	return HTTP2Config{
		MaxStreams:         defaultMaxStreams,
		MaxHeaderListBytes: defaultHeaderBytes,
		StreamWindow:       defaultStreamWindow,
		ConnectionWindow:   defaultConnectionWindow,
		IdleTimeout:        120 * time.Second,
		MaxFrameBytes:      h2.MaxFrameSize,
		MaxResetsPerMinute: 400,
		PingInterval:       60 * time.Second,
		PingTimeout:        20 * time.Second,
		Progress:           DefaultProgressConfig(),
	}
}

// DefaultGRPCConfig returns the defaults. MaxAge is by table `growth` of testdata/fleet:
// twice as many replicas share the connections evenly after 26 min (14 min behind least
// connections), for 1/1800 of the clients that reconnect each second. An hour would take
// twice as long, and 5 min cost six times as many handshakes.
func DefaultGRPCConfig() GRPCConfig {
	return GRPCConfig{
		Transport:       TransportAuto,
		MaxStreams:      defaultMaxStreams,
		MaxRecvBytes:    4 << 20,
		MaxIdle:         5 * time.Minute,
		MaxAge:          30 * time.Minute,
		PingInterval:    60 * time.Second,
		PingTimeout:     20 * time.Second,
		MinPingInterval: 20 * time.Second,
	}
}

// DefaultWebSocketConfig returns the defaults. There is no MaxAge, because it interrupts
// each client, and table `growth` of testdata/fleet says what that means: a new replica is
// filled by new clients alone.
func DefaultWebSocketConfig() WebSocketConfig {
	return WebSocketConfig{
		ReadLimit:    32 << 10,
		PingInterval: 30 * time.Second,
		PongTimeout:  10 * time.Second,
		Compression:  CompressionOff,
	}
}

// Validate reports every field that is out of range, each by its name in the file.
func (c SniffLimits) Validate() error {
	return errors.Join(
		notNegative("sniff.timeout", c.Timeout),
		notNegative("sniff.tls_timeout", c.TLSTimeout),
		check(c.MaxBytes >= 1024 && c.MaxBytes <= 1<<20, "sniff.max_bytes", c.MaxBytes, "from 1024 to 1048576"),
	)
}

// Validate reports every field that is out of range, each by its name in the file.
func (c HTTP1Config) Validate() error {
	return errors.Join(
		check(c.MaxConnections >= 0, "http1.max_connections", c.MaxConnections, "not negative"),
		notNegative("http1.header_timeout", c.HeaderTimeout),
		notNegative("http1.idle_timeout", c.IdleTimeout),
		notNegative("http1.max_age", c.MaxAge),
		notNegative("http1.max_age_grace", c.MaxAgeGrace),
		notNegative("http1.request_timeout", c.RequestTimeout),
		c.Progress.validate("http1."),
		check(c.MaxHeaderBytes >= 1024, "http1.max_header_bytes", c.MaxHeaderBytes, "at least 1024"),
	)
}

// Validate reports every field that is out of range, each by its name in the file.
func (c HTTP2Config) Validate() error {
	return errors.Join(
		check(c.MaxConnections >= 0, "http2.max_connections", c.MaxConnections, "not negative"),
		check(c.MaxStreams >= 1, "http2.max_streams", c.MaxStreams, "at least 1"),
		check(c.MaxHeaderListBytes >= 1024, "http2.max_header_list_bytes", c.MaxHeaderListBytes, "at least 1024"),
		check(c.StreamWindow >= minWindow, "http2.stream_window", c.StreamWindow, "at least 65535"),
		check(c.ConnectionWindow >= minWindow, "http2.connection_window", c.ConnectionWindow, "at least 65535"),
		notNegative("http2.idle_timeout", c.IdleTimeout),
		notNegative("http2.max_age", c.MaxAge),
		notNegative("http2.max_age_grace", c.MaxAgeGrace),
		notNegative("http2.request_timeout", c.RequestTimeout),
		check(c.MaxFrameBytes >= h2.MaxFrameSize && c.MaxFrameBytes <= largestFrameSize, "http2.max_frame_bytes", c.MaxFrameBytes, "from 16384 to 16777215"),
		check(c.MaxResetsPerMinute >= 0, "http2.max_resets_per_minute", c.MaxResetsPerMinute, "not negative"),
		notNegative("http2.ping_interval", c.PingInterval),
		check(c.PingTimeout > 0 || c.PingInterval == 0, "http2.ping_timeout", c.PingTimeout, "positive where ping_interval is"),
		c.Progress.validate("http2."),
	)
}

func (c ProgressConfig) validate(section string) error {
	return errors.Join(
		check(c.MinBodyRate >= 0, section+"min_body_rate", c.MinBodyRate, "not negative"),
		notNegative(section+"body_grace", c.BodyGrace),
		notNegative(section+"progress_timeout", c.ProgressTimeout),
	)
}

// Validate reports every field that is out of range, each by its name in the file.
func (c GRPCConfig) Validate() error {
	var transport error
	switch c.Transport {
	case "", TransportAuto, TransportNative, TransportShared:
	default:
		transport = fmt.Errorf("protocols: grpc.transport: %q is not one of auto, native, shared", c.Transport)
	}
	return errors.Join(
		transport,
		check(c.MaxConnections >= 0, "grpc.max_connections", c.MaxConnections, "not negative"),
		check(c.MaxStreams >= 1, "grpc.max_streams", c.MaxStreams, "at least 1"),
		check(c.StreamWindow == 0 || c.StreamWindow >= minWindow, "grpc.stream_window", c.StreamWindow, "0 or at least 65535"),
		check(c.ConnectionWindow == 0 || c.ConnectionWindow >= minWindow, "grpc.connection_window", c.ConnectionWindow, "0 or at least 65535"),
		check(c.MaxRecvBytes >= 0, "grpc.max_recv_bytes", c.MaxRecvBytes, "not negative"),
		check(c.MaxSendBytes >= 0, "grpc.max_send_bytes", c.MaxSendBytes, "not negative"),
		notNegative("grpc.idle_timeout", c.MaxIdle),
		notNegative("grpc.max_age", c.MaxAge),
		notNegative("grpc.max_age_grace", c.MaxAgeGrace),
		notNegative("grpc.ping_interval", c.PingInterval),
		notNegative("grpc.ping_timeout", c.PingTimeout),
		notNegative("grpc.min_ping_interval", c.MinPingInterval),
	)
}

// Validate reports every field that is out of range, each by its name in the file.
func (c WebSocketConfig) Validate() error {
	return errors.Join(
		check(c.MaxConnections >= 0, "websocket.max_connections", c.MaxConnections, "not negative"),
		notNegative("websocket.ping_interval", c.PingInterval),
		check(c.PongTimeout > 0 || c.PingInterval == 0, "websocket.pong_timeout", c.PongTimeout, "positive where ping_interval is"),
		notNegative("websocket.idle_timeout", c.IdleTimeout),
		notNegative("websocket.max_age", c.MaxAge),
		c.Compression.validate(),
		check(c.ReadLimit >= -1, "websocket.read_limit", c.ReadLimit, "-1 or more"),
	)
}

func (c WebSocketCompression) validate() error {
	switch c {
	case "", CompressionOff, CompressionTakeover, CompressionNoTakeover:
		return nil
	default:
		return fmt.Errorf("protocols: websocket.compression: %q is not one of off, takeover, no-takeover", string(c))
	}
}

func notNegative(key string, d time.Duration) error {
	return check(d >= 0, key, d, "not negative")
}

func check(ok bool, key string, value any, want string) error {
	if ok {
		return nil
	}
	return fmt.Errorf("protocols: %s: %v must be %s", key, value, want)
}

// AgeLimit returns when a connection that was opened at some time reaches the age limit:
// at a random moment within a tenth of it; see [moments.Age]. It is zero for no limit.
func AgeLimit(opened time.Time, limit time.Duration) time.Time {
	if limit <= 0 {
		return time.Time{}
	}
	return opened.Add(moments.Age(moments.Random, limit, moments.AgeJitter))
}
