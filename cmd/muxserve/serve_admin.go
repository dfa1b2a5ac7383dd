package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/admin"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
	"github.com/muxserve/muxserve/lifecycle"
)

// The bounds of the admin server. There is none on a response: a profile takes
// as long as it is asked to.
const (
	adminHeaderTimeout = 10 * time.Second
	adminIdleTimeout   = 2 * time.Minute
)

// adminLeaveTimeout is how long requests may go on at an address that the admin listener has left. It is
// more than a profile takes by default.
const adminLeaveTimeout = time.Minute

// adminPages are the admin pages and where they are served.
type adminPages struct {
	pages *admin.Pages
	site  atomic.Pointer[adminSite] // nil without admin pages
}

// adminSite serves the pages on one address.
type adminSite struct {
	listener net.Listener
	server   *http.Server
}

// open opens an address for the pages; nil for [settings.Off]. The pages need not exist yet.
func (a *adminPages) open(ctx context.Context, p *process, address string) (site *adminSite, err error) {
	if address == settings.Off {
		return site, nil
	}
	l, err := p.handover.sockets.Listen(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	return &adminSite{listener: l, server: &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.pages.ServeHTTP(w, r) }),
		ReadHeaderTimeout: adminHeaderTimeout,
		IdleTimeout:       adminIdleTimeout,
		ErrorLog:          slog.NewLogLogger(p.logger.Handler(), slog.LevelDebug),
	}}, nil
}

// newPages makes the pages, of a server that is there. They remember the last minutes until the process ends.
func (a *adminPages) newPages(p *process) {
	a.pages = admin.New(p.server, admin.Options{
		Address: p.settings().Admin.Address, Configuration: p.reloads,
	})
	go a.pages.Run(p.running)
}

// serve serves a site in the background, if it is one.
func (a *adminPages) serve(p *process, site *adminSite) {
	if site == nil {
		return
	}
	go func() {
		if err := site.server.Serve(site.listener); !errors.Is(err, http.ErrServerClosed) {
			p.logger.Error("the admin listener failed", lifecycle.KeyErr, err)
		}
	}()
}

// move serves a site in the place of the one before. Requests that are under way there end in their time; one of
// them may be what this is about.
func (a *adminPages) move(p *process, address string, site *adminSite) {
	old := a.site.Swap(site)
	a.pages.SetAddress(address)
	a.serve(p, site)
	if old == nil {
		return
	}
	// The address is free when this returns: Shutdown closes the listener before it looks at its context.
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_ = old.server.Shutdown(over)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), adminLeaveTimeout)
		defer cancel()
		_ = old.server.Shutdown(ctx)
		_ = old.server.Close()
	}()
}

// server returns the server of the pages; nil if they are not served.
func (a *adminPages) server() *http.Server {
	if site := a.site.Load(); site != nil {
		return site.server
	}
	return nil
}

// close ends the pages.
func (a *adminPages) close() {
	if site := a.site.Load(); site != nil {
		_ = site.server.Close()
		_ = site.listener.Close() // The server does not know it before it serves.
	}
}
