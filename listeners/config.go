package listeners

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Config describes one listening socket. It is plain data; see [Listen] for
// the socket and [NewTLS] for the TLS material.
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
}

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
	return errors.Join(faults...)
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
