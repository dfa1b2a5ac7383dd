package pool

import (
	"context"
	"errors"
	"fmt"
	"math"
)

// Config is the section of the limits that hold for all protocols together.
type Config struct {
	// MaxConnections bounds all connections together. 0: no bound. Default: nine tenths
	// of the descriptors that the process may open, less 64, and at most 50,000.
	MaxConnections int `apply:"runtime" yaml:"max_connections"`
	// PerAddress bounds the connections of one client address; see [Limits]. It
	// may be used only where the peer's address is the client's. 0, the default: no bound.
	PerAddress int `apply:"runtime" yaml:"per_address"`
	// OnLimit says what happens at MaxConnections: [Refuse] or [Wait]. Default refuse.
	OnLimit string `apply:"runtime" yaml:"on_limit"`
}

// The values of Config.OnLimit.
const (
	Refuse = "refuse" // A connection too many is accepted and refused in the words of its protocol.
	Wait   = "wait"   // It is left in the kernel's queue until there is room.
)

const (
	maxDefaultConnections = 50_000 // bounds the default of MaxConnections
	reservedFiles         = 64     // descriptors that the process needs for other things
	usableFiles           = 9      // the part of the rest, in tenths, for connections
)

// DefaultConfig returns the defaults. MaxConnections is nine tenths of the
// descriptors that the process may open, less 64, and at most 50,000.
func DefaultConfig() Config {
	return Config{MaxConnections: defaultConnections(fileLimit()), OnLimit: Refuse}
}

func defaultConnections(files uint64) int {
	if files <= reservedFiles {
		return 1
	}
	usable := min(files-reservedFiles, maxDefaultConnections*10/usableFiles+10) // So that it does not overflow.
	return int(max(1, min(usable*usableFiles/10, maxDefaultConnections)))
}

// Validate reports every field that is out of range, each by its name in the file.
func (c Config) Validate() error {
	var faults []error
	if c.MaxConnections < 0 {
		faults = append(faults, fmt.Errorf("pool: limits.max_connections: %d must not be negative", c.MaxConnections))
	}
	if c.PerAddress < 0 {
		faults = append(faults, fmt.Errorf("pool: limits.per_address: %d must not be negative", c.PerAddress))
	}
	if c.OnLimit != Refuse && c.OnLimit != Wait {
		faults = append(faults, fmt.Errorf("pool: limits.on_limit: %q is not one of %s, %s", c.OnLimit, Refuse, Wait))
	}
	return errors.Join(faults...)
}

// Limits bounds how many connections may be open at a time. Zero means no bound. Where
// Config.OnLimit is [Wait], the caller waits by [Set.WaitRoom] before it accepts.
//
// For Config.PerAddress a client is an IPv4 address, or an IPv6 network of 64 bits, which
// is what one customer is given (RFC 6177). Peers without an IP address are not counted.
type Limits struct {
	Config

	PerTag map[Tag]int  // bounds single pools
	Health HealthConfig // when a pool comes near to its limit; zero is [DefaultHealthConfig]
}

// The reasons for which a connection is refused because of a limit.
const (
	ReasonLimit        = "limit"        // of all connections, or of its pool
	ReasonAddressLimit = "per_ip_limit" // of its client
)

// rules are what the pools are judged by.
type rules struct {
	Limits

	unavailable bool
}

// ruled returns the rules in force.
func (s *Set) ruled() rules {
	if r := s.rules.Load(); r != nil {
		return *r
	}
	return rules{Limits: Limits{Health: DefaultHealthConfig()}}
}

// change puts new rules in force and judges every pool by them.
func (s *Set) change(edit func(*rules)) {
	var events pendingEvents
	s.mu.Lock()
	defer s.unlock(&events)
	r := s.ruled()
	edit(&r)
	s.rules.Store(&r)
	for tag := range r.PerTag {
		s.openAccount(tag)
	}
	s.judge(TotalTag, &s.all, &events)
	for _, a := range s.allAccounts() {
		s.judge(a.tag, &a.tally, &events)
	}
	s.wakeAll()
}

// SetLimits puts new limits in force. Connections that are open above a lowered limit
// stay. A client's connections are counted from the moment at which PerAddress is set.
func (s *Set) SetLimits(l Limits) {
	if l.Health == (HealthConfig{}) {
		l.Health = DefaultHealthConfig()
	}
	s.change(func(r *rules) { r.Limits = l })
}

// takePlace takes a place for a new connection. It reports false where there is none.
func (s *Set) takePlace() bool {
	r := s.ruled()
	if r.OnLimit == Wait || r.MaxConnections <= 0 {
		s.taken.Add(1)
		return true
	}
	for {
		taken := s.taken.Load()
		if taken >= int64(r.MaxConnections) {
			return false
		}
		if s.taken.CompareAndSwap(taken, taken+1) {
			return true
		}
	}
}

// hasRoom reports whether the limit of all connections leaves a place.
func (s *Set) hasRoom() bool {
	total := s.ruled().MaxConnections
	return total <= 0 || s.taken.Load() < int64(total)
}

// Exempt has c take no place any more in the limit of all connections and in that of its
// client, because a connection that is being refused must not keep others out. One that
// Add or Identify has refused is exempt already.
func (s *Set) Exempt(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exempt(c, false)
}

// ExemptInner is Exempt for a connection within the process, which takes no descriptor
// either.
func (s *Set) ExemptInner(c *Conn) {
	stripe := s.stripeOf(c)
	stripe.mu.Lock()
	if !c.isRemoved() && c.status.Or(innerBit)&innerBit == 0 {
		s.inner.Add(1)
	}
	stripe.mu.Unlock()
	s.Exempt(c)
}

// exempt is Exempt, or Yield where c yields, for a caller that holds mu. It reports whether
// a live connection has become exempt.
func (s *Set) exempt(c *Conn, yields bool) bool {
	stripe := s.stripeOf(c)
	stripe.mu.Lock()
	defer stripe.mu.Unlock()
	if c.isRemoved() || c.status.Or(exemptBit)&exemptBit != 0 {
		return false
	}
	s.taken.Add(-1)
	if a := c.account.Load(); yields && a.tag != Sniffing { // A move out of that takes no lock.
		c.status.Or(yieldedBit)
		s.yielded.Add(1)
		a.places.Add(-1)
	}
	s.forget(c)
	s.wakeAll()
	return true
}

// IsExempt reports whether c takes no place, because of Exempt, Yield or a refusal.
func (c *Conn) IsExempt() bool { return c.status.Load()&exemptBit != 0 }

// Above returns how many live connections of the network take no place: those that are
// being refused, or leave, and exempt ones.
func (s *Set) Above() int { return int(s.all.active.Load() - s.taken.Load() - s.inner.Load()) }

// Spare returns how many connections may be open above Config.MaxConnections, as far as the
// descriptors go: half of those that it leaves. The other half is the process's.
func (s *Set) Spare() int {
	files, total := min(fileLimit(), math.MaxInt32), uint64(max(0, s.ruled().MaxConnections))
	return int((files - min(files, total)) / 2)
}

// Reserve takes a place in the pool named tag, for [Set.MoveReserved] or [Set.Release].
// It reports false where the pool is full.
func (s *Set) Reserve(c *Conn, tag Tag) bool {
	places, limit := &s.account(tag).places, int64(s.ruled().PerTag[tag])
	for {
		taken := places.Load()
		if limit > 0 && taken >= limit {
			s.Report(Event{Kind: EventLimitReached, Conn: c, Tag: tag, Reason: ReasonLimit})
			return false
		}
		if places.CompareAndSwap(taken, taken+1) {
			return true
		}
	}
}

// Yield has c, which is about to leave, give up its place in all limits, for a connection
// that comes. It gets a place again in a pool that it moves to. It reports false where c
// is closed, or has done so before.
func (s *Set) Yield(c *Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exempt(c, true)
}

// retakePlace is called where a connection leaves a pool, for one that has yielded its
// place there. The caller holds the stripe.
func (s *Set) retakePlace(c *Conn, from *account) {
	if c.status.And(^uint32(yieldedBit))&yieldedBit != 0 {
		s.yielded.Add(-1)
		from.places.Add(1)
	}
}

// Yielded returns how many live connections have given up a pool's place by Yield.
func (s *Set) Yielded() int { return int(s.yielded.Load()) }

// IsFull reports whether the pool named tag, or where tag is empty the Set, has as many
// connections as it may, or more, where the limit was lowered.
func (s *Set) IsFull(tag Tag) bool {
	taken, limit := &s.taken, int64(s.ruled().MaxConnections)
	if tag != "" {
		taken, limit = &s.account(tag).places, int64(s.ruled().PerTag[tag])
	}
	return limit > 0 && taken.Load() >= limit
}

// Excess returns how many more places of the pool named tag are taken than its limit allows,
// which may have fallen.
func (s *Set) Excess(tag Tag) int {
	limit := s.ruled().PerTag[tag]
	if limit <= 0 {
		return 0
	}
	return max(0, int(s.account(tag).places.Load())-limit)
}

// Release gives back a place that Reserve has taken and MoveReserved has not used.
func (s *Set) Release(tag Tag) { s.account(tag).places.Add(-1) }

// MoveWithin is [Set.Move] within the pool's limit. full is true, and nothing was done,
// where the pool is full.
func (s *Set) MoveWithin(c *Conn, tag Tag) (moved, full bool) {
	if moved, settled := c.account.Load().isIn(tag); settled {
		return moved, false
	}
	if !s.Reserve(c, tag) {
		return false, true
	}
	return s.MoveReserved(c, tag), false
}

// WaitRoom waits until fewer connections are open than Config.MaxConnections. It returns
// nil then, or ctx's error when that ends first.
func (s *Set) WaitRoom(ctx context.Context) error {
	s.roomWaiters.Add(1)
	defer s.roomWaiters.Add(-1)
	return s.wait(ctx, s.hasRoom)
}
