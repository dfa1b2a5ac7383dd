package mux

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// What became of a change of the configuration.
const (
	OutcomeApplied   = "applied"
	OutcomeUnchanged = "unchanged" // it was the configuration in force
	OutcomeFailed    = "failed"    // nothing has changed
)

// Version is one configuration that was in force, or was to be.
type Version struct {
	// Number counts all attempts; 1 is the configuration of the start.
	Number int       `json:"version"`
	Time   time.Time `json:"time"`
	// Origin is who wanted it.
	Origin  string   `json:"origin"`
	Changes []Change `json:"changes,omitempty"`
	// Outcome is OutcomeApplied, OutcomeUnchanged or OutcomeFailed, and Err what failed.
	Outcome string `json:"outcome"`
	Err     string `json:"error,omitempty"`

	config Config
}

// maxHistory is how many versions are kept.
const maxHistory = 20

// reloads is what a server remembers of its configurations. The zero value is ready.
type reloads struct {
	busy sync.Mutex // held by who changes the configuration

	mu       sync.Mutex // guards what follows
	versions []Version  // the newest last
	last     int        // the number of the newest
	checks   []reloadCheck
}

type reloadCheck struct {
	name  string
	check func(from, to Config) error
}

// begin notes the configuration of the start.
func (h *reloads) begin(c Config) {
	h.add(Version{Time: time.Now(), Origin: "start", Outcome: OutcomeApplied, config: c})
}

// add numbers a version and keeps it.
func (h *reloads) add(v Version) Version {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	v.Number = h.last
	h.versions = append(h.versions, v)
	if extra := len(h.versions) - maxHistory; extra > 0 {
		h.versions = slices.Delete(h.versions, 0, extra)
	}
	return v
}

// check asks everybody who may refuse.
func (h *reloads) check(from, to *Config) error {
	h.mu.Lock()
	checks := slices.Clone(h.checks)
	h.mu.Unlock()
	for _, c := range checks {
		if err := c.ask(from.clone(), to.clone()); err != nil {
			return fmt.Errorf("mux: %s refuses the configuration: %w", c.name, err)
		}
	}
	return nil
}

// ask calls the check. One that panics has refused.
func (c reloadCheck) ask(from, to Config) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return c.check(from, to)
}

// History returns the last 20 configurations that were in force or were to be, the newest last.
func (s *Server) History() []Version {
	s.reloads.mu.Lock()
	defer s.reloads.mu.Unlock()
	return slices.Clone(s.reloads.versions)
}

// Rollback puts the configuration of an earlier version in force again, as [Server.Reload] does. It fails for a
// number that is not in the history, and for one that never was in force.
func (s *Server) Rollback(number int, origin string) (Version, error) {
	for _, v := range s.History() {
		switch {
		case v.Number != number:
		case v.Outcome == OutcomeFailed:
			return Version{}, fmt.Errorf("mux: version %d was never in force: %s", number, v.Err)
		default:
			return s.reload(v.config.clone(), fmt.Sprintf("rollback to version %d by %s", number, origin))
		}
	}
	return Version{}, fmt.Errorf("mux: version %d is not in the history", number)
}
