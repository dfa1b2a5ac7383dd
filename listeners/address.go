package listeners

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

const (
	unixPrefix      = "unix:" // before the path of a Unix-domain socket
	inheritedPrefix = "fd:"   // before the name of a service manager's sockets
	// ipv6OnlyPrefix stands before "[::]:PORT" where 0.0.0.0 is listened on beside it. It is
	// made by [Arrange] and is no part of the configuration.
	ipv6OnlyPrefix = "ipv6only:"
)

// splitAddress returns the network and the address as package net wants them. 0.0.0.0
// means IPv4 alone: in the network "tcp", package net would take it for both families.
func splitAddress(address string) (network, target string, err error) {
	if path, ok := strings.CutPrefix(address, unixPrefix); ok {
		if path == "" {
			return "", "", fmt.Errorf("%q has no path after %q", address, unixPrefix)
		}
		return "unix", path, nil
	}
	// net.Listen takes an empty address for a random port on every interface, which is
	// not meant where the key is missing.
	if address == "" {
		return "", "", errors.New(`empty; want "host:port" or "unix:PATH"`)
	}
	if target, ok := strings.CutPrefix(address, ipv6OnlyPrefix); ok {
		return "tcp6", target, nil
	}
	if a, ok := parseTCP(address); ok && a.ip == netip.IPv4Unspecified() {
		return "tcp4", address, nil
	}
	return "tcp", address, nil
}

// isIPv6Only reports whether [Arrange] has left an address to IPv6.
func isIPv6Only(address string) bool { return strings.HasPrefix(address, ipv6OnlyPrefix) }

// tcpAddress is a "host:port".
type tcpAddress struct {
	host string     // empty for all addresses
	ip   netip.Addr // invalid where host is a name, or empty
	port string     // without leading zeros
}

// parseTCP reads a "host:port". It resolves no name but localhost, for which package net
// listens on the IPv4 address.
func parseTCP(address string) (a tcpAddress, ok bool) {
	host, port, err := net.SplitHostPort(strings.TrimPrefix(address, ipv6OnlyPrefix))
	if err != nil {
		return a, false
	}
	a = tcpAddress{host: strings.ToLower(host), port: port}
	if n, err := strconv.ParseUint(port, 10, 16); err == nil {
		a.port = strconv.FormatUint(n, 10)
	}
	if a.host == "localhost" {
		a.host = "127.0.0.1"
	}
	if ip, err := netip.ParseAddr(a.host); err == nil {
		a.ip = ip.Unmap()
	}
	return a, true
}

// overlaps reports whether both stand for the same port of the same address, where "[::]"
// has the addresses of IPv4, too. Nothing is known of names.
func (a tcpAddress) overlaps(b tcpAddress) bool {
	all := func(a tcpAddress) bool { return a.host == "" || a.ip == netip.IPv6Unspecified() }
	switch {
	case a.port != b.port || a.port == "0" || a.port == "":
		return false
	case all(a) || all(b) || a.host == b.host:
		return true
	case !a.ip.IsValid() || !b.ip.IsValid():
		return false
	default:
		return a.ip == b.ip || a.ip.Is4() && b.ip.Is4() && (a.ip.IsUnspecified() || b.ip.IsUnspecified())
	}
}

// isFamilyPair reports whether one is "[::]" and the other is "0.0.0.0", of the same port.
func isFamilyPair(a, b tcpAddress) bool {
	return a.port == b.port && a.port != "0" && (a.ip == netip.IPv6Unspecified() && b.ip == netip.IPv4Unspecified() ||
		b.ip == netip.IPv6Unspecified() && a.ip == netip.IPv4Unspecified())
}

// overlap reports whether two addresses need the same port, the same path or the same
// sockets of the service manager.
func overlap(a, b string) bool {
	pathA, unixA := strings.CutPrefix(a, unixPrefix)
	pathB, unixB := strings.CutPrefix(b, unixPrefix)
	if unixA || unixB {
		return unixA && unixB && samePath(pathA, pathB)
	}
	if strings.HasPrefix(a, inheritedPrefix) || strings.HasPrefix(b, inheritedPrefix) {
		return a == b
	}
	tcpA, okA := parseTCP(a)
	tcpB, okB := parseTCP(b)
	return okA && okB && tcpA.overlaps(tcpB)
}

// Collide reports whether two addresses of [Config] cannot be listened on at a time: the
// same one written in two ways, or 0.0.0.0:80 and 127.0.0.1:80. "[::]" and "0.0.0.0" can;
// see [Arrange]. Port 0 collides with nothing. Names other than localhost are not resolved.
func Collide(a, b string) bool {
	tcpA, okA := parseTCP(a)
	tcpB, okB := parseTCP(b)
	return overlap(a, b) && !(okA && okB && isFamilyPair(tcpA, tcpB))
}

// Arrange returns the configurations as they are to be opened together. "[::]" stands for
// both families; where "0.0.0.0" is among them with the same port, it is left to IPv6.
func Arrange(configs []Config) []Config {
	arranged := slices.Clone(configs)
	for i, c := range configs {
		a, ok := parseTCP(c.Address)
		if !ok || a.ip != netip.IPv6Unspecified() {
			continue
		}
		if slices.ContainsFunc(configs, func(o Config) bool {
			b, ok := parseTCP(o.Address)
			return ok && isFamilyPair(a, b)
		}) {
			arranged[i].Address = ipv6OnlyPrefix + c.Address
		}
	}
	return arranged
}
