package main

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
	"github.com/muxserve/muxserve/mux"
)

// maxVersions is how many versions are remembered, failed attempts included.
const maxVersions = 20

// versions are the last versions of a process's settings, and the attempts that failed. They count the
// keys that are the command's own too, which those of [mux.Server.History] do not know. All methods may be called concurrently.
type versions struct {
	mu       sync.Mutex // guards all that follows
	known    []entry    // the newest last
	numbered int        // the last number given
	current  int        // the number of what is in force
	failing  bool       // the last attempt failed
	success  time.Time  // of the last attempt that did not; zero before
}

// entry is one of them. Its settings are nil if they were never in force.
type entry struct {
	mux.Version

	settings *settings.Settings
}

// start takes down what the process starts with, as number 1.
func (v *versions) start(s *settings.Settings) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.add(entry{Version: mux.Version{Time: time.Now(), Origin: "start", Outcome: mux.OutcomeApplied}, settings: s})
	v.current = v.numbered
}

// applied takes down settings that are in force now. Where nothing has changed it is the same version as before.
func (v *versions) applied(origin string, changes []mux.Change, s *settings.Settings) mux.Version {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	v.failing, v.success = false, now
	if len(changes) == 0 {
		return mux.Version{Number: v.current, Time: now, Origin: origin, Outcome: mux.OutcomeUnchanged}
	}
	added := v.add(entry{
		Version:  mux.Version{Time: now, Origin: origin, Changes: changes, Outcome: mux.OutcomeApplied},
		settings: s,
	})
	v.current = added.Number
	return added
}

// failed takes down an attempt that failed. The same failure again takes the place of the one before, so that a
// program that tries for ever does not drive out what once worked.
func (v *versions) failed(origin string, err error) mux.Version {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.failing = true
	if last := &v.known[len(v.known)-1]; last.Err == err.Error() && last.Origin == origin {
		last.Time = time.Now()
		return last.Version
	}
	return v.add(entry{Version: mux.Version{Time: time.Now(), Origin: origin, Outcome: mux.OutcomeFailed, Err: err.Error()}})
}

// add gives a version its number, and forgets the oldest that is not in force. The caller holds mu.
func (v *versions) add(added entry) mux.Version {
	v.numbered++
	added.Number = v.numbered
	v.known = append(v.known, added)
	if len(v.known) > maxVersions {
		oldest := slices.IndexFunc(v.known, func(known entry) bool { return known.Number != v.current })
		v.known = slices.Delete(v.known, oldest, oldest+1)
	}
	return added.Version
}

// settings returns the settings of a version that was in force once.
func (v *versions) settings(number int) (*settings.Settings, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	at := slices.IndexFunc(v.known, func(known entry) bool { return known.Number == number })
	switch {
	case at < 0:
		return nil, fmt.Errorf("version %d is not among the last %d", number, maxVersions)
	case v.known[at].settings == nil:
		return nil, fmt.Errorf("version %d was never in force", number)
	}
	return v.known[at].settings, nil
}

// list returns the number of what is in force, and what is remembered.
func (v *versions) list() (current int, history []mux.Version) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, known := range v.known {
		history = append(history, known.Version)
	}
	return v.current, history
}

// status reports whether the last attempt succeeded, and when one last did.
func (v *versions) status() (successful bool, at time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return !v.failing, v.success
}
