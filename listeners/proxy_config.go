package listeners

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

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

// EffectiveMode returns Mode with its default resolved.
func (c ProxyConfig) EffectiveMode() string {
	if c.Mode == "" {
		return ProxyOff
	}
	return c.Mode
}

// Enabled reports whether headers are looked for.
func (c ProxyConfig) Enabled() bool { return c.EffectiveMode() != ProxyOff }

// Validate reports every fault at once, each naming its key. Peers that would be trusted
// in vain, because no mode is set, are a fault, except in an explicit "off".
func (c ProxyConfig) Validate() error {
	var faults []error
	switch c.EffectiveMode() {
	case ProxyOff:
		if c.Mode == "" && len(c.Trusted) > 0 {
			faults = append(faults, errors.New("listeners: proxy_protocol.trusted: has no effect without mode: optional or required"))
		}
	case ProxyOptional, ProxyRequired:
		if len(c.Trusted) == 0 {
			faults = append(faults, fmt.Errorf("listeners: proxy_protocol.trusted: needed in mode %s: the networks of the balancers", c.Mode))
		}
	default:
		faults = append(faults, fmt.Errorf("listeners: proxy_protocol.mode: unknown %q; want off, optional or required", c.Mode))
	}
	_, errs := parseTrusted(c.Trusted)
	return errors.Join(append(faults, errs...)...)
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
			faults = append(faults, fmt.Errorf("listeners: proxy_protocol.trusted: %w", err))
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
