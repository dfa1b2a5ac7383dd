package listeners

import (
	"context"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// take removes the inherited socket for address, and returns it. It returns nil where
// there is none.
func (s *Sockets) take(ctx context.Context, address string) *inheritedSocket {
	if in := s.takeFirst(func(in *inheritedSocket) bool { return in.Address == address }); in != nil {
		return in
	}
	network, target, err := splitAddress(address)
	switch {
	case err != nil || strings.HasPrefix(address, inheritedPrefix):
		return nil
	case network == "unix":
		return s.takeFirst(func(in *inheritedSocket) bool {
			return in.Addr().Network() == network && samePath(in.Addr().String(), target)
		})
	case !s.left():
		return nil // Names need not be resolved.
	}
	for _, meant := range resolve(ctx, target) {
		if in := s.takeFirst(func(in *inheritedSocket) bool { return boundTo(in.Addr(), meant) }); in != nil {
			return in
		}
	}
	return nil
}

// left reports whether there are inherited sockets that Listen has not returned.
func (s *Sockets) left() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.inherited) > 0
}

// takeFirst removes the first socket that is meant, and returns it.
func (s *Sockets) takeFirst(meant func(*inheritedSocket) bool) *inheritedSocket {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.IndexFunc(s.inherited, meant)
	if at < 0 {
		return nil
	}
	in := s.inherited[at]
	s.inherited = slices.Delete(s.inherited, at, at+1)
	return in
}

// resolve returns the addresses that "host:port" stands for. It returns none for an
// address that cannot be resolved; opening it says why.
func resolve(ctx context.Context, address string) []netip.AddrPort {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		named, lerr := net.DefaultResolver.LookupPort(ctx, "tcp", service)
		if lerr != nil {
			return nil
		}
		port = uint64(named)
	}
	if host == "" {
		return []netip.AddrPort{netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(port))}
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil
	}
	var all []netip.AddrPort
	for _, ip := range ips {
		all = append(all, netip.AddrPortFrom(ip.Unmap(), uint16(port)))
	}
	return all
}

// boundTo reports whether a socket's address is the one that is meant. The unspecified
// addresses of IPv4 and IPv6 are the same, because package net opens one socket for both.
// Port 0 matches no socket.
func boundTo(addr net.Addr, meant netip.AddrPort) bool {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return false
	}
	bound := tcp.AddrPort()
	if bound.Port() != meant.Port() || meant.Port() == 0 {
		return false
	}
	if bound.Addr().IsUnspecified() || meant.Addr().IsUnspecified() {
		return bound.Addr().IsUnspecified() && meant.Addr().IsUnspecified()
	}
	return bound.Addr().Unmap() == meant.Addr()
}

// samePath compares the paths of two Unix sockets, one of which may be relative.
func samePath(a, b string) bool {
	absolute := func(path string) string {
		if full, err := filepath.Abs(path); err == nil {
			return full
		}
		return path
	}
	return a == b || a != "" && b != "" && absolute(a) == absolute(b)
}
