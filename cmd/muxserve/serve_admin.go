package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/admin"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
	"github.com/muxserve/muxserve/listeners"
)

// The timeouts of the admin server. The pages bound the times of bodies and answers.
const (
	adminHeaderTimeout = 10 * time.Second
	adminIdleTimeout   = 2 * time.Minute
)

// adminLeaveTimeout bounds requests at an address that the admin listener has left. The
// default duration of a profile is shorter.
const adminLeaveTimeout = time.Minute

// adminPages are the admin pages and their listener.
type adminPages struct {
	pages *admin.Pages
	site  atomic.Pointer[adminSite] // nil without admin pages
}

// adminSite is the server of the pages on one address, which has several sockets where the
// service manager has passed several of its name.
type adminSite struct {
	listeners []net.Listener
	server    *http.Server
}

// closeListeners closes the sockets.
func (s *adminSite) closeListeners() {
	for _, l := range s.listeners {
		_ = l.Close()
	}
}

// open opens an address for the pages, which may overlap with the one that they have. It
// returns nil for [settings.Off]. newPages may come later.
func (a *adminPages) open(ctx context.Context, p *process, address string) (site *adminSite, err error) {
	if address == settings.Off {
		return site, nil
	}
	if old := a.site.Load(); old != nil {
		ctx = listeners.Replacing(ctx, old.listeners...)
	}
	c := listeners.DefaultConfig()
	c.Address = address
	sockets, err := c.Open(ctx, p.handover.sockets.Listen)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	return &adminSite{listeners: sockets, server: &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.pages.ServeHTTP(w, r) }),
		ReadHeaderTimeout: adminHeaderTimeout,
		IdleTimeout:       adminIdleTimeout,
		ErrorLog:          slog.NewLogLogger(p.logger.Handler(), slog.LevelDebug),
	}}, nil
}

// newPages makes the pages, and keeps their history until the process ends.
func (a *adminPages) newPages(p *process) {
	info, _ := debug.ReadBuildInfo()
	a.pages = admin.New(p.server, admin.Options{
		Address: p.settings().Admin.Address, Version: buildVersion(info), Configuration: p.reloads, Process: p,
	})
	go a.pages.Run(p.running)
}

// serve serves a site in the background. A nil site is not served.
func (a *adminPages) serve(p *process, site *adminSite) {
	if site == nil {
		return
	}
	for _, l := range site.listeners {
		go func() {
			if err := site.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				p.logger.Error("the admin listener failed", keyErr, err)
			}
		}()
	}
}

// move replaces the current site. Requests under way at the old site go on: one of them
// may have asked for this reload.
func (a *adminPages) move(p *process, address string, site *adminSite) {
	old := a.site.Swap(site)
	a.pages.SetAddress(address)
	a.serve(p, site)
	if old == nil {
		return
	}
	stopListening(old.server) // The address is free now.
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), adminLeaveTimeout)
		defer cancel()
		_ = old.server.Shutdown(ctx)
		_ = old.server.Close()
	}()
}

// stopListening closes a server's listeners and does not wait for its requests: Shutdown
// closes the listeners before it checks its context.
func stopListening(server *http.Server) {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_ = server.Shutdown(over)
}

// server returns the server of the pages; nil without one.
func (a *adminPages) server() *http.Server {
	if site := a.site.Load(); site != nil {
		return site.server
	}
	return nil
}

// adminEndTimeout bounds requests that are under way at the end of the process. One may
// have been accepted while the new process of an upgrade took over.
const adminEndTimeout = 500 * time.Millisecond

// close answers the requests under way, for a short time, and closes the server of the
// pages.
func (a *adminPages) close() {
	if site := a.site.Load(); site != nil {
		ctx, cancel := context.WithTimeout(context.Background(), adminEndTimeout)
		defer cancel()
		_ = site.server.Shutdown(ctx)
		_ = site.server.Close()
		site.closeListeners() // The server only closes listeners that it serves.
	}
}
