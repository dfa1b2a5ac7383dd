package listeners

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// The values of ProxyConfig.Mode.
const (
	ProxyOff      = "off"      // connections begin with the client's bytes
	ProxyOptional = "optional" // trusted peers may send a header, others must not
	ProxyRequired = "required" // trusted peers must send a header, others are refused
)

// TrustUnix in ProxyConfig.Trusted stands for every peer of a Unix-domain socket. Such
// peers have no address.
const TrustUnix = "unix"

// ProxyConfig says whether connections begin with a PROXY protocol header, by which a
// balancer passes the client's address on. The zero value is off. It is plain data; see
// [NewProxyListener].
type ProxyConfig struct {
	// Mode is off, optional or required. Empty means off. The specification wants required:
	// in optional, a client behind a balancer that adds no header can send a header of its
	// own. Use optional while balancers are being switched over.
	Mode string `apply:"restart" yaml:"mode"`

	// Trusted are the balancers: networks ("10.0.0.0/8", "fd00::/8"), single addresses
	// ("10.0.0.1") or "unix". Needed in optional and required.
	Trusted []string `apply:"restart" yaml:"trusted"`
}

// mode returns Mode with its default filled in.
func (c ProxyConfig) mode() string {
	if c.Mode == "" {
		return ProxyOff
	}
	return c.Mode
}

// Trusts reports whether a peer may send a header. It is only of use for a valid c.
func (c ProxyConfig) Trusts(peer net.Addr) bool {
	return parseTrusted(c.Trusted, new(faults)).holds(peer)
}

// check finds the faults, and returns the trusted peers. Trusted peers without a mode are
// a fault, except in an explicit "off".
func (c ProxyConfig) check(f *faults) trust {
	switch c.mode() {
	case ProxyOff:
		if c.Mode == "" && len(c.Trusted) > 0 {
			f.addf("proxy_protocol.trusted", "has no effect without mode: optional or required")
		}
	case ProxyOptional, ProxyRequired:
		if len(c.Trusted) == 0 {
			f.addf("proxy_protocol.trusted", "needed in mode %s: the networks of the balancers", c.Mode)
		}
	default:
		f.addf("proxy_protocol.mode", "unknown %q; want off, optional or required", c.Mode)
	}
	return parseTrusted(c.Trusted, f)
}

// NewProxyListener returns a listener whose connections begin with a PROXY protocol
// header, version 1 or 2, as c says. It takes l over. With mode off it returns l.
//
// A connection's RemoteAddr is then the client, and its LocalAddr what the client
// connected to. Where the balancer speaks for itself (LOCAL, or UNKNOWN in version 1), as
// in health checks, both are the socket's. See [ProxyInfoOf] for the rest of the header.
// The header may come in pieces, within three seconds.
//
// Accept never waits for a header. The first Read, Write or RemoteAddr of a connection
// does, so call them in the connection's own goroutine. LocalAddr does not wait, and is
// the socket's until then. All reads and writes fail where the header is missing, broken,
// too slow or not from a trusted peer. The method HeaderError() error waits and returns
// that error: [ErrProxySilent] for a peer that has sent nothing.
func NewProxyListener(l net.Listener, c ProxyConfig) (net.Listener, error) {
	var f faults
	trusted := c.check(&f)
	if err := errors.Join(f...); err != nil {
		return nil, err
	}
	if c.mode() == ProxyOff {
		return l, nil
	}
	return &proxyListener{layer{l}, trusted, c.Mode == ProxyRequired}, nil
}

// proxyHeaderTimeout bounds the wait for a whole header. A balancer sends it at once, so
// this is the time to send a lost packet again, twice.
const proxyHeaderTimeout = 3 * time.Second

// proxyListener accepts connections that begin with a header.
type proxyListener struct {
	layer

	trusted  trust
	required bool
}

func (l *proxyListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &proxyConn{Conn: conn, trusted: l.trusted.holds(conn.RemoteAddr()), required: l.required}, nil
}

// trust is the set of peers that may send a header.
type trust struct {
	networks []netip.Prefix
	unix     bool
}

func parseTrusted(entries []string, f *faults) (t trust) {
	for _, entry := range entries {
		if entry == TrustUnix {
			t.unix = true
		} else if network, ok := parseNetwork(entry); ok {
			t.networks = append(t.networks, network)
		} else {
			f.addf("proxy_protocol.trusted", "%q is not a network such as 10.0.0.0/8, an address such as 10.0.0.1, or %s", entry, TrustUnix)
		}
	}
	return t
}

// mappedBits is the length of the prefix before a mapped IPv4 address (RFC 4291 section
// 2.5.5.2).
const mappedBits = 96

// parseNetwork reads a network or a single address, which is a network of one.
func parseNetwork(entry string) (netip.Prefix, bool) {
	network, err := netip.ParsePrefix(entry)
	if !strings.Contains(entry, "/") {
		var address netip.Addr
		address, err = netip.ParseAddr(entry)
		network = netip.PrefixFrom(address.WithZone(""), address.BitLen())
		if address.Zone() != "" {
			return network, false
		}
	}
	if network.Addr().Is4In6() && network.Bits() >= mappedBits {
		network = netip.PrefixFrom(network.Addr().Unmap(), network.Bits()-mappedBits)
	}
	return network, err == nil
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
