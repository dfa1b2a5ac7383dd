// Package admin serves pages about a running muxserve for its operator. Their listener is
// not the server's, and stays open until the drain is over.
package admin

import (
	"context"
	"crypto/x509"
	"embed"
	"errors"
	"iter"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/page"
	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
)

//go:embed page
var pageFiles embed.FS

// Server is what the pages show; *[mux.Server] is one.
type Server interface { //nolint:interfacebloat // It is the part of *mux.Server that the pages show.
	Phase() lifecycle.Phase
	Ready() error
	Config() mux.Config
	Listeners() iter.Seq2[net.Addr, listeners.Config]
	DrainProgress() (mux.DrainProgress, bool)
	Disconnect(which func(pool.Info) bool, patience time.Duration) int
	Closed() []mux.ClosedConn
	ReadyHandler() http.Handler
	Stats() mux.Stats
	Connections() []pool.Info
	Servers() []mux.ServerInfo
	Certificates() map[string][]*x509.Certificate
	History() mux.History
}

var _ Server = (*mux.Server)(nil)

// Options are the optional parameters of [New]. The zero value works.
type Options struct {
	// Address is the configured address of the admin listener. The pages answer requests
	// that name its host, besides others that [Pages.guard] lets in. See
	// [Pages.SetAddress].
	Address string
	// Version is muxserve's, for people.
	Version string
	// Process is asked for what concerns the whole process. Without it there are no such
	// pages.
	Process Process
	// Configuration shows and changes the configuration. Without it there are no such pages.
	Configuration Configuration
}

// Pages are the admin pages of one server. All methods may be called concurrently.
type Pages struct {
	server        Server
	configuration Configuration // may be nil
	process       Process       // may be nil
	version       string
	history       *history
	routes        http.Handler
	host          atomic.Pointer[string] // of the configured address
	bounds        bounds
	curve         curve
	watchers      watchers
	timed         sync.Mutex    // held while a profile is taken that takes time
	snapshots     sync.Mutex    // held while another profile is taken
	longLists     chan struct{} // has an element for each long list of connections; see maxLongLists
	listing       sync.Mutex    // held while the connections are looked at
	turn          chan struct{} // has an element while the metrics are made; see rendered
	waiting       atomic.Int32  // requests for that, and their turn
}

var _ http.Handler = (*Pages)(nil)

// New returns the admin pages of s. They have no history before [Pages.Run] is called.
func New(s Server, o Options) *Pages {
	p := &Pages{
		server:        s,
		configuration: o.Configuration,
		process:       o.Process,
		version:       o.Version,
		history:       new(history),
		bounds:        defaultBounds,
		longLists:     make(chan struct{}, maxLongLists),
		turn:          make(chan struct{}, 1),
	}
	p.SetAddress(o.Address)
	routes := http.NewServeMux()
	document, files := page.Site(pageFiles, "page")
	routes.Handle("GET /{$}", document)
	routes.Handle("GET /page/", files)
	routes.Handle("/livez", lifecycle.LiveHandler())
	routes.Handle("/readyz", s.ReadyHandler())
	routes.HandleFunc("GET /health", p.serveHealth)
	routes.HandleFunc("GET /servers", p.serveServers)
	routes.HandleFunc("GET /connections", p.serveConnections)
	routes.HandleFunc("GET /metrics", p.rendered(p.serveMetrics()))
	routes.HandleFunc("GET /closed", p.serveClosed)
	routes.HandleFunc("GET /certificates", p.serveCertificates)
	routes.HandleFunc("GET /drain", p.serveProgress)
	routes.HandleFunc("GET /events", p.serveEvents)
	if p.configuration != nil {
		p.addConfiguration(routes)
	}
	p.addCalls(routes)
	p.addProfiles(routes)
	p.route(routes)
	return p
}

// route serves the routes. What the guard refuses is bounded as well.
func (p *Pages) route(routes http.Handler) { p.routes = p.bounded(p.guard(routes)) }

// SetAddress replaces [Options].Address after the admin listener has moved.
func (p *Pages) SetAddress(address string) {
	host, _, _ := net.SplitHostPort(address) // "" for an address without a host.
	p.host.Store(&host)
}

// Run takes a sample of the server's statistics every [sampleInterval] until ctx ends,
// and keeps those of the last [historyLength]. During a drain it follows the number of
// connections, too. Call it once, in its own goroutine.
func (p *Pages) Run(ctx context.Context) {
	tick := time.Tick(curveInterval)
	var sampled time.Time
	for {
		now := time.Now()
		// A tick may come a little early.
		if now.Sub(sampled) > sampleInterval-curveInterval/2 {
			sampled = now
			p.history.add(now, p.server.Stats())
		}
		p.follow(now)
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
	}
}

// ServeHTTP implements [http.Handler].
func (p *Pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(pidHeader, strconv.Itoa(os.Getpid()))
	p.routes.ServeHTTP(w, r)
}

// pidHeader names the process that answers. During an upgrade two of them answer at one
// address, and a client that follows the drain of the first one can tell them apart.
const pidHeader = "Muxserve-Pid"

// serverView is an element of the answer of /servers.
type serverView struct {
	ID            string   `json:"id"`
	Protocol      string   `json:"protocol"`
	Status        string   `json:"status"`
	Addresses     []string `json:"addresses"`
	Connections   int64    `json:"connections"`
	UptimeSeconds float64  `json:"uptime_seconds"`
}

func (p *Pages) serveServers(w http.ResponseWriter, _ *http.Request) {
	infos := p.server.Servers()
	views := make([]serverView, len(infos))
	for i, s := range infos {
		views[i] = serverView{s.ID, s.Protocol, s.Status, s.Addresses, s.Connections, s.Uptime.Seconds()}
	}
	page.JSON(w, http.StatusOK, map[string]any{"servers": views, "listeners": p.listeners()})
}

// badParameter is the fault of a query parameter.
func badParameter(name, value, want string) error {
	return errors.New(name + ": " + strconv.Quote(value) + " is not " + want)
}
