package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/admin"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

// Who may want a reload, beside requests to the admin listener.
const (
	originSignal = "SIGHUP"
	originWatch  = "watch"
)

// The log keys of a reload.
const (
	keyErr     = "err"
	keyOrigin  = "origin"
	keySignal  = "signal"
	keyVersion = "version"
	keyChanged = "changed"
)

// reloads changes the configuration of a process while it runs, and remembers how. All methods may be called concurrently.
type reloads struct {
	process *process
	history versions
	watcher watcher

	// changing is held by whoever changes the configuration, from reading it to having it in force.
	changing sync.Mutex
	// looked is what the files were like at the last attempt. It belongs to the holder of changing.
	looked digests
}

var (
	_ admin.Configuration = (*reloads)(nil)
	_ admin.ReloadStatus  = (*reloads)(nil)
)

// newReloads returns the reloads of a process that starts with s.
func newReloads(p *process, s *settings.Settings) *reloads {
	r := &reloads{process: p, looked: digestsOf(filesOf(s))}
	r.history.start(s)
	return r
}

// onSignal reloads the configuration when SIGHUP has come; at the start of the process, when it serves. The
// service manager waits for the reload that it has asked for, and is told where it begins and ends, well or not.
func (r *reloads) onSignal() {
	select {
	case <-r.process.serving:
	case <-r.process.ended:
		return
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	if r.process.server.Phase() == lifecycle.PhaseServing {
		r.notify(lifecycle.Reloading)
		defer r.notify(lifecycle.Ready)
	}
	_, _ = r.reload(originSignal)
}

// notify tells the service manager about a reload, which does not depend on that.
func (r *reloads) notify(tell func() (bool, error)) {
	if _, err := tell(); err != nil {
		r.process.logger.Warn("the service manager does not know about the reload", keyErr, err)
	}
}

// Reload implements [admin.Configuration].
func (r *reloads) Reload(origin string) (mux.Version, error) {
	if !r.changing.TryLock() {
		return mux.Version{}, admin.ErrBusy
	}
	defer r.changing.Unlock()
	return r.reload(origin)
}

// Rollback implements [admin.Configuration]. The file stays as it is, and the next reload reads it again.
func (r *reloads) Rollback(number int, origin string) (mux.Version, error) {
	if !r.changing.TryLock() {
		return mux.Version{}, admin.ErrBusy
	}
	defer r.changing.Unlock()
	origin = fmt.Sprintf("%s, rollback to %d", origin, number)
	return r.change(origin, func() (*settings.Settings, error) { return r.history.settings(number) })
}

// Write implements [admin.Configuration].
func (r *reloads) Write(w io.Writer) error { return r.process.settings.Load().Write(w) }

// Versions implements [admin.Configuration].
func (r *reloads) Versions() (current int, history []mux.Version) { return r.history.list() }

// Token implements [admin.Configuration].
func (r *reloads) Token() string { return r.process.settings.Load().Admin.Token }

// ReloadStatus implements [admin.ReloadStatus].
func (r *reloads) ReloadStatus() (successful bool, at time.Time) { return r.history.status() }

// reload reads the configuration again and puts it in force. The caller holds changing.
func (r *reloads) reload(origin string) (mux.Version, error) {
	return r.change(origin, func() (*settings.Settings, error) {
		current := r.process.settings.Load()
		// The digests are older than what is read, so that the watcher misses nothing.
		r.looked = digestsOf(filesOf(current))
		return reread(current)
	})
}

// errEmpty is the fault of a file that says nothing at all. At the start it stands for the defaults; of a server
// that runs it is far more likely that somebody is about to write it, or could not.
var errEmpty = errors.New("the file is empty; write {} for a configuration of defaults")

// reread loads the settings again from what they came from.
func reread(current *settings.Settings) (*settings.Settings, error) {
	if file := current.ConfigFile(); file != "" && isEmpty(file) {
		return nil, fmt.Errorf("%s:1: %w", file, errEmpty)
	}
	return current.Reload()
}

// change puts in force what load returns, writes it in the history, and logs it in one line. The caller holds changing.
func (r *reloads) change(origin string, load func() (*settings.Settings, error)) (mux.Version, error) {
	p := r.process
	if phase := p.server.Phase(); phase != lifecycle.PhaseServing {
		err := fmt.Errorf("%w: the server is %s", admin.ErrBusy, phase)
		p.logger.Warn("configuration not reloaded", keyOrigin, origin, keyErr, err)
		return mux.Version{}, err
	}
	next, err := load()
	var changes []mux.Change
	if err == nil {
		r.looked.add(digestsOf(filesOf(next)))
		changes, err = p.put(next, origin)
	}
	if err != nil {
		version := r.history.failed(origin, err)
		p.logger.Error("configuration and certificates not reloaded; the old ones stay in use", keyOrigin, origin,
			keyVersion, version.Number, keyErr, strings.ReplaceAll(err.Error(), "\n", "; "))
		return version, err
	}
	version := r.history.applied(origin, changes, next)
	r.log(version)
	r.setWatch(next.Watch)
	return version, nil
}

// log tells of a version that is in force.
func (r *reloads) log(v mux.Version) {
	if len(v.Changes) == 0 {
		r.process.logger.Info("configuration and certificates unchanged", keyOrigin, v.Origin, keyVersion, v.Number)
		return
	}
	changed := make([]string, len(v.Changes))
	for i, c := range v.Changes {
		changed[i] = fmt.Sprintf("%s: %s -> %s", c.Path, orNothing(c.Old), orNothing(c.New))
	}
	r.process.logger.Info("configuration reloaded", keyOrigin, v.Origin, keyVersion, v.Number, keyChanged, changed)
}

func orNothing(value string) string {
	if value == "" {
		return "nothing"
	}
	return value
}
