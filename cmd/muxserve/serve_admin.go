package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/admin"
	"github.com/muxserve/muxserve/lifecycle"
)

// The bounds of the admin server. There is none on a response: a profile takes
// as long as it is asked to.
const (
	adminHeaderTimeout = 10 * time.Second
	adminIdleTimeout   = 2 * time.Minute
)

// newAdminServer makes the server of the admin pages, if there are to be any.
func (p *process) newAdminServer() {
	if p.adminListener == nil {
		return
	}
	p.adminPages = admin.New(p.server, admin.Options{Address: p.settings.Admin.Address, Config: p.settings.Write})
	p.adminServer = &http.Server{
		Handler:           p.adminPages,
		ReadHeaderTimeout: adminHeaderTimeout,
		IdleTimeout:       adminIdleTimeout,
		ErrorLog:          slog.NewLogLogger(p.logger.Handler(), slog.LevelDebug),
	}
}

// serveAdmin serves the admin pages, if there are any, in the background. They
// remember the last minutes until ctx ends.
func (p *process) serveAdmin(ctx context.Context) {
	if p.adminServer == nil {
		return
	}
	go p.adminPages.Run(ctx)
	go func() {
		if err := p.adminServer.Serve(p.adminListener); !errors.Is(err, http.ErrServerClosed) {
			p.logger.Error("the admin listener failed", lifecycle.KeyErr, err)
		}
	}()
}
