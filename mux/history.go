package mux

import (
	"fmt"
	"slices"
	"time"
)

// The values of [Version].Outcome.
const (
	OutcomeApplied   = "applied"
	OutcomeUnchanged = "unchanged" // nothing differed from the configuration in force
	OutcomeFailed    = "failed"    // an error; nothing has changed
)

// Version is one attempt to change the configuration, in the [History].
type Version struct {
	// Number counts the attempts; 1 is the configuration that the server started with. An
	// attempt that changes nothing has the number of the version in force.
	Number int `json:"version"`
	// Time is when the attempt ended. Where an attempt has failed more than once in the
	// same way, it is the last time.
	Time time.Time `json:"time"`
	// Origin names the caller, as it was passed to Reload.
	Origin string `json:"origin"`
	// Changes are the keys that differ from the version before; none after a failure.
	Changes []Change `json:"changes,omitempty"`
	// Outcome is OutcomeApplied, OutcomeUnchanged or OutcomeFailed.
	Outcome string `json:"outcome"`
	// Err is the error of a failed attempt.
	Err string `json:"error,omitempty"`

	config Config // zero where the attempt failed
}

// History is what a server remembers of its configurations.
type History struct {
	// Versions are the last 20 attempts that applied or failed, the newest last. The
	// version in force is always among them.
	Versions []Version `json:"history"`
	// Current is the number of the version in force.
	Current int `json:"version"`
	// Failing reports that the last attempt failed, and Succeeded is the time of the last
	// one that did not. The start counts as an attempt.
	Failing   bool      `json:"-"`
	Succeeded time.Time `json:"-"`

	last int // the highest number given
}

// maxHistory bounds History.Versions.
const maxHistory = 20

// applied records that c is in force and differs by changes from the version before.
func (h *History) applied(origin string, c Config, changes []Change) Version {
	now := time.Now()
	h.Failing, h.Succeeded = false, now
	v := Version{Time: now, Origin: origin, Changes: changes, Outcome: OutcomeApplied, config: c}
	if h.last > 0 && len(changes) == 0 {
		v.Number, v.Outcome = h.Current, OutcomeUnchanged
		return v
	}
	h.Current = h.last + 1
	return h.add(v)
}

// failed records an attempt that failed. The same failure again only changes the time of
// the first, so that a caller that retries for ever does not displace the versions that
// worked.
func (h *History) failed(origin string, err error) Version {
	h.Failing = true
	now := time.Now()
	if last := &h.Versions[len(h.Versions)-1]; last.Err == err.Error() && last.Origin == origin {
		last.Time = now
		return *last
	}
	return h.add(Version{Time: now, Origin: origin, Outcome: OutcomeFailed, Err: err.Error()})
}

// add numbers a version, and forgets the oldest one that is not in force.
func (h *History) add(v Version) Version {
	h.last++
	v.Number = h.last
	h.Versions = append(h.Versions, v)
	if len(h.Versions) > maxHistory {
		oldest := slices.IndexFunc(h.Versions, func(v Version) bool { return v.Number != h.Current })
		h.Versions = slices.Delete(h.Versions, oldest, oldest+1)
	}
	return v
}

// config returns the configuration of a version that was in force.
func (h *History) config(number int) (Config, error) {
	at := slices.IndexFunc(h.Versions, func(v Version) bool { return v.Number == number })
	switch {
	case at < 0:
		return Config{}, fmt.Errorf("version %d is not among the last %d", number, maxHistory)
	case h.Versions[at].Outcome == OutcomeFailed:
		return Config{}, fmt.Errorf("version %d was never in force", number)
	}
	return h.Versions[at].config, nil
}
