package mux

import (
	"bufio"
	"bytes"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

// The paths of the probes, which the server answers itself unless [WithoutHealthPaths] says
// otherwise.
const (
	pathLive  = "/livez"
	pathReady = "/readyz"
)

// probes are the HTTP/1.1 connections that are served above a limit, because their first
// request is a probe. A full server is alive, and must not be restarted for that.
type probes struct {
	enabled  bool
	patience time.Duration // probeTime

	mu      sync.Mutex // guards what follows
	open    int
	clients map[netip.Addr]int // how many each has; see [pool.ClientOf]
}

// probePlace is the place of one of them.
type probePlace struct {
	of     *probes
	client netip.Addr
}

const (
	// maxProbes bounds how many probes are served above a limit at a time. A client that has as
	// many as are left gets no more, so that its own keep nobody's out.
	maxProbes = 128
	// probeTime is how long such a connection lasts at most, until the sweep cuts it. Its
	// client may not take the answer.
	probeTime = 5 * time.Second
)

// admit reports whether a connection that a limit keeps out is to be served, because it
// asks for a probe.
func (p *probes) admit(c *conn, tag pool.Tag) bool {
	limited := c.refused == refusedLimit || c.refused == refusedPool || c.refused == refusedAddress
	if !p.enabled || !limited || tag != pool.Tag(protocols.HTTP1) || !c.asksForProbe() {
		return false
	}
	client, _ := pool.ClientOf(c.knownAddr())
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.clients[client] >= maxProbes-p.open {
		return false
	}
	if p.clients == nil {
		p.clients = make(map[netip.Addr]int)
	}
	p.open++
	p.clients[client]++
	c.ensureRare().probe.Store(&probePlace{p, client})
	return true
}

// release gives the place back.
func (place *probePlace) release() {
	p := place.of
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open--
	if p.clients[place.client]--; p.clients[place.client] == 0 {
		delete(p.clients, place.client)
	}
}

// serveProbe is dispatch for a connection that probes has admitted. Only its first request
// is served.
func (a *admission) serveProbe(c *conn, tag pool.Tag) bool {
	c.refused = notRefused
	a.books.conns.Exempt(&c.account)
	if !a.books.conns.Move(&c.account, tag) {
		_ = c.Close()
	}
	c.account.SetState(pool.StateActive)
	c.root.departures.depart(c, reasonProbe, a.probes.patience) // The answer says Connection: close.
	if !c.advance(stageServing) {
		c.ensureRare().endProbe() // It may have been closed before it was admitted.
		return false
	}
	return true
}

// endProbe gives back the place of a connection that probes has admitted.
func (m *rarely) endProbe() {
	if place := m.probe.Swap(nil); place != nil {
		place.release()
	}
}

// longestProbe is the length of a head that is looked at.
const longestProbe = 4 << 10

// asksForProbe reports whether the connection was recognised as HTTP/1.1 and begins with a
// whole request for the path of a probe. What comes in pieces, or has a body that may not
// come, would keep its place from other probes.
func (c *conn) asksForProbe() bool {
	first := make([]byte, longestProbe)
	n, err := c.PeekReader().Read(first)
	if err != nil {
		return false
	}
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(first[:n])))
	return err == nil && (r.Method == http.MethodGet || r.Method == http.MethodHead) && isProbe(r.URL.Path) && r.ContentLength == 0
}

func isProbe(path string) bool { return path == pathLive || path == pathReady }
