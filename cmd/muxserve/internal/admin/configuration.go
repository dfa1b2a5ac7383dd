package admin

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/muxserve/muxserve/mux"
)

// Configuration is what the server runs with, and can be changed while it runs. All methods may be called
// concurrently.
type Configuration interface {
	// Write writes the effective configuration without secrets.
	Write(w io.Writer) error
	// Reload reads the configuration again and puts it in force. origin says who wants it. After an error
	// nothing has changed: [ErrBusy], or one error a line for each fault.
	Reload(origin string) (mux.Version, error)
	// Rollback puts the configuration of an earlier version in force again, as a version of its own. Its
	// errors are those of Reload.
	Rollback(number int, origin string) (mux.Version, error)
	// Token is what a request that is not local has to bring to change something; empty if none will do.
	Token() string
}

// ErrBusy is why a configuration is not changed at the moment: another change is under way, or the server drains.
var ErrBusy = errors.New("admin: the configuration cannot be changed at the moment")

// addConfiguration adds the pages of the configuration. What changes something is guarded by [Pages.authorized].
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

// originOf says who has sent a request, for the history.
func originOf(r *http.Request) string {
	if isUnix(r) {
		return "admin listener, Unix socket"
	}
	return "admin listener, " + r.RemoteAddr
}

// serveConfig serves the effective configuration as text, and its versions as JSON to those who ask for that.
func (p *Pages) serveConfig(w http.ResponseWriter, r *http.Request) {
	w.Header().Add("Vary", "Accept")
	if wantsJSON(r) {
		writeJSON(w, http.StatusOK, p.server.History())
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	// The only failure is a client that has left.
	_ = p.configuration.Write(w)
}

// wantsJSON reports whether a request asks for JSON: by the parameter, or as the first thing that it accepts.
func wantsJSON(r *http.Request) bool {
	if format := r.URL.Query().Get("format"); format != "" {
		return format == "json"
	}
	first, _, _ := strings.Cut(r.Header.Get("Accept"), ",")
	kind, _, _ := strings.Cut(first, ";")
	return strings.EqualFold(strings.TrimSpace(kind), "application/json")
}

// changing serves what changes the configuration.
func (p *Pages) changing(change func(*http.Request) (mux.Version, error)) http.Handler {
	return p.authorized(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		version, err := change(r)
		var parameter parameterError
		switch {
		case errors.As(err, &parameter):
			writeBadRequest(w, parameter)
		case errors.Is(err, ErrBusy):
			writeFaults(w, http.StatusConflict, err)
		case err != nil:
			writeFaults(w, http.StatusUnprocessableEntity, err)
		default:
			writeJSON(w, http.StatusOK, version)
		}
	}))
}

// writeFaults tells a client why nothing has changed: each line of the error is one fault.
func writeFaults(w http.ResponseWriter, status int, err error) {
	writeJSON(w, status, map[string]any{"error": "the configuration is as it was", "faults": strings.Split(err.Error(), "\n")})
}
