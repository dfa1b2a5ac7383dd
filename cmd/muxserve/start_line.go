package main

import (
	"fmt"
	"net"
	"runtime/debug"
	"strings"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
	"github.com/muxserve/muxserve/listeners"
)

// shownListener is a listener in the start line: an object in JSON, words in text.
type shownListener struct {
	Address       string   `json:"address"`
	Protocols     []string `json:"protocols"`
	TLS           string   `json:"tls"`
	ProxyProtocol string   `json:"proxy_protocol"`
}

func (l shownListener) String() string {
	return fmt.Sprintf("%s %s tls=%s proxy_protocol=%s", l.Address, strings.Join(l.Protocols, ","), l.TLS, l.ProxyProtocol)
}

func showListener(addr net.Addr, c listeners.Config) shownListener {
	return shownListener{Address: bound(addr), Protocols: c.Protocols, TLS: c.TLS.Mode, ProxyProtocol: c.ProxyProtocol.Mode}
}

// bound returns the address of a socket as --listen takes it.
func bound(addr net.Addr) string {
	if addr.Network() == "unix" {
		return settings.UnixPrefix + addr.String()
	}
	return addr.String()
}

// logStart logs, in one line, what the process serves and with which configuration.
func (p *process) logStart() {
	s := p.settings()
	var shown []shownListener
	for addr, c := range p.server.Listeners() {
		shown = append(shown, showListener(addr, c))
	}
	admin := s.Admin.Address // It is off, or has no port yet.
	if site := p.admin.site.Load(); site != nil {
		admin = bound(site.sockets[0].Addr())
	}
	info, _ := debug.ReadBuildInfo()
	p.logger.Info("serving", keyBuild, buildVersion(info), keyConfigFile, s.ConfigFile(), keyAdmin, admin,
		keyMaxConnections, s.Mux.Limits.MaxConnections, keyListeners, shown)
}
