package lifecycle

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestProbes(t *testing.T) {
	type answer struct {
		Status int
		Body   string
		Cache  string
	}
	tests := map[string]struct {
		phase       Phase
		method      string
		live, ready answer
	}{
		"new": {
			phase: PhaseNew, method: http.MethodGet,
			live: answer{200, "ok\n", "no-store"}, ready: answer{503, "starting\n", "no-store"},
		},
		"serving": {
			phase: PhaseServing, method: http.MethodGet,
			live: answer{200, "ok\n", "no-store"}, ready: answer{200, "ok\n", "no-store"},
		},
		"draining": {
			phase: PhaseDraining, method: http.MethodHead,
			live: answer{200, "ok\n", "no-store"}, ready: answer{503, "draining\n", "no-store"},
		},
		"stopped": {
			phase: PhaseStopped, method: http.MethodGet,
			live: answer{200, "ok\n", "no-store"}, ready: answer{503, "stopped\n", "no-store"},
		},
		"another method": {
			phase: PhaseServing, method: http.MethodPost,
			live:  answer{405, "method not allowed\n", "no-store"},
			ready: answer{405, "method not allowed\n", "no-store"},
		},
	}
	ask := func(h http.Handler, method string) answer {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "/", http.NoBody))
		return answer{w.Code, w.Body.String(), w.Header().Get("Cache-Control")}
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.live, ask(LiveHandler(), tt.method)); diff != "" {
				t.Errorf("/livez (-want +got):\n%s", diff)
			}
			ready := ReadyHandler(func() Phase { return tt.phase })
			if diff := cmp.Diff(tt.ready, ask(ready, tt.method)); diff != "" {
				t.Errorf("/readyz (-want +got):\n%s", diff)
			}
		})
	}
}
