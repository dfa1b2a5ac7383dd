package admin

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/page"
	"github.com/muxserve/muxserve/mux"
)

// Configuration is the configuration of a running server. All methods may be called
// concurrently. [Server] has the history.
type Configuration interface {
	// Write writes the effective configuration without secrets.
	Write(w io.Writer) error
	// Reload reads the configuration again and puts it in force. origin names the caller.
	// After an error nothing has changed. The error is [ErrBusy], or has one line for
	// each fault.
	Reload(origin string) (mux.Version, error)
	// Rollback puts the configuration of an earlier version in force again, as a new
	// version. Its errors are those of Reload.
	Rollback(number int, origin string) (mux.Version, error)
	// Access returns the access rules in force.
	Access() Access
}

// ErrBusy says that the configuration cannot be changed now, because another change or an
// upgrade is under way or the server drains.
var ErrBusy = errors.New("admin: the configuration cannot be changed at the moment")

// addConfiguration adds the pages of the configuration. [Pages.authorized] guards
// changes.
func (p *Pages) addConfiguration(routes *http.ServeMux) {
	routes.HandleFunc("GET /config", p.serveConfig)
	routes.Handle("/config/reload", p.changing(func(r *http.Request) (mux.Version, error) {
		return p.configuration.Reload(originOf(r))
	}))
	routes.Handle("/config/rollback", p.changing(func(r *http.Request) (mux.Version, error) {
		const name = "version"
		value := r.URL.Query().Get(name)
		number, err := strconv.Atoi(value)
		if err != nil {
			return mux.Version{}, parameterError{badParameter(name, value, "the number of a version")}
		}
		return p.configuration.Rollback(number, originOf(r))
	}))
}

// parameterError is a fault of the request rather than of the configuration.
type parameterError struct{ error }

// originOf names the client of a request, for the history. It leaves out the port: a client
// that repeats a change comes from another one each time.
func originOf(r *http.Request) string {
	if isUnix(r) {
		return "admin listener, Unix socket"
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	return "admin listener, " + host
}

// serveConfig serves the effective configuration as text, or its history as JSON.
func (p *Pages) serveConfig(w http.ResponseWriter, r *http.Request) {
	w.Header().Add("Vary", "Accept")
	if wantsJSON(r) {
		page.JSON(w, http.StatusOK, p.server.History())
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_ = p.configuration.Write(w) // It fails only where the client has left.
}

// wantsJSON reports whether a request asks for JSON, by the parameter format or by the
// first type of its Accept header.
func wantsJSON(r *http.Request) bool {
	if format := r.URL.Query().Get("format"); format != "" {
		return format == formatJSON
	}
	first, _, _ := strings.Cut(r.Header.Get("Accept"), ",")
	kind, _, _ := strings.Cut(first, ";")
	return strings.EqualFold(strings.TrimSpace(kind), "application/json")
}

// changing serves a change of the configuration.
func (p *Pages) changing(change func(*http.Request) (mux.Version, error)) http.Handler {
	return p.authorized(http.MethodPost, func(w http.ResponseWriter, r *http.Request) {
		version, err := change(r)
		if parameter, ok := errors.AsType[parameterError](err); ok {
			page.Error(w, http.StatusBadRequest, parameter)
			return
		}
		if err == nil {
			page.JSON(w, http.StatusOK, version)
			return
		}
		status := http.StatusUnprocessableEntity
		if errors.Is(err, ErrBusy) {
			status = http.StatusConflict
		}
		page.JSON(w, status, map[string]any{"error": "the configuration is as it was", "faults": strings.Split(err.Error(), "\n")})
	})
}
