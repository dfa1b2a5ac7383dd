package admin

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/page"
	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
)

// Process is the process around the server. All methods may be called concurrently.
type Process interface {
	// Drain begins the drain, as a signal does, and returns at once. It reports false where
	// the drain has begun before. origin names the caller.
	Drain(origin string) bool
	// SetReady has the server want traffic, or not; it serves in any case. The error says why
	// that cannot be changed now.
	SetReady(ready bool) error
	// LogLevel returns the level of the log.
	LogLevel() slog.Level
	// SetLogLevel sets it until the next reload.
	SetLogLevel(level slog.Level, origin string)
}

// addCalls adds what changes something besides the configuration.
func (p *Pages) addCalls(routes *http.ServeMux) {
	if p.configuration == nil { // It has the access rules.
		return
	}
	routes.Handle("DELETE /connections", p.authorized(http.MethodDelete, p.serveDisconnect))
	routes.Handle("/connections/{id}", p.authorized(http.MethodDelete, p.serveDisconnect))
	if p.process != nil {
		routes.Handle("/ready", p.authorized(http.MethodPost, p.serveReady))
		routes.Handle("POST /drain", p.authorized(http.MethodPost, p.serveDrain))
		routes.Handle("/log", p.authorized(http.MethodPost, p.serveLog))
	}
}

// errDraining refuses what a server that drains cannot do.
func (p *Pages) errDraining() error {
	if phase := p.server.Phase(); phase == lifecycle.PhaseDraining || phase == lifecycle.PhaseStopped {
		return fmt.Errorf("the server is %s already", phase)
	}
	return nil
}

func (p *Pages) serveDrain(w http.ResponseWriter, r *http.Request) {
	if !p.process.Drain(originOf(r)) {
		why := "the server is draining already"
		if p.server.Phase() == lifecycle.PhaseNew {
			why = "the server does not serve yet"
		}
		page.Error(w, http.StatusConflict, errors.New(why))
		return
	}
	page.JSON(w, http.StatusAccepted, map[string]string{"phase": string(lifecycle.PhaseDraining)})
}

// serveReady has the server leave and join its balancers. It serves everything all the
// same.
func (p *Pages) serveReady(w http.ResponseWriter, r *http.Request) {
	const name, on, off = "state", "on", "off"
	state := r.URL.Query().Get(name)
	if state != on && state != off {
		page.Error(w, http.StatusBadRequest, badParameter(name, state, "one of "+off+", "+on))
		return
	}
	err := p.errDraining()
	if err == nil {
		err = p.process.SetReady(state == on)
	}
	if err != nil {
		page.Error(w, http.StatusConflict, err)
		return
	}
	answer := struct {
		Ready  bool   `json:"ready"`
		Reason string `json:"reason,omitempty"`
	}{Ready: true}
	if err := p.server.Ready(); err != nil {
		answer.Ready, answer.Reason = false, err.Error()
	}
	page.JSON(w, http.StatusOK, answer)
}

// levels are the values of the parameter level.
var levels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

func (p *Pages) serveLog(w http.ResponseWriter, r *http.Request) {
	const name = "level"
	value := r.URL.Query().Get(name)
	level, ok := levels[strings.ToLower(value)]
	if !ok {
		page.Error(w, http.StatusBadRequest, badParameter(name, value, "one of debug, info, warn, error"))
		return
	}
	p.process.SetLogLevel(level, originOf(r))
	page.JSON(w, http.StatusOK, map[string]string{"level": levelName(level)})
}

// levelName returns a level as the configuration has it.
func levelName(level slog.Level) string { return strings.ToLower(level.String()) }

// The bounds of the parameter patience.
const (
	defaultPatience = time.Second
	maxPatience     = time.Hour
)

// serveDisconnect ends the connection with an id, or all connections of a peer. The server
// tells their clients first.
func (p *Pages) serveDisconnect(w http.ResponseWriter, r *http.Request) {
	which, what, err := connectionsOf(r)
	patience := defaultPatience
	if text := r.URL.Query().Get("patience"); text != "" && err == nil {
		if patience, err = time.ParseDuration(text); err != nil || patience < 0 || patience > maxPatience {
			err = badParameter("patience", text, "a length of time from 0s to 1h, such as 10s")
		}
	}
	if err != nil {
		page.Error(w, http.StatusBadRequest, err)
		return
	}
	n := p.server.Disconnect(which, patience)
	if n == 0 {
		page.Error(w, http.StatusNotFound, errors.New("no open connection has "+what))
		return
	}
	page.JSON(w, http.StatusOK, map[string]any{"closed": n, "patience_seconds": patience.Seconds()})
}

// connectionsOf returns the condition for the connections that a request names, and the
// same in words.
func connectionsOf(r *http.Request) (which func(pool.Info) bool, what string, err error) {
	if text := r.PathValue("id"); text != "" {
		id, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return nil, "", badParameter("id", text, "the number of a connection")
		}
		return func(c pool.Info) bool { return c.ID == id }, "the id " + text, nil
	}
	peer := r.URL.Query().Get("peer")
	which, err = parsePeer(peer)
	return which, "the peer " + peer, err
}

// parsePeer returns the condition for the connections of a peer: an address, one with a
// port, or a network.
func parsePeer(text string) (func(pool.Info) bool, error) {
	port, network := uint16(0), netip.Prefix{}
	if both, err := netip.ParseAddrPort(text); err == nil {
		port, network = both.Port(), netip.PrefixFrom(both.Addr(), both.Addr().BitLen())
	} else if addr, err := netip.ParseAddr(text); err == nil {
		network = netip.PrefixFrom(addr, addr.BitLen())
	} else if network, err = netip.ParsePrefix(text); err != nil {
		return nil, badParameter("peer", text, "an address such as 192.0.2.1, 192.0.2.1:4711 or 192.0.2.0/24")
	}
	return func(c pool.Info) bool {
		peer, err := netip.ParseAddrPort(c.RemoteAddr)
		return err == nil && network.Contains(peer.Addr().Unmap()) && (port == 0 || port == peer.Port())
	}, nil
}

// serveClosed lists the connections that have ended last, the latest first.
func (p *Pages) serveClosed(w http.ResponseWriter, r *http.Request) {
	limit, err := parseLimit(r.URL.Query().Get("limit"))
	if err != nil {
		page.Error(w, http.StatusBadRequest, err)
		return
	}
	closed := p.server.Closed()
	page.JSON(w, http.StatusOK, map[string]any{"closed": append([]mux.ClosedConn{}, closed[:min(len(closed), limit)]...)})
}
