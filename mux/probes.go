package mux

import (
	"bufio"
	"bytes"
	"net/http"
	"sync/atomic"
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
	open     atomic.Int32
	patience time.Duration // probeTime
}

const (
	// maxProbes bounds how many probes are served above a limit at a time.
	maxProbes = 64
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
	if p.open.Add(1) > maxProbes {
		p.open.Add(-1)
		return false
	}
	c.rare().probe.Store(&p.open)
	return true
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
		c.rare().endProbe() // It may have been closed before it was admitted.
		return false
	}
	return true
}

// endProbe gives back the place of a connection that probes has admitted.
func (m *rarely) endProbe() {
	if open := m.probe.Swap(nil); open != nil {
		open.Add(-1)
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
