package main

import (
	"context"
	"time"

	"github.com/muxserve/muxserve/lifecycle"
)

// reload reads the certificates again. A pair that is no good leaves the old one in use.
func (p *process) reload() {
	changed, err := p.server.ReloadCertificates()
	switch {
	case err != nil:
		p.logger.Error("certificates not reloaded; the old ones stay in use", lifecycle.KeyErr, err)
	case changed:
		p.logger.Info("certificates reloaded")
	default:
		p.logger.Info("certificates unchanged")
	}
}

// watchInterval is how often the files are looked at. Their content is compared,
// because the symbolic links of a Kubernetes secret change under unchanged names.
const watchInterval = time.Second

// watch reloads the certificates whenever their files have changed, until ctx
// ends. A fault is logged once, and not again before it has changed.
func (p *process) watch(ctx context.Context) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	fault := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		changed, err := p.server.ReloadCertificates()
		switch {
		case err == nil:
			fault = ""
			if changed {
				p.logger.Info("certificates reloaded")
			}
		case err.Error() != fault:
			fault = err.Error()
			p.logger.Error("certificates not reloaded; the old ones stay in use", lifecycle.KeyErr, err)
		}
	}
}
