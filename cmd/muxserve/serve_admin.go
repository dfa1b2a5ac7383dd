package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
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

// adminHeaderBytes bounds the head of an admin request. Browsers send some cookies.
const adminHeaderBytes = 64 << 10

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
	sockets   []net.Listener
	listeners []*listeners.Listener // of the sockets
	server    *http.Server
	logger    *slog.Logger
	serving   sync.WaitGroup // one for each listener
	conns     sync.WaitGroup // one for each connection
	bound     admin.ConnLimiter
}

// count is the server's ConnState.
func (s *adminSite) count(conn net.Conn, state http.ConnState) {
	s.bound.State(conn, state)
	switch state {
	case http.StateNew:
		s.conns.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.conns.Done()
	case http.StateActive, http.StateIdle:
	}
}

// newAdminSite returns a site that serves pages. It takes the sockets over.
func newAdminSite(sockets []net.Listener, pages http.HandlerFunc, logger *slog.Logger) *adminSite {
	s := &adminSite{sockets: sockets, logger: logger}
	for _, l := range sockets {
		s.listeners = append(s.listeners, listeners.New(l, logger))
	}
	s.server = &http.Server{
		Handler:           pages,
		ReadHeaderTimeout: adminHeaderTimeout,
		MaxHeaderBytes:    adminHeaderBytes,
		IdleTimeout:       adminIdleTimeout,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		ConnState:         s.count,
		ConnContext:       s.bound.Context,
	}
	return s
}

// serve serves a site in the background. A nil site is not served.
func (s *adminSite) serve() {
	if s == nil {
		return
	}
	for _, l := range s.listeners {
		s.serving.Go(func() {
			if err := s.server.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
				s.logger.Error("the admin listener failed", keyErr, err)
			}
		})
	}
}

// stop accepts what the kernel has queued, and closes the listeners and the idle
// connections. The others end behind the request under way or, if they are new, their first
// one. Shutdown would not answer that.
func (s *adminSite) stop() {
	for _, l := range s.listeners {
		l.Release() // Another site may have the address by now.
	}
	s.serving.Wait()
	s.cede()
	s.server.SetKeepAlivesEnabled(false)
}

// cede closes the listeners at once. It loses what the kernel has queued, unless another
// process has the sockets.
func (s *adminSite) cede() {
	for _, l := range s.listeners {
		_ = l.Close()
	}
}

// end stops the site, and closes what is left of it after timeout.
func (s *adminSite) end(timeout time.Duration) {
	s.stop()
	over := make(chan struct{})
	go func() {
		s.conns.Wait()
		close(over)
	}()
	select {
	case <-over:
	case <-time.After(timeout):
	}
	_ = s.server.Close()
}

// open opens an address for the pages, which may overlap with the one that they have. It
// returns nil for [settings.Off]. newPages may come later.
func (a *adminPages) open(ctx context.Context, p *process, address string) (site *adminSite, err error) {
	if address == settings.Off {
		return site, nil
	}
	if old := a.site.Load(); old != nil {
		ctx = listeners.Replacing(ctx, old.sockets...)
	}
	c := listeners.DefaultConfig()
	c.Address = address
	sockets, err := c.Open(ctx, p.handover.sockets.Listen)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	pages := func(w http.ResponseWriter, r *http.Request) { a.pages.ServeHTTP(w, r) }
	return newAdminSite(sockets, pages, p.logger), nil
}

// newPages makes the pages, and keeps their history until the process ends.
func (a *adminPages) newPages(p *process) {
	info, _ := debug.ReadBuildInfo()
	a.pages = admin.New(p.server, admin.Options{
		Address: p.settings().Admin.Address, Version: buildVersion(info), Configuration: p.reloads, Process: p,
	})
	go a.pages.Run(p.running)
}

// move replaces the current site. Requests under way at the old site go on: one of them
// may have asked for this reload.
func (a *adminPages) move(address string, site *adminSite) {
	old := a.site.Swap(site)
	a.pages.SetAddress(address)
	site.serve()
	if old != nil {
		old.leave()
	}
}

// drop ends a site that is not to be the current one, or nil. Clients may have reached it:
// they are answered.
func (s *adminSite) drop() {
	if s != nil {
		s.serve()
		s.leave()
	}
}

// leave frees the address, and ends the site in the background.
func (s *adminSite) leave() {
	s.stop()
	go s.end(adminLeaveTimeout)
}

// adminEndTimeout bounds requests that are under way at the end of the process. One may
// have been accepted while the new process of an upgrade took over.
const adminEndTimeout = 500 * time.Millisecond

// close answers the requests under way, for a short time, and closes the server of the
// pages.
func (a *adminPages) close() {
	if site := a.site.Load(); site != nil {
		site.end(adminEndTimeout)
	}
}
