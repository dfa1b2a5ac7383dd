package pool

import (
	"context"
	"net"
	"net/netip"
)

// Limits bounds how many connections may be open at a time. Zero means no bound.
type Limits struct {
	// Total bounds all pools together.
	Total int
	// Wait has nobody refused because of Total: the caller waits by [Set.WaitRoom] before it accepts.
	Wait bool
	// PerTag bounds single pools.
	PerTag map[Tag]int
	// PerAddress bounds the connections of one client: an IPv4 address, or an
	// IPv6 network of 64 bits, which is what one customer is given (RFC 6177).
	// It means something only where the peer's address is the client's, and does
	// not count peers without an IP address.
	PerAddress int
}

// The reasons for which a connection is refused because of a limit.
const (
	ReasonLimit        = "limit"        // of all connections, or of its pool
	ReasonAddressLimit = "per_ip_limit" // of its client
)

// SetLimits puts new limits in force. They hold for what comes: connections
// that are open above a lowered limit stay. A client's connections are counted
// only from the moment at which PerAddress is set.
func (s *Set) SetLimits(l Limits) {
	s.mu.Lock()
	defer s.unlock()
	s.limits = l
	s.judgeAll()
	s.wakeAll()
}

// Limits returns the limits in force. The map must not be changed.
func (s *Set) Limits() Limits {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limits
}

// admit returns the reason for which a connection that is being added is to be
// refused, if there is one. The caller holds mu.
func (s *Set) admit() string {
	if !s.limits.Wait && s.limits.Total > 0 && s.counted() >= s.limits.Total {
		return ReasonLimit
	}
	return ""
}

// counted returns how many connections take a place. The caller holds mu.
func (s *Set) counted() int { return len(s.conns) - s.exempt }

// Exempt has c take no place any more, in the limit of all connections and in that of its client: it is
// being refused, which takes a moment, and must not keep others out meanwhile. A connection that
// Add or Identify has refused is exempt already.
func (s *Set) Exempt(c *Conn) {
	s.mu.Lock()
	defer s.unlock()
	if _, live := s.conns[c]; live {
		s.exemptConn(c)
	}
}

// exemptConn is Exempt for a caller that holds mu, and a live connection.
func (s *Set) exemptConn(c *Conn) {
	if c.status.Or(exemptBit)&exemptBit != 0 {
		return
	}
	s.exempt++
	s.forget(c)
	s.wakeAll()
}

// Identify says who the client of a connection is, once that is known: for a
// plain socket at the accept, behind a PROXY header when it has been read. Where
// clients are limited it counts the connection for that one; the result is
// empty, or the reason for which the connection is to be refused. It is called at most once for a connection.
func (s *Set) Identify(c *Conn, client net.Addr) (refuse string) {
	s.mu.Lock()
	defer s.unlock()
	if _, live := s.conns[c]; !live || s.limits.PerAddress <= 0 {
		return ""
	}
	address, ok := clientOf(client)
	if !ok {
		return ""
	}
	if s.clients == nil {
		s.clients = make(map[netip.Addr]int)
		s.addresses = make(map[*Conn]netip.Addr)
	}
	if s.clients[address] >= s.limits.PerAddress {
		refuse = ReasonAddressLimit
		s.note(Event{Kind: EventLimitReached, Conn: c, Tag: s.tag(c), Reason: refuse})
		s.exemptConn(c)
		return refuse
	}
	if c.status.Load()&exemptBit == 0 {
		s.clients[address]++
		s.addresses[c] = address
	}
	return ""
}

// forget is the other half of Identify. The caller holds mu.
func (s *Set) forget(c *Conn) {
	address, counted := s.addresses[c]
	if !counted {
		return
	}
	delete(s.addresses, c)
	if s.clients[address]--; s.clients[address] == 0 {
		delete(s.clients, address)
	}
}

// clientBits is the part of an IPv6 address that tells clients apart.
const clientBits = 64

// clientOf returns what PerAddress counts by.
func clientOf(a net.Addr) (netip.Addr, bool) {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}, false
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	if ip.Is6() {
		network, err := ip.Prefix(clientBits)
		if err != nil {
			return netip.Addr{}, false
		}
		return network.Addr(), true
	}
	return ip, ip.IsValid()
}

// Reserve takes a place in the pool named tag, for a connection that is about to
// be moved there by [Set.MoveReserved]. It reports false where the pool is full. A
// place that is not used must be given back with [Set.Release].
func (s *Set) Reserve(tag Tag) bool {
	s.mu.Lock()
	defer s.unlock()
	return s.reserve(tag, nil)
}

// reserve is Reserve for c, which may be nil, and for a caller that holds mu and calls unlock.
func (s *Set) reserve(tag Tag, c *Conn) bool {
	a := s.account(tag)
	if limit := s.limits.PerTag[tag]; limit > 0 && int(a.totals.Active)+a.reserved >= limit {
		s.note(Event{Kind: EventLimitReached, Conn: c, Tag: tag, Reason: ReasonLimit})
		return false
	}
	a.reserved++
	return true
}

// Full reports whether the pool named tag has no place at the moment.
func (s *Set) Full(tag Tag) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.account(tag)
	limit := s.limits.PerTag[tag]
	return limit > 0 && int(a.totals.Active)+a.reserved >= limit
}

// Release gives back a place that Reserve has taken.
func (s *Set) Release(tag Tag) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.account(tag).reserved--
}

// MoveReserved is [Set.Move] into a place that Reserve has taken, which is used
// up in any case.
func (s *Set) MoveReserved(c *Conn, tag Tag) bool {
	s.mu.Lock()
	defer s.unlock()
	s.account(tag).reserved--
	return s.move(c, tag)
}

// MoveWithin is [Set.Move] for a connection that may be refused: full is true,
// and nothing was done, where the pool named tag is full.
func (s *Set) MoveWithin(c *Conn, tag Tag) (moved, full bool) {
	s.mu.Lock()
	defer s.unlock()
	if s.tag(c) == tag {
		return s.move(c, tag), false
	}
	if !s.reserve(tag, c) {
		return false, true
	}
	s.account(tag).reserved--
	return s.move(c, tag), false
}

// WaitRoom waits until fewer connections are open than Limits.Total. It returns
// nil then, or ctx's error when that ends first.
func (s *Set) WaitRoom(ctx context.Context) error {
	return s.wait(ctx, func() bool { return s.limits.Total <= 0 || s.counted() < s.limits.Total })
}
