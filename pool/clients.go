package pool

import (
	"net"
	"net/netip"
	"slices"
)

// This file has the connections of each client, for [Config].PerAddress.

// Identify names the client of a connection where Add could not know it, such as behind a
// PROXY header, and counts the connection for that client. The result is empty, or the
// reason for which the connection is to be refused. It is called at most once for a
// connection.
func (s *Set) Identify(c *Conn, client net.Addr) (refuse string) {
	if s.ruled().PerAddress <= 0 {
		return ""
	}
	var events pendingEvents
	s.mu.Lock()
	defer s.unlock(&events)
	return s.identify(c, client, &events)
}

// identify is Identify for a caller that holds mu.
func (s *Set) identify(c *Conn, client net.Addr, events *pendingEvents) (refuse string) {
	most := s.ruled().PerAddress
	if most <= 0 {
		return ""
	}
	address, ok := ClientOf(client)
	if !ok || c.isRemoved() {
		return ""
	}
	if len(s.clients[address]) >= most {
		s.note(events, Event{Kind: EventLimitReached, Conn: c, Tag: c.Tag(), Reason: ReasonAddressLimit})
		s.exempt(c, false)
		refuse = ReasonAddressLimit
	}
	if s.setClient(c) {
		who := booked{address, c.IsExempt()}
		conns := s.connsOf(who)
		conns[address] = append(conns[address], c)
		s.addresses[c] = who
	}
	return refuse
}

// booked is whom a connection counts for, and whether it is being refused.
type booked struct {
	address netip.Addr
	refused bool
}

// connsOf returns the connections of its kind that each client has. The caller holds mu.
func (s *Set) connsOf(c booked) map[netip.Addr][]*Conn {
	if c.refused {
		return s.refused
	}
	return s.clients
}

// setClient reports whether c, which counts for its client, is to be taken note of, because
// it is live. Whoever removes c after that comes to forget.
func (s *Set) setClient(c *Conn) bool {
	stripe := s.stripeOf(c)
	stripe.mu.Lock()
	defer stripe.mu.Unlock()
	if c.isRemoved() {
		return false
	}
	c.status.Or(clientBit)
	return true
}

// RefusedOf returns how many connections of c's client are open that were refused as they
// came. It is 0 while clients are not limited.
func (s *Set) RefusedOf(c *Conn) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.refused[s.addresses[c].address])
}

// forget is the other half of Identify. The caller holds mu.
func (s *Set) forget(c *Conn) {
	if who, counted := s.addresses[c]; counted {
		delete(s.addresses, c)
		conns := s.connsOf(who)
		of := conns[who.address]
		i, last := slices.Index(of, c), len(of)-1
		of[i], of[last] = of[last], nil
		if conns[who.address] = of[:last]; last == 0 {
			delete(conns, who.address)
		}
	}
}

// IsClientFull reports whether a client has as many connections as it may, or more.
func (s *Set) IsClientFull(client netip.Addr) bool {
	most := s.ruled().PerAddress
	if most <= 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.clients[client]) >= most
}

// ClientConns returns the connections of a client that count for it.
func (s *Set) ClientConns(client netip.Addr) []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.clients[client])
}

// ClientOf returns the client of an address: an IPv4 address, or an IPv6 network of 64 bits.
// It reports false for an address of another kind.
func ClientOf(a net.Addr) (client netip.Addr, ok bool) {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}, false
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	if ip.Is6() {
		network, err := ip.Prefix(64)
		return network.Addr(), err == nil
	}
	return ip, ip.IsValid()
}
