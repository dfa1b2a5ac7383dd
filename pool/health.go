package pool

import (
	"errors"
	"fmt"
	"math"
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

// HealthValues returns every value of Health, from the best to the worst. The slice is the caller's own.
func HealthValues() []Health { return []Health{Healthy, Degraded, Overloaded, Unavailable} }

// String returns the state's name in lower case.
func (h Health) String() string {
	if int(h) < len(healthNames) {
		return healthNames[h]
	}
	return "unknown"
}

// MarshalText implements [encoding.TextMarshaler].
func (h Health) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// TotalTag is what all pools together are called where health is told by tag. No pool may have this name.
const TotalTag Tag = "total"

// recovery is how far below a threshold a pool has to come before it counts as
// recovered, so that one connection that comes and goes does not raise an alarm each time.
const recovery = 0.05

// HealthConfig are the shares of a limit, from 0 to 1, above which a pool is not
// healthy. A state is left at five points (0.05) below its threshold, or at 0.
type HealthConfig struct {
	// DegradedAbove is 0.8 unless set.
	DegradedAbove float64 `apply:"runtime" yaml:"degraded_above"`
	// OverloadedAbove is 0.95 unless set.
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

// judge returns the health of a pool that was old and uses the share given of its limit.
func (c HealthConfig) judge(old Health, share float64) Health {
	above := func(threshold float64, within bool) bool {
		if within {
			threshold = recoverAt(threshold)
		}
		return share > threshold
	}
	switch {
	case above(c.OverloadedAbove, old == Overloaded):
		return Overloaded
	case above(c.DegradedAbove, old == Overloaded || old == Degraded):
		return Degraded
	default:
		return Healthy
	}
}

// recoverAt returns the share at which a state ends. The sum of two decimal fractions is
// a hair off in binary (0.95 - 0.05 < 0.9), and the hair must not decide.
func recoverAt(threshold float64) float64 {
	const hair = 1e-9
	return max(threshold-recovery, 0) + hair
}

// healthBook is what a Set keeps of its pools' health, guarded by Set.mu. The zero
// value has the default thresholds.
type healthBook struct {
	config      *HealthConfig
	unavailable bool
	states      map[Tag]Health // without the healthy ones
}

func (b *healthBook) thresholds() HealthConfig {
	if b.config == nil {
		return DefaultHealthConfig()
	}
	return *b.config
}

// HealthStatus is the health of one pool and the figures behind it.
type HealthStatus struct {
	Status Health  `json:"status"`
	Active int64   `json:"active"` // connections in the pool now
	Limit  int     `json:"limit"`  // how many there may be; 0 for no limit
	Ratio  float64 `json:"ratio"`  // active by limit; 0 where there is no limit
}

// SetHealthConfig puts thresholds in force, which must be valid, and judges every pool by them at once.
func (s *Set) SetHealthConfig(c HealthConfig) {
	s.mu.Lock()
	defer s.unlock()
	s.health.config = &c
	s.judgeAll()
}

// SetUnavailable makes every pool Unavailable, as long as it is true: for a server that
// drains or has stopped. After that the pools are judged as if they had been healthy.
func (s *Set) SetUnavailable(unavailable bool) {
	s.mu.Lock()
	defer s.unlock()
	s.health.unavailable = unavailable
	s.judgeAll()
}

// Health returns the health of every pool that was ever used or has a limit, by
// tag, and under [TotalTag] that of all together. A pool without a limit is healthy.
func (s *Set) Health() map[string]HealthStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]HealthStatus)
	for _, tag := range s.judged() {
		status := s.healthStatus(tag)
		if s.health.unavailable {
			status.Status = Unavailable
		}
		all[string(tag)] = status
	}
	return all
}

// healthStatus returns the figures of tag, and the health it was last judged to
// have. The caller holds mu.
func (s *Set) healthStatus(tag Tag) HealthStatus {
	status := HealthStatus{Status: s.health.states[tag], Limit: s.limits.PerTag[tag]}
	if tag == TotalTag {
		status.Active, status.Limit = int64(len(s.conns)), s.limits.Total
	} else if a := s.accounts[tag]; a != nil {
		status.Active = a.totals.Active
	}
	if status.Limit > 0 {
		status.Ratio = float64(status.Active) / float64(status.Limit)
	} else {
		status.Limit = 0
	}
	return status
}

// judged returns the tags that have a health. The caller holds mu.
func (s *Set) judged() []Tag {
	tags := []Tag{TotalTag}
	for tag := range s.accounts {
		tags = append(tags, tag)
	}
	for tag := range s.limits.PerTag {
		if s.accounts[tag] == nil {
			tags = append(tags, tag)
		}
	}
	return tags
}

// judgeAll judges every pool anew. The caller holds mu and calls unlock.
func (s *Set) judgeAll() {
	for _, tag := range s.judged() {
		s.judge(tag)
	}
}

// judge finds out what the health of tag is now, and tells it where it has
// changed. The caller holds mu and calls unlock.
func (s *Set) judge(tag Tag) {
	status := s.healthStatus(tag)
	old, now := status.Status, Unavailable
	if !s.health.unavailable {
		now = s.health.thresholds().judge(old, status.Ratio)
	}
	if now == old {
		return
	}
	if s.health.states == nil {
		s.health.states = make(map[Tag]Health)
	}
	s.health.states[tag] = now
	s.note(Event{Kind: EventHealthChanged, Tag: tag, Old: old, New: now})
}
