package admin

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/page"
	"github.com/muxserve/muxserve/lifecycle"
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
