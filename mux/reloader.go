package mux

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/pool"
)

// ReloadPart is what a function registered with [Server.OnReload] adds to one change of
// the configuration. The zero value agrees to the change and adds nothing.
type ReloadPart struct {
	// Changes are the caller's own keys that differ. Version.Changes has them behind
	// those of [Config].
	Changes []Change
	// Commit puts them in force, once nothing can fail any more. Undo gives back what the
	// function has opened, where the change fails. One of them is called once, unless it
	// is nil.
	Commit, Undo func()
}

type prepareFunc = func(from, to Config) (ReloadPart, error)

// reloader owns the configuration in force and its history, and changes both. It knows
// the server by two functions. All methods may be called concurrently.
type reloader struct {
	serving func() bool
	// prepare is the server's own part. It is asked last.
	prepare prepareFunc

	live atomic.Pointer[Config] // in force; a Config is not modified once it is here
	busy sync.Mutex             // held during a change

	mu      sync.Mutex // guards what follows
	parts   []prepareFunc
	history History
}

// newReloader returns a reloader with c in force.
func newReloader(c Config, serving func() bool, prepare prepareFunc) *reloader {
	r := &reloader{serving: serving, prepare: prepare}
	r.live.Store(&c)
	r.history.applied("start", c, nil)
	return r
}

// Load returns the configuration in force, which must not be modified.
func (r *reloader) Load() *Config { return r.live.Load() }

// queues reports whether newcomers wait for a place where there is none.
func (r *reloader) queues() bool { return r.Load().Limits.OnLimit == pool.Wait }

// plan compares c with the configuration in force.
func (r *reloader) plan(c *Config) ([]Change, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return planOf(r.Load(), c), nil
}

// onReload registers a part of every change that follows.
func (r *reloader) onReload(prepare prepareFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.parts = append(r.parts, prepare)
}

// reload puts the configuration that load returns in force, and records the outcome.
func (r *reloader) reload(origin string, load func(Config) (Config, error)) (Version, error) {
	unrecorded := func(err error) (Version, error) {
		return Version{Time: time.Now(), Origin: origin, Outcome: OutcomeFailed, Err: err.Error()}, err
	}
	if !r.busy.TryLock() {
		return unrecorded(ErrReloading)
	}
	defer r.busy.Unlock()
	if !r.serving() {
		return unrecorded(ErrNotServing)
	}
	changes, err := r.change(load)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		return r.history.failed(origin, err), err
	}
	return r.history.applied(origin, *r.Load(), changes), nil
}

// rollback puts the configuration of an earlier version in force.
func (r *reloader) rollback(number int, origin string) (Version, error) {
	return r.reload(fmt.Sprintf("%s, rollback to %d", origin, number), func(Config) (Config, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.history.config(number)
	})
}

// change loads a configuration and puts it in force. After an error nothing has changed.
// The caller holds busy.
func (r *reloader) change(load func(Config) (Config, error)) ([]Change, error) {
	from := r.Load()
	to, err := load(from.clone())
	if err != nil {
		return nil, err
	}
	to = to.clone()
	changes, err := r.plan(&to)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	functions := append(slices.Clone(r.parts), r.prepare)
	r.mu.Unlock()
	var parts []ReloadPart
	for _, f := range functions {
		part, err := prepare(f, from.clone(), to.clone())
		if err != nil {
			for _, p := range slices.Backward(parts) {
				call(p.Undo)
			}
			return nil, err
		}
		parts = append(parts, part)
	}
	r.live.Store(&to)
	for _, p := range parts {
		changes = append(changes, p.Changes...)
	}
	for _, p := range slices.Backward(parts) { // The server first.
		call(p.Commit)
	}
	return changes, nil
}

// prepare calls f. A panic is a refusal, because code of the embedder must not end the
// server at a change that it could have refused.
func prepare(f prepareFunc, from, to Config) (part ReloadPart, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("mux: panic in a function of OnReload: %v", v)
		}
	}()
	return f(from, to)
}

func call(f func()) {
	if f != nil {
		f()
	}
}

// snapshot returns a copy of the history.
func (r *reloader) snapshot() History {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.history
	h.Versions = slices.Clone(h.Versions)
	return h
}
