package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
	"github.com/muxserve/muxserve/mux"
)

// put puts other settings in force. What can fail comes first: after an error nothing has changed. The caller holds reloads.changing.
func (p *process) put(next *settings.Settings, origin string) ([]mux.Change, error) {
	current := p.settings.Load()
	if err := p.check(current, next); err != nil {
		return nil, err
	}
	own, err := p.prepare(current, next)
	if err != nil {
		return nil, err
	}
	before := p.server.Certificates()
	changes, err := p.putMux(next, origin)
	if err != nil {
		own.undo()
		return nil, err
	}
	renewed, err := p.server.ReloadCertificates()
	if err != nil {
		// They were good a moment ago, when they were checked.
		own.undo()
		_, undone := p.server.Reload(current.Mux, origin+", undone")
		return nil, errors.Join(err, undone)
	}
	own.commit()
	p.settings.Store(next)
	changes = append(changes, ownChanges(current, next)...)
	if renewed || !sameCertificates(before, p.server.Certificates()) {
		changes = append(changes, mux.Change{
			Path: "certificates", Old: "the files as they were", New: "the files as they are", Apply: mux.ApplyRuntime,
			How: "new handshakes meet what the files hold now",
		})
	}
	return changes, nil
}

// putMux puts the server's part of the settings in force, where it differs from what is.
func (p *process) putMux(next *settings.Settings, origin string) ([]mux.Change, error) {
	plan, err := p.server.Plan(next.Mux)
	if err == nil && len(plan.Changes) > 0 {
		_, err = p.server.Reload(next.Mux, origin)
	}
	if err != nil {
		return nil, next.Locate("", err)
	}
	return plan.Changes, nil
}

// sameCertificates reports whether every address that has a certificate before and after still has the same.
func sameCertificates(before, after map[string]*x509.Certificate) bool {
	for address, was := range before {
		if is := after[address]; is != nil && !is.Equal(was) {
			return false
		}
	}
	return true
}

// check reports what settings that are well-formed cannot be put in force for.
func (p *process) check(current, next *settings.Settings) error {
	if _, err := checkCertificates(next); err != nil {
		return err
	}
	wanted := next.Mux.HTTP2.WebSocket
	if _, fits := fitGODEBUG(p.getenv("GODEBUG"), wanted); !fits && wanted != current.Mux.HTTP2.WebSocket {
		return next.Locate("", errors.New(
			"mux: http2.websocket: net/http looks for it when the process starts; SIGUSR2 starts the binary anew without losing a connection"))
	}
	return nil
}

// preparation is what is open already for settings that may come in force.
type preparation struct {
	commits, undos []func()
}

func (r *preparation) add(commit, undo func()) {
	r.commits = append(r.commits, commit)
	r.undos = append(r.undos, undo)
}

func (r *preparation) commit() {
	for _, f := range r.commits {
		f()
	}
}

func (r *preparation) undo() {
	for _, f := range r.undos {
		f()
	}
}

// prepare opens what the command's own keys ask for, beside what is in use.
func (p *process) prepare(current, next *settings.Settings) (*preparation, error) {
	prepared := new(preparation)
	if next.Static != current.Static {
		d, err := openDirectory(next.Static)
		if err != nil {
			return nil, next.Locate("", err)
		}
		prepared.add(func() { p.routes.replace(d) }, d.close)
	}
	if address := next.Admin.Address; address != current.Admin.Address {
		site, err := p.admin.open(context.Background(), p, address)
		if err != nil {
			prepared.undo()
			return nil, next.Locate("", fmt.Errorf("admin.address: %w", errors.Unwrap(err)))
		}
		undo := func() {
			if site != nil {
				_ = site.listener.Close()
			}
		}
		prepared.add(func() { p.admin.move(p, address, site) }, undo)
	}
	if next.Log != current.Log {
		prepared.add(func() { p.logs.apply(next.Log) }, func() {})
	}
	return prepared, nil
}

// ownChanges returns what changes of the keys that are the command's own and not [mux.Config]'s.
func ownChanges(current, next *settings.Settings) []mux.Change {
	var changes []mux.Change
	compare := func(path, was, is, apply, how string) {
		if was != is {
			changes = append(changes, mux.Change{Path: path, Old: was, New: is, Apply: apply, How: how})
		}
	}
	compare("admin.address", current.Admin.Address, next.Admin.Address, mux.ApplyRestart,
		"the new address is opened first; requests at the old one end in their time")
	compare("static", current.Static, next.Static, mux.ApplyRestart, "the new directory is opened first; requests that use the old one end in their time")
	compare("watch", fmt.Sprint(current.Watch), fmt.Sprint(next.Watch), mux.ApplyRestart, "the files are looked at from now on, or no more")
	compare("log.level", current.Log.Level.String(), next.Log.Level.String(), mux.ApplyRuntime, "takes effect at once")
	compare("log.access", fmt.Sprint(current.Log.Access), fmt.Sprint(next.Log.Access), mux.ApplyRuntime, "takes effect at once")
	compare("log.format", current.Log.Format, next.Log.Format, mux.ApplyRestart, "another writer takes the place of the log's")
	if current.Admin.Token != next.Admin.Token {
		changes = append(changes, mux.Change{
			Path: "admin.token", Old: hidden(current.Admin.Token), New: hidden(next.Admin.Token), Apply: mux.ApplyRuntime,
			How: "the next request has to bring it",
		})
	}
	return changes
}

// hidden stands for a secret.
func hidden(secret string) string {
	if secret == "" {
		return ""
	}
	return "(hidden)"
}
