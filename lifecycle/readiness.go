package lifecycle

import (
	"io"
	"net/http"
)

// LiveHandler answers liveness probes (/livez) with 200 in every phase: a server must not
// be restarted because it drains.
func LiveHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answerProbe(w, r, http.StatusOK, "ok")
	})
}

// ReadyHandler answers readiness probes (/readyz): 200 while phase returns
// [PhaseServing] and no check an error. Otherwise it answers 503 with "starting", "draining",
// "stopped" or "not ready: " and the error of the first check that fails. All are called for
// each request; [Machine.Phase] will do.
func ReadyHandler(phase func() Phase, checks ...func() error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch p := phase(); p {
		case PhaseServing:
			for _, check := range checks {
				if err := check(); err != nil {
					answerProbe(w, r, http.StatusServiceUnavailable, "not ready: "+err.Error())
					return
				}
			}
			answerProbe(w, r, http.StatusOK, "ok")
		case PhaseNew:
			answerProbe(w, r, http.StatusServiceUnavailable, "starting")
		default:
			answerProbe(w, r, http.StatusServiceUnavailable, string(p))
		}
	})
}

// answerProbe answers GET and HEAD with a line of text that is not to be cached, and
// refuses other methods.
func answerProbe(w http.ResponseWriter, r *http.Request, status int, text string) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Type", "text/plain; charset=utf-8")
	header.Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		status, text = http.StatusMethodNotAllowed, "method not allowed"
	}
	w.WriteHeader(status)
	// A prober that has hung up needs no answer.
	_, _ = io.WriteString(w, text+"\n")
}
