package listeners

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Config describes one address to listen on. It is plain data: [Config.Open] opens the
// sockets, with [Sockets.Listen] for an address "fd:NAME", and [NewTLS] loads the TLS
// material. Start from [DefaultConfig]. The zero value with an address works too, without
// TCP keepalive.
type Config struct {
	// Address is "host:port" for TCP ("127.0.0.1:8080", "[::1]:80", ":0"), "unix:PATH" for
	// a Unix-domain socket, or "fd:NAME" for the sockets that the service manager has opened
	// under this name (FileDescriptorName in systemd.socket(5)). "0.0.0.0" is IPv4 alone.
	// "[::]" is both families, but IPv6 alone where another listener has "0.0.0.0" with the
	// same port.
	Address string `apply:"restart" yaml:"address"`

	// TLS is off where its mode is not set.
	TLS TLSConfig `yaml:"tls"`

	// ProxyProtocol is off where its mode is not set. The header comes before TLS.
	ProxyProtocol ProxyConfig `yaml:"proxy_protocol"`

	// Protocols are the protocols served: http1, http2, grpc and websocket. Empty means all.
	// With grpc, the HTTP handler gets calls to services that grpc-go does not have: every
	// HTTP/2 request with POST and a content type of gRPC.
	Protocols []string `apply:"restart" yaml:"protocols"`

	// UnixMode is the permissions of a Unix socket's file in octal, such as "0660". Clients
	// need the permission to write. Empty means what the umask leaves, or the service manager
	// has chosen. A reload that empties it brings that back.
	UnixMode string `apply:"restart" yaml:"unix_mode"`

	// UnixOwner is the owner of a Unix socket's file: "USER", "USER:GROUP" or ":GROUP", by
	// name or number. Empty means those of the process, or the service manager's choice. A
	// reload that empties it brings that back.
	UnixOwner string `apply:"restart" yaml:"unix_owner"`

	// ReusePort is the number of sockets of the address, each with an accept loop, among
	// which the kernel spreads new connections (SO_REUSEPORT). 0, the default, and 1 are one
	// plain socket. More need TCP and Linux; up to 1024. A reload or an upgrade to a lower number
	// keeps the sockets that are open, because clients may wait in each.
	ReusePort int `apply:"restart" yaml:"reuse_port"`

	// Backlog is how many connections may wait to be accepted, as in listen(2). 0, the
	// default, keeps the system's maximum (net.core.somaxconn), or the service manager's
	// choice. A reload from another value to 0 sets the system's maximum.
	Backlog int `apply:"restart" yaml:"backlog"`

	// TCPKeepalive is how long a TCP connection is silent before the kernel probes the
	// peer, and the time between probes; nine without an answer end the connection. 0 is
	// never; from 1s to 32767s, in whole seconds, rounded up. Default 15s.
	TCPKeepalive time.Duration `apply:"restart" yaml:"tcp_keepalive"`

	// TCPUserTimeout is how long sent bytes, or keepalive probes, may go unacknowledged
	// before the connection ends (TCP_USER_TIMEOUT, RFC 5482). 0, the default, is the
	// system's choice, about a quarter of an hour. It needs Linux.
	TCPUserTimeout time.Duration `apply:"restart" yaml:"tcp_user_timeout"`
}

// defaultKeepalive is package net's, which sets it without a further system call.
const defaultKeepalive = 15 * time.Second

// DefaultConfig returns the defaults: all protocols, a keepalive of 15s, and no address.
func DefaultConfig() Config { return Config{TCPKeepalive: defaultKeepalive} }

// protocolNames are the values of Config.Protocols.
var protocolNames = []string{"http1", "http2", "grpc", "websocket"}

// Shown returns c as it takes effect, for people to read: with the defaults of Protocols
// and of both modes filled in, without secrets, and without what [Arrange] has added.
func (c Config) Shown() Config {
	c.Address = strings.TrimPrefix(c.Address, ipv6OnlyPrefix)
	if len(c.Protocols) == 0 {
		c.Protocols = slices.Clone(protocolNames)
	}
	c.ProxyProtocol.Mode = c.ProxyProtocol.mode()
	c.TLS.Mode = c.TLS.mode()
	c.TLS = c.TLS.redacted()
	return c
}

// Validate returns every fault, joined, each naming its key. It opens no socket and reads
// no file, so [Config.Open] or [NewTLS] may still fail.
func (c Config) Validate() error {
	var f faults
	network, _, err := splitAddress(c.Address)
	if err != nil {
		f.addf("address", "%w", err)
	}
	c.TLS.check(&f)
	c.ProxyProtocol.check(&f)
	if p := c.ProxyProtocol; network == "unix" && p.Mode == ProxyRequired && len(p.Trusted) > 0 && !slices.Contains(p.Trusted, TrustUnix) {
		f.addf("proxy_protocol.trusted", "without %s nobody gets in at a Unix socket", TrustUnix)
	}
	for _, name := range c.Protocols {
		if !slices.Contains(protocolNames, name) {
			f.addf("protocols", "unknown %q; want some of %s", name, strings.Join(protocolNames, ", "))
		}
	}
	c.checkSocket(network == "unix", &f)
	c.checkFile(network, &f)
	return errors.Join(f...)
}

// faults collects what is wrong with a configuration.
type faults []error

func (f *faults) addf(key, format string, args ...any) {
	*f = append(*f, fmt.Errorf("listeners: "+key+": "+format, args...))
}

// The bounds of the socket options.
const (
	// maxReusePort is far above the number of processors, beyond which sockets are useless.
	maxReusePort = 1024
	// minKeepalive is the kernel's unit of keepalive times.
	minKeepalive = time.Second
	// maxKeepalive is MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL of Linux.
	maxKeepalive = 32767 * time.Second
	// maxUserTimeout is what fits in the kernel's int of milliseconds: 24 days.
	maxUserTimeout = math.MaxInt32 * time.Millisecond
)

// checkSocket finds the faults of the socket options.
func (c Config) checkSocket(isUnix bool, f *faults) {
	switch {
	case c.ReusePort < 0:
		f.addf("reuse_port", "%d is below 0", c.ReusePort)
	case c.ReusePort > maxReusePort:
		f.addf("reuse_port", "%d is above %d", c.ReusePort, maxReusePort)
	case c.ReusePort > 1 && isUnix:
		f.addf("reuse_port", "%d: a Unix socket has no port that several could share", c.ReusePort)
	}
	if c.Backlog < 0 {
		f.addf("backlog", "%d is below 0", c.Backlog)
	}
	switch k := c.TCPKeepalive; {
	case k != 0 && (k < minKeepalive || k > maxKeepalive):
		f.addf("tcp_keepalive", "%v is neither 0 nor from %v to %v", k, minKeepalive, maxKeepalive)
	case isUnix && k != 0 && k != defaultKeepalive:
		f.addf("tcp_keepalive", "%v: a Unix socket is no TCP socket", k)
	}
	switch u := c.TCPUserTimeout; {
	case u != 0 && (u < time.Millisecond || u > maxUserTimeout):
		f.addf("tcp_user_timeout", "%v is neither 0 nor from 1ms to %v", u, maxUserTimeout)
	case isUnix && u != 0:
		f.addf("tcp_user_timeout", "%v: a Unix socket is no TCP socket", u)
	}
}

// checkFile finds the faults of the keys of a Unix socket's file.
func (c Config) checkFile(network string, f *faults) {
	for _, key := range []struct{ name, value string }{{"unix_mode", c.UnixMode}, {"unix_owner", c.UnixOwner}} {
		switch {
		case key.value == "":
		case network != "unix":
			f.addf(key.name, "%q: only the address unix:PATH has a file of its own", key.value)
		case strings.HasPrefix(c.Address, unixPrefix+"@"):
			f.addf(key.name, "%q: an abstract socket has no file", key.value)
		}
	}
	if _, err := c.fileMode(); err != nil {
		f.addf("unix_mode", "%w", err)
	}
	if user, group, _ := strings.Cut(c.UnixOwner, ":"); c.UnixOwner != "" && user == "" && group == "" {
		f.addf("unix_owner", "%q is none of USER, USER:GROUP and :GROUP", c.UnixOwner)
	}
}

// fileMode returns UnixMode as a number.
func (c Config) fileMode() (fs.FileMode, error) {
	if c.UnixMode == "" {
		return 0, nil
	}
	mode, err := strconv.ParseUint(c.UnixMode, 8, 32)
	if err != nil || mode > uint64(fs.ModePerm) {
		return 0, fmt.Errorf("%q is not a number in octal from 0000 to 0777", c.UnixMode)
	}
	return fs.FileMode(mode), nil
}
