package pool

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"
)

// Health says how near a pool is to its limit.
type Health uint8

// The states of health, each worse than the one before.
const (
	Healthy     Health = iota // there is room
	Degraded                  // the limit comes near
	Overloaded                // newcomers will soon be refused, or are
	Unavailable               // the server is not serving; see [Set.SetUnavailable]
)

var healthNames = [...]string{"healthy", "degraded", "overloaded", "unavailable"}

// String returns the state's name in lower case.
func (h Health) String() string { return nameOf(healthNames[:], int(h)) }

// MarshalText implements [encoding.TextMarshaler].
func (h Health) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// TotalTag stands for all pools together where health is told by tag. No pool may have
// this name.
const TotalTag Tag = "total"

const (
	// recovery is the part of a threshold at which a state is left, so that connections that
	// come and go do not raise an alarm each time.
	recovery = 0.9
	rounding = 1e-9 // In binary, a product may be a little below its decimal value.
)

// HealthConfig are the shares of a limit, from 0 to 1, above which a pool is not
// healthy. A state is left at nine tenths of its threshold.
type HealthConfig struct {
	// DegradedAbove is the share above which a pool is degraded. Default 0.8.
	DegradedAbove float64 `apply:"runtime" yaml:"degraded_above"`
	// OverloadedAbove is the share above which it is overloaded. Default 0.95.
	OverloadedAbove float64 `apply:"runtime" yaml:"overloaded_above"`
}

// DefaultHealthConfig returns a HealthConfig with every default filled in.
func DefaultHealthConfig() HealthConfig {
	return HealthConfig{DegradedAbove: 0.8, OverloadedAbove: 0.95}
}

// Validate reports every field that is out of range, each by its name in the file.
func (c HealthConfig) Validate() error {
	degraded := validShare("degraded_above", c.DegradedAbove)
	overloaded := validShare("overloaded_above", c.OverloadedAbove)
	if degraded == nil && overloaded == nil && c.OverloadedAbove < c.DegradedAbove {
		overloaded = fmt.Errorf("pool: health.overloaded_above: %v must not be below health.degraded_above, which is %v", c.OverloadedAbove, c.DegradedAbove)
	}
	return errors.Join(degraded, overloaded)
}

func validShare(key string, share float64) error {
	if math.IsNaN(share) || share <= 0 || share > 1 {
		return fmt.Errorf("pool: health.%s: %v must be above 0 and at most 1", key, share)
	}
	return nil
}

// HealthStatus is the health of one pool and the figures behind it.
type HealthStatus struct {
	Status Health  `json:"status"`
	Active int64   `json:"active"` // connections in the pool now
	Limit  int     `json:"limit"`  // how many there may be; 0 for no limit
	Ratio  float64 `json:"ratio"`  // active by limit; 0 where there is no limit
}

// SetUnavailable makes every pool Unavailable, as long as it is true: for a server that
// drains or has stopped. After that the pools are judged as if they had been healthy.
func (s *Set) SetUnavailable(unavailable bool) {
	s.change(func(r *rules) { r.unavailable = unavailable })
}

// Health returns the health of every pool that was ever used or has a limit, by tag, and
// under [TotalTag] the health of all together. A pool without a limit is healthy.
func (s *Set) Health() map[string]HealthStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.ruled()
	all := map[string]HealthStatus{string(TotalTag): statusOf(Health(s.all.health.Load()), int(s.all.active.Load()), r.MaxConnections)}
	for tag, a := range s.allAccounts() {
		limit, limited := r.PerTag[tag]
		if !limited && !a.isUsed() {
			continue
		}
		health := Health(a.health.Load())
		if r.unavailable { // Which an account that was opened since then does not know.
			health = Unavailable
		}
		all[string(tag)] = statusOf(health, int(a.active.Load()), limit)
	}
	return all
}

// statusOf returns the status of a pool with a limit; 0 or less is none.
func statusOf(health Health, active, limit int) HealthStatus {
	status := HealthStatus{Status: health, Active: int64(active), Limit: max(limit, 0)}
	if limit > 0 {
		status.Ratio = float64(active) / float64(limit)
	}
	return status
}

// A tally is what the health of a pool, or of all together, is judged by.
type tally struct {
	active atomic.Int64  // connections
	health atomic.Uint32 // a Health; changed with Set.mu held
}

// limit returns the limit of a pool, or with TotalTag that of all together.
func (r *rules) limit(tag Tag) int {
	if tag == TotalTag {
		return r.MaxConnections
	}
	return r.PerTag[tag]
}

// judge returns the health of a pool that was in the health old.
func (r *rules) judge(old Health, active, limit int) Health {
	share := statusOf(old, active, limit).Ratio
	above := func(threshold float64, state Health) bool {
		if state <= old && old != Unavailable {
			threshold = threshold*recovery + rounding
		}
		return share > threshold
	}
	switch {
	case r.unavailable:
		return Unavailable
	case above(r.Health.OverloadedAbove, Overloaded):
		return Overloaded
	case above(r.Health.DegradedAbove, Degraded):
		return Degraded
	default:
		return Healthy
	}
}

// judged returns the health that a pool, or with TotalTag all together, has, and the health
// that it should have. It is called after a change of what the pool is judged by.
func (s *Set) judged(tag Tag, t *tally) (old, now Health) {
	old = Health(t.health.Load())
	r := s.ruled()
	return old, r.judge(old, int(t.active.Load()), r.limit(tag))
}

// judge brings the health of a pool up to date, and notes a change. The caller holds mu.
func (s *Set) judge(tag Tag, t *tally, events *pendingEvents) {
	for {
		old, now := s.judged(tag, t)
		if now == old {
			return
		}
		// A connection that moves without the lock may have changed the figures since. It
		// has seen the old health, so they are looked at again.
		t.health.Store(uint32(now))
		s.note(events, Event{Kind: EventHealthChanged, Tag: tag, Old: old, New: now})
	}
}

// judgeAlone is judge without mu, which it takes only where the health changes.
func (s *Set) judgeAlone(a *account) {
	if old, now := s.judged(a.tag, &a.tally); now == old {
		return
	}
	var events pendingEvents
	s.mu.Lock()
	defer s.unlock(&events)
	s.judge(a.tag, &a.tally, &events)
}

// review judges a pool and all together after a connection has come or gone. It takes mu
// only where a health changes.
func (s *Set) review(a *account, events *pendingEvents) {
	old, now := s.judged(a.tag, &a.tally)
	if oldTotal, nowTotal := s.judged(TotalTag, &s.all); now == old && nowTotal == oldTotal {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.judge(a.tag, &a.tally, events)
	s.judge(TotalTag, &s.all, events)
}
