// Package admin serves what an operator wants to know about a running muxserve,
// on a listener of its own that stays open until the drain is over.
package admin

import (
	"crypto/x509"
	_ "embed"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/pprof"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/page"
	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/mux/muxprom"
	"github.com/muxserve/muxserve/pool"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageStyle string

//go:embed page.js
var pageScript string

// Server is what the pages show; *[mux.Server] is one.
type Server interface {
	Phase() lifecycle.Phase
	Stats() mux.Stats
	Connections() []pool.Info
	Servers() []mux.ServerInfo
	Certificates() map[string]*x509.Certificate
}

var _ Server = (*mux.Server)(nil)

// Handler returns the admin pages of a server. address is the one that the admin
// listener was configured with: requests that name its host are answered,
// beside those that [guard] lets in anyway. config writes the effective
// configuration without secrets.
func Handler(s Server, address string, config func(io.Writer) error) http.Handler {
	h := &handler{server: s, config: config}
	routes := http.NewServeMux()
	routes.Handle("GET /{$}", page.New(pageHTML, pageStyle, pageScript))
	routes.Handle("/livez", lifecycle.LiveHandler())
	routes.Handle("/readyz", lifecycle.ReadyHandler(s.Phase))
	routes.HandleFunc("GET /health", h.health)
	routes.HandleFunc("GET /servers", h.servers)
	routes.HandleFunc("GET /connections", h.connections)
	routes.HandleFunc("GET /config", h.effectiveConfig)
	routes.Handle("GET /metrics", metrics(s))
	addProfiles(routes)
	return guard(hostOf(address), routes)
}

// metrics serves the server's statistics and those of the process.
func metrics(s Server) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		muxprom.New(s),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry})
}

// addProfiles adds /debug/pprof/ without its cmdline: a private key may stand on
// the command line.
func addProfiles(routes *http.ServeMux) {
	const root = "/debug/pprof/"
	routes.HandleFunc(root, pprof.Index)
	routes.HandleFunc(root+"profile", pprof.Profile)
	routes.HandleFunc(root+"symbol", pprof.Symbol)
	routes.HandleFunc(root+"trace", pprof.Trace)
	routes.Handle(root+"cmdline", http.NotFoundHandler())
}

// hostOf returns the host of a listen address, "" if it has none.
func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	return host
}

type handler struct {
	server Server
	config func(io.Writer) error
}

func (h *handler) effectiveConfig(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	// The only failure is a client that has left.
	_ = h.config(w)
}

// badParameter is the fault of a query parameter.
func badParameter(name, value, want string) error {
	return errors.New(name + ": " + quoted(value) + " is not " + want)
}
