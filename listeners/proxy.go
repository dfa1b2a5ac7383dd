package listeners

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// NewProxyListener returns a listener whose connections begin with a PROXY
// protocol header, version 1 or 2, as c says. It takes l over. With mode off it is l itself.
//
// A connection's addresses are then those of the header: RemoteAddr is the client, LocalAddr what
// the client connected to. Where the balancer speaks for itself (LOCAL, or UNKNOWN in version 1), as
// its health checks do, they stay those of the socket. What else it says is for [ProxyInfoOf]. The header may come in pieces, within three seconds.
//
// Accept never waits for a header. The first Read, Write or RemoteAddr of a connection does, so
// each of them belongs in the connection's own goroutine; LocalAddr does not wait, and is the
// socket's until then. A connection whose header is missing, broken, too slow or not to be trusted fails
// all reads and writes. Its method HeaderError() error says so beforehand; the error is [ErrProxySilent]
// for a peer that has sent nothing.
func NewProxyListener(l net.Listener, c ProxyConfig) (net.Listener, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if c.mode() == ProxyOff {
		return l, nil
	}
	trusted, _ := parseTrusted(c.Trusted) // Validate has seen the faults.
	return &proxyListener{layer: layer{l}, trusted: trusted, required: c.Mode == ProxyRequired}, nil
}

// ErrProxySilent is the error of a connection that was closed, or kept silent, before its first byte.
var ErrProxySilent = errors.New("listeners: proxy header: nothing was sent")

// proxyHeaderTimeout bounds the wait for a whole header. A balancer sends it at
// once, so this is the time for a lost packet to be sent again, twice.
const proxyHeaderTimeout = 3 * time.Second

// proxyListener accepts connections that begin with a header.
type proxyListener struct {
	layer

	trusted  trust
	required bool
}

// Accept implements [net.Listener].
func (l *proxyListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &proxyConn{Conn: conn, trusted: l.trusted.holds(conn.RemoteAddr()), required: l.required}, nil
}

// The values of ProxyConfig.Mode.
const (
	ProxyOff      = "off"      // connections begin with what the client says
	ProxyOptional = "optional" // trusted peers may send a header, others must not
	ProxyRequired = "required" // trusted peers must send a header, others are refused
)

// TrustUnix is the entry of ProxyConfig.Trusted that stands for every peer of a
// Unix-domain socket. Such a peer has no address to go by.
const TrustUnix = "unix"

// ProxyConfig says whether connections begin with a PROXY protocol header, by
// which a balancer tells who the client is. The zero value is off. It is plain
// data; see [NewProxyListener].
type ProxyConfig struct {
	// Mode is off, optional or required. Empty means off. The specification
	// wants required, because a client behind the balancer could begin with a header of its own
	// where none is put before it; optional is for the time in which balancers are switched over.
	Mode string `apply:"restart" yaml:"mode"`

	// Trusted are the balancers: networks ("10.0.0.0/8", "fd00::/8"), single
	// addresses ("10.0.0.1") or "unix". Needed in optional and required.
	Trusted []string `apply:"restart" yaml:"trusted"`
}

// mode returns Mode with its default filled in.
func (c ProxyConfig) mode() string {
	if c.Mode == "" {
		return ProxyOff
	}
	return c.Mode
}

// validate returns every fault, joined.
func (c ProxyConfig) validate() error {
	var f faults
	c.check(&f)
	return errors.Join(f...)
}

// check finds the faults. Trusted peers without a mode are one, except in an explicit "off".
func (c ProxyConfig) check(f *faults) {
	switch c.mode() {
	case ProxyOff:
		if c.Mode == "" && len(c.Trusted) > 0 {
			f.add("proxy_protocol.trusted", "has no effect without mode: optional or required")
		}
	case ProxyOptional, ProxyRequired:
		if len(c.Trusted) == 0 {
			f.add("proxy_protocol.trusted", "needed in mode %s: the networks of the balancers", c.Mode)
		}
	default:
		f.add("proxy_protocol.mode", "unknown %q; want off, optional or required", c.Mode)
	}
	_, errs := parseTrusted(c.Trusted)
	for _, err := range errs {
		f.add("proxy_protocol.trusted", "%w", err)
	}
}

// trust is who may send a header.
type trust struct {
	networks []netip.Prefix
	unix     bool
}

func parseTrusted(entries []string) (t trust, faults []error) {
	for _, entry := range entries {
		if entry == TrustUnix {
			t.unix = true
			continue
		}
		network, err := parseNetwork(entry)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		t.networks = append(t.networks, network)
	}
	return t, faults
}

// mappedBits is how much of an IPv6 address stands before an IPv4 one that is mapped into it (RFC 4291 section 2.5.5.2).
const mappedBits = 96

// parseNetwork reads a network or a single address, which is a network of one.
func parseNetwork(entry string) (netip.Prefix, error) {
	unusable := fmt.Errorf("%q is not a network such as 10.0.0.0/8, an address such as 10.0.0.1, or %s", entry, TrustUnix)
	var network netip.Prefix
	if strings.Contains(entry, "/") {
		var err error
		if network, err = netip.ParsePrefix(entry); err != nil {
			return netip.Prefix{}, unusable
		}
	} else {
		address, err := netip.ParseAddr(entry)
		if err != nil || address.Zone() != "" {
			return netip.Prefix{}, unusable
		}
		network = netip.PrefixFrom(address, address.BitLen())
	}
	if network.Addr().Is4In6() && network.Bits() >= mappedBits {
		network = netip.PrefixFrom(network.Addr().Unmap(), network.Bits()-mappedBits)
	}
	return network, nil
}

// holds reports whether peer is trusted.
func (t trust) holds(peer net.Addr) bool {
	switch peer := peer.(type) {
	case *net.TCPAddr:
		// A socket that listens on all of IPv6 shows IPv4 peers as mapped addresses.
		address := peer.AddrPort().Addr().Unmap().WithZone("")
		return slices.ContainsFunc(t.networks, func(n netip.Prefix) bool { return n.Contains(address) })
	case *net.UnixAddr:
		return t.unix
	default:
		return false
	}
}
