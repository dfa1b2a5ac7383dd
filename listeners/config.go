package listeners

import (
	"errors"
	"fmt"
	"strings"
)

// Config describes one listening socket. It is plain data; see [Listen] for
// the socket and [NewTLS] for the TLS material.
type Config struct {
	// Address is "host:port" for TCP ("127.0.0.1:8080", "[::1]:80", ":0") or
	// "unix:PATH" for a Unix-domain socket.
	Address string `yaml:"address"`

	// TLS is off in its zero value.
	TLS TLSConfig `yaml:"tls"`
}

// Validate reports every fault at once, each naming its key. It opens no
// socket and reads no file, so a Config that passes may still fail in [Listen]
// or [NewTLS].
func (c Config) Validate() error {
	_, _, err := splitAddress(c.Address)
	if err != nil {
		err = fmt.Errorf("listeners: address: %w", err)
	}
	return errors.Join(err, c.TLS.Validate())
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
