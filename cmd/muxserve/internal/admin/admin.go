// Package admin serves what an operator wants to know about a running muxserve,
// on a listener of its own that stays open until the drain is over.
package admin

import (
	"context"
	"crypto/x509"
	_ "embed"
	"errors"
	"net"
	"net/http"
	"net/http/pprof"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/page"
	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
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
	History() mux.History
}

var _ Server = (*mux.Server)(nil)

// Options are what [New] may be told beside the server. The zero value works.
type Options struct {
	// Address is the one that the admin listener was configured with: requests
	// that name its host are answered, beside those that [Pages.guard] lets in anyway. See [Pages.SetAddress].
	Address string
	// Configuration shows and changes the configuration. Without it there are no such pages.
	Configuration Configuration
}

// Pages are the admin pages of one server. All methods may be called concurrently.
type Pages struct {
	server        Server
	configuration Configuration // may be nil
	crossOrigin   *http.CrossOriginProtection
	registry      *prometheus.Registry
	history       *history
	routes        http.Handler
	host          atomic.Pointer[string] // of the configured address
}

var _ http.Handler = (*Pages)(nil)

// New returns the admin pages of s. They remember nothing before [Pages.Run] is called.
func New(s Server, o Options) *Pages {
	p := &Pages{
		server:        s,
		configuration: o.Configuration,
		crossOrigin:   http.NewCrossOriginProtection(),
		registry:      newRegistry(s),
		history:       new(history),
	}
	p.SetAddress(o.Address)
	routes := http.NewServeMux()
	routes.Handle("GET /{$}", page.New(pageHTML, pageStyle, pageScript))
	routes.Handle("/livez", lifecycle.LiveHandler())
	routes.Handle("/readyz", lifecycle.ReadyHandler(s.Phase))
	routes.HandleFunc("GET /health", p.serveHealth)
	routes.HandleFunc("GET /servers", p.serveServers)
	routes.HandleFunc("GET /connections", p.serveConnections)
	routes.HandleFunc("GET /metrics", p.serveMetrics())
	if p.configuration != nil {
		p.addConfiguration(routes)
	}
	addProfiles(routes)
	p.routes = p.guard(routes)
	return p
}

// SetAddress takes the place of [Options.Address], where the admin listener has moved.
func (p *Pages) SetAddress(address string) {
	host := hostOf(address)
	p.host.Store(&host)
}

// Run takes a sample of the server's statistics every [SampleInterval] and keeps
// those of the last [HistoryLength], until ctx ends. Call it once, in a goroutine of its own: it
// is the only one that the pages need.
func (p *Pages) Run(ctx context.Context) {
	p.history.begin(time.Now(), p.server.Stats())
	tick := time.NewTicker(SampleInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.history.add(time.Now(), p.server.Stats())
		}
	}
}

// ServeHTTP implements [http.Handler].
func (p *Pages) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.routes.ServeHTTP(w, r) }

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

// badParameter is the fault of a query parameter.
func badParameter(name, value, want string) error {
	return errors.New(name + ": " + quoted(value) + " is not " + want)
}
