package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
	"github.com/muxserve/muxserve/mux"
)

// prepareReload is the command's part of a reload: it checks the settings, and opens what
// the command's own keys name beside what is in use. It runs with reloads.changing held.
func (p *process) prepareReload(from, to mux.Config) (part mux.ReloadPart, err error) {
	current, next := settingsOf(from), settingsOf(to)
	p.reloads.looked.add(digestsOf(filesOf(next)))
	if err := p.check(current, next); err != nil {
		return part, err
	}
	var static *directory
	if next.Static != current.Static {
		if static, err = openDirectory(next.Static); err != nil {
			return part, next.Locate("", err)
		}
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
		Changes: ownChanges(current, next),
		Commit: func() {
			if static != nil {
				p.routes.replace(static)
			}
			if moves {
				p.admin.move(p, address, site)
			}
			if next.Log != current.Log {
				p.logs.apply(next.Log)
			}
			p.reloads.setWatch(next.Watch)
		},
		Undo: func() {
			static.close()
			if site != nil {
				_ = site.listener.Close()
			}
		},
	}, nil
}

// check reports why well-formed settings cannot be put in force.
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

// ownChanges returns the changes of the keys that are not in [mux.Config].
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
	compare("static", current.Static, next.Static, mux.ApplyRestart, "the new directory is opened first; requests that use the old one end in their time")
	compare("watch", fmt.Sprint(current.Watch), fmt.Sprint(next.Watch), mux.ApplyRestart, "the files are looked at from now on, or no more")
	compare("log.level", current.Log.Level.String(), next.Log.Level.String(), mux.ApplyRuntime, atOnce)
	compare("log.access", fmt.Sprint(current.Log.Access), fmt.Sprint(next.Log.Access), mux.ApplyRuntime, atOnce)
	compare("log.format", current.Log.Format, next.Log.Format, mux.ApplyRestart, "another writer takes the place of the log's")
	if was, is := current.Admin.Token, next.Admin.Token; was != is {
		changes = append(changes, mux.Change{
			Path: "admin.token", Old: hidden(was), New: hidden(is), Apply: mux.ApplyRuntime, How: "the next request has to bring it",
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
