package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/admin"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

// The origins of a reload, besides requests to the admin listener.
const (
	originSignal  = "SIGHUP"
	originWatch   = "watch"
	originUpgrade = "upgrade"

	originTerminal = "Ctrl-C"
)

// reloads changes the configuration of a running process. The configuration in force and
// its history belong to [mux.Server]. All methods may be called concurrently.
type reloads struct {
	process *process

	// token is the admin token in force. Like a certificate it is read anew at each change, so
	// that a rollback brings back no token that the operator has taken out of its file.
	token atomic.Pointer[string]

	watching  sync.Mutex         // guards stopWatch
	stopWatch context.CancelFunc // nil while the files are not watched

	// changing is held from reading a configuration until it is in force, and while an
	// upgrade is under way.
	changing  sync.Mutex
	readying  sync.Mutex // guards the beginning of an upgrade, and setReady
	upgrading atomic.Bool
	signalled atomic.Bool // a SIGHUP has come that nothing has been done about yet
	// looked has the digests of the files at the last attempt. It is guarded by changing.
	looked digests
}

var _ admin.Configuration = (*reloads)(nil)

// onSignal reloads the configuration after SIGHUP; a SIGHUP that comes earlier waits
// until the process serves, and one during an upgrade until that is over. A service manager
// that has sent it waits too, so it is told about the beginning and the end, also of a
// reload that fails.
func (r *reloads) onSignal() {
	select {
	case <-r.process.serving:
	case <-r.process.running.Done():
		return
	}
	r.signalled.Store(true)
	r.changing.Lock()
	if r.unlockIfUpgraded() != nil {
		r.passOn()
		return
	}
	r.signalled.Store(false)
	tells := r.process.server.Phase() == lifecycle.PhaseServing
	if tells {
		r.notify(lifecycle.Reloading)
	}
	v, err := r.reload(originSignal)
	if tells {
		r.notify(lifecycle.Ready)
	}
	_, _ = r.ended(v, err)
}

// notify tells the service manager about a reload. An error does not stop the reload.
func (r *reloads) notify(tell func() (bool, error)) {
	if _, err := tell(); err != nil {
		r.process.logger.Warn("the service manager does not know about the reload", keyErr, err)
	}
}

func (r *reloads) Reload(origin string) (mux.Version, error) {
	if err := r.tryLock(); err != nil {
		return mux.Version{}, err
	}
	return r.ended(r.reload(origin))
}

// Rollback implements [admin.Configuration]. It does not write the file, which the next
// reload reads again.
func (r *reloads) Rollback(number int, origin string) (mux.Version, error) {
	if err := r.tryLock(); err != nil {
		return mux.Version{}, err
	}
	return r.ended(r.process.server.Rollback(number, origin))
}

func (r *reloads) Write(w io.Writer) error { return r.process.settings().Write(w) }

func (r *reloads) Access() admin.Access {
	c := r.process.settings().Admin
	return admin.Access{Token: *r.token.Load(), ProtectAll: c.Protect == settings.ProtectAll, Hosts: slices.Clone(c.Hosts)}
}

// reload reads the configuration again and puts it in force. The caller holds changing.
func (r *reloads) reload(origin string) (mux.Version, error) {
	return r.process.server.ReloadFunc(origin, func(c mux.Config) (mux.Config, error) {
		current := settingsOf(c)
		// The digests are taken before the files are read, so that the watcher misses no
		// change.
		r.looked = digestsOf(filesOf(current))
		next, err := current.Reload()
		if err != nil {
			return mux.Config{}, err
		}
		return configOf(next), nil
	})
}

// drainAtOnce is skipDelay for a terminal, where there is no balancer. It does nothing while
// another change is under way.
func (r *reloads) drainAtOnce() {
	if !r.changing.TryLock() {
		return
	}
	defer r.changing.Unlock()
	r.skipDelay(originTerminal)
}

// skipDelay sets the drain's delay to zero, as for an upgrade, where health checks reach the
// new process already. The caller holds changing.
func (r *reloads) skipDelay(origin string) {
	s := *r.process.settings()
	s.Mux.Drain.Delay = 0
	if _, err := r.process.server.Reload(configOf(&s), origin); err != nil && !errors.Is(err, mux.ErrNotServing) {
		r.process.logger.Warn("the drain waits for its delay", keyErr, err)
	}
}

// configOf returns the server's part of settings. The settings travel in it.
func configOf(s *settings.Settings) mux.Config {
	c := s.Mux
	c.Extra = s
	return c
}

// settingsOf returns the settings that configOf was called with.
func settingsOf(c mux.Config) *settings.Settings {
	s, _ := c.Extra.(*settings.Settings)
	return s
}

// ended ends a change, for which the caller holds changing, and logs its outcome in one
// line. Whoever has read the line can make the next change, so the lock is released first.
func (r *reloads) ended(v mux.Version, err error) (mux.Version, error) {
	p := r.process
	if err == nil {
		p.logs.apply(p.settings().Log) // A request may have set another level.
		if v.Origin != originWatch {
			r.setWatch(p.settings().Watch)
		}
	}
	r.changing.Unlock()
	switch {
	case errors.Is(err, mux.ErrNotServing) || errors.Is(err, mux.ErrReloading):
		v, err = mux.Version{Origin: v.Origin}, fmt.Errorf("%w: the server is %s", admin.ErrBusy, p.server.Phase())
		p.logger.Warn("configuration not reloaded", keyOrigin, v.Origin, keyErr, err)
	case err != nil:
		p.logger.Error("configuration and certificates not reloaded; the old ones stay in use", keyOrigin, v.Origin,
			keyVersion, v.Number, keyErr, strings.ReplaceAll(err.Error(), "\n", "; "))
	case len(v.Changes) == 0:
		p.logger.Info("configuration and certificates unchanged", keyOrigin, v.Origin, keyVersion, v.Number)
	default:
		changed := make([]string, len(v.Changes))
		for i, c := range v.Changes {
			changed[i] = fmt.Sprintf("%s: %s -> %s", c.Path, cmp.Or(c.Old, "nothing"), cmp.Or(c.New, "nothing"))
		}
		p.logger.Info("configuration reloaded", keyOrigin, v.Origin, keyVersion, v.Number, keyChanged, changed)
	}
	return v, err
}

// prepare is the command's part of a reload: it checks the settings, and opens what the
// command's own keys name beside what is in use. It runs with changing held.
func (r *reloads) prepare(from, to mux.Config) (part mux.ReloadPart, err error) {
	p, current, next := r.process, settingsOf(from), settingsOf(to)
	r.looked = r.looked.with(digestsOf(filesOf(next)))
	if err := r.check(current, next); err != nil {
		return part, err
	}
	token, err := next.ReadToken()
	if err != nil {
		return part, err
	}
	// The name may be a link that leads elsewhere by now, so it is always opened.
	static, err := openDirectory(next)
	if err != nil {
		return part, next.Locate("", err)
	}
	before := p.routes.current // Only this method replaces it, after the start.
	changes := append(ownChanges(current, next), tokenChange(*r.token.Load(), token)...)
	if static.same(before) {
		static.close()
		static = nil
	} else if next.Static == current.Static && next.Static != "" && static.name != before.name {
		changes = append(changes, mux.Change{
			Path: "static", Old: before.name, New: static.name, Apply: mux.ApplyRestart, How: howStatic,
		})
	}
	var site *adminSite
	address := next.Admin.Address
	moves := address != current.Admin.Address
	if moves {
		if site, err = p.admin.open(context.Background(), p, address); err != nil {
			static.close()
			return part, next.Locate("", fmt.Errorf("admin.address: %w", errors.Unwrap(err)))
		}
	}
	return mux.ReloadPart{
		Changes: changes,
		Commit: func() {
			r.token.Store(&token)
			if static != nil {
				p.routes.replace(static)
			}
			if moves {
				p.admin.move(address, site)
			}
		},
		Undo: func() {
			static.close()
			site.drop()
		},
	}, nil
}

// check reports why well-formed settings cannot be put in force.
func (r *reloads) check(current, next *settings.Settings) error {
	if _, err := checkCertificates(next); err != nil {
		return err
	}
	wanted := next.Mux.HTTP2.WebSocket
	if _, stays := fitGODEBUG(r.process.getenv("GODEBUG"), wanted); !stays && wanted != current.Mux.HTTP2.WebSocket {
		return next.Locate("", errors.New(
			"mux: http2.websocket: net/http looks for it when the process starts; SIGUSR2 starts the binary anew without losing a connection"))
	}
	return nil
}

const howStatic = "the new directory is opened first; requests that use the old one end in their time"

// ownChanges returns the changes of the keys that are not in [mux.Config], but for the token.
func ownChanges(current, next *settings.Settings) []mux.Change {
	const atOnce = "takes effect at once"
	var changes []mux.Change
	compare := func(path, was, is, apply, how string) {
		if was != is {
			changes = append(changes, mux.Change{Path: path, Old: was, New: is, Apply: apply, How: how})
		}
	}
	compare("admin.address", current.Admin.Address, next.Admin.Address, mux.ApplyRestart,
		"the new address is opened first; requests at the old one end in their time")
	compare("profile", current.Profile, next.Profile, mux.ApplyRuntime, "its numbers are the defaults of other keys")
	compare("static", current.Static, next.Static, mux.ApplyRestart, howStatic)
	compare("static_listings", fmt.Sprint(current.StaticListings), fmt.Sprint(next.StaticListings), mux.ApplyRestart, atOnce)
	compare("static_dot_files", fmt.Sprint(current.StaticDotFiles), fmt.Sprint(next.StaticDotFiles), mux.ApplyRestart, atOnce)
	compare("admin.token_file", current.Admin.TokenFile, next.Admin.TokenFile, mux.ApplyRuntime, "its token is read now and at each reload")
	compare("admin.protect", current.Admin.Protect, next.Admin.Protect, mux.ApplyRuntime, "holds from the next request on")
	compare("admin.hosts", strings.Join(current.Admin.Hosts, ", "), strings.Join(next.Admin.Hosts, ", "), mux.ApplyRuntime,
		"holds from the next request on")
	compare("watch", fmt.Sprint(current.Watch), fmt.Sprint(next.Watch), mux.ApplyRuntime, "the files are looked at from now on, or no more")
	compare("log.level", current.Log.Level.String(), next.Log.Level.String(), mux.ApplyRuntime, atOnce)
	compare("log.access", fmt.Sprint(current.Log.Access), fmt.Sprint(next.Log.Access), mux.ApplyRuntime, atOnce)
	compare("log.format", current.Log.Format, next.Log.Format, mux.ApplyRuntime, "another writer takes the place of the log's")
	return changes
}

// tokenChange returns the change of the admin token, if it is one.
func tokenChange(was, is string) []mux.Change {
	if was == is {
		return nil
	}
	return []mux.Change{{Path: "admin.token", Old: hidden(was), New: hidden(is), Apply: mux.ApplyRuntime, How: "the next request has to bring it"}}
}

// hidden stands for a secret.
func hidden(secret string) string {
	if secret == "" {
		return ""
	}
	return "(hidden)"
}
