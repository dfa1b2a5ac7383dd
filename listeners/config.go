package listeners

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Config describes one address that is listened on. It is plain data; see
// [Config.Open] for the sockets and [NewTLS] for the TLS material. A Config starts
// as [DefaultConfig]; the zero value is right as well, but for an address, and
// has no keepalive.
type Config struct {
	// Address is "host:port" for TCP ("127.0.0.1:8080", "[::1]:80", ":0") or
	// "unix:PATH" for a Unix-domain socket. "fd:NAME" is a socket that the process was given under that name; it needs
	// [Sockets.Listen] instead of [Listen].
	Address string `apply:"restart" yaml:"address"`

	// TLS is off in its zero value.
	TLS TLSConfig `yaml:"tls"`

	// ProxyProtocol is off in its zero value. The header comes before TLS.
	ProxyProtocol ProxyConfig `yaml:"proxy_protocol"`

	// Protocols are those that are served: http1, http2, grpc and websocket.
	// Empty means all of them.
	Protocols []string `apply:"restart" yaml:"protocols"`

	// ReusePort is how many sockets the address has, among which the kernel spreads new connections (SO_REUSEPORT), each with an
	// accept loop of its own. 0 and 1 are one plain socket. More need TCP and Linux; up to 1024.
	ReusePort int `apply:"restart" yaml:"reuse_port"`

	// Backlog is how many connections may wait to be accepted, as in listen(2). 0 leaves it as it is: the most that the system
	// allows (net.core.somaxconn), or what the service manager has chosen for a socket of its own.
	Backlog int `apply:"restart" yaml:"backlog"`

	// TCPKeepalive is how long a TCP connection is silent before the kernel asks whether its peer is still there, and the time
	// between two such questions; nine without an answer end it. 0 is never; from 1s to 32767s, in whole seconds, rounded up.
	TCPKeepalive time.Duration `apply:"restart" yaml:"tcp_keepalive"`

	// TCPUserTimeout is how long sent bytes, or questions of TCPKeepalive, may go without an answer before the connection is
	// ended (TCP_USER_TIMEOUT, RFC 5482). 0 leaves that to the system, which takes about a quarter of an hour. It needs Linux.
	TCPUserTimeout time.Duration `apply:"restart" yaml:"tcp_user_timeout"`
}

// DefaultTCPKeepalive is the TCPKeepalive of [DefaultConfig]. Package net has
// the same, so that it costs no system call.
const DefaultTCPKeepalive = 15 * time.Second

// DefaultConfig returns a Config without an address, and with every default filled in.
func DefaultConfig() Config { return Config{TCPKeepalive: DefaultTCPKeepalive} }

// protocolNames are what may stand in Config.Protocols.
var protocolNames = []string{"http1", "http2", "grpc", "websocket"}

// EffectiveProtocols returns Protocols with its default resolved.
func (c Config) EffectiveProtocols() []string {
	if len(c.Protocols) == 0 {
		return slices.Clone(protocolNames)
	}
	return c.Protocols
}

// Validate reports every fault at once, each naming its key. It opens no
// socket and reads no file, so a Config that passes may still fail in [Listen]
// or [NewTLS].
func (c Config) Validate() error {
	var faults []error
	network, _, err := splitAddress(c.Address)
	if err != nil {
		faults = append(faults, fmt.Errorf("listeners: address: %w", err))
	}
	faults = append(faults, c.TLS.Validate(), c.ProxyProtocol.Validate())
	if p := c.ProxyProtocol; network == "unix" && p.Mode == ProxyRequired && len(p.Trusted) > 0 && !slices.Contains(p.Trusted, TrustUnix) {
		faults = append(faults, fmt.Errorf("listeners: proxy_protocol.trusted: without %s nobody gets in at a Unix socket", TrustUnix))
	}
	for _, name := range c.Protocols {
		if !slices.Contains(protocolNames, name) {
			faults = append(faults, fmt.Errorf("listeners: protocols: unknown %q; want some of %s", name, strings.Join(protocolNames, ", ")))
		}
	}
	return errors.Join(append(faults, c.socketFaults(network)...)...)
}

// unixPrefix marks the path of a Unix-domain socket in an address.
const unixPrefix = "unix:"

// splitAddress returns the network and the address as package net wants them.
func splitAddress(address string) (network, target string, err error) {
	if path, ok := strings.CutPrefix(address, unixPrefix); ok {
		if path == "" {
			return "", "", fmt.Errorf("%q has no path after %q", address, unixPrefix)
		}
		return "unix", path, nil
	}
	// net.Listen takes an empty address for a random port on every
	// interface, which nobody means by leaving the key out.
	if address == "" {
		return "", "", errors.New(`empty; want "host:port" or "unix:PATH"`)
	}
	return "tcp", address, nil
}
