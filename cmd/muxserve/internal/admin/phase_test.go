package admin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

// phaseLine is a line of the phases' metric.
var phaseLine = regexp.MustCompile(`(?m)^mux_phase\{phase="([a-z]+)"\} (\S+)$`)

// scrapePhases returns the phases in /metrics.
func scrapePhases(ctx context.Context, p *Pages) map[string]string {
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/metrics", nil))
	phases := make(map[string]string)
	for _, line := range phaseLine.FindAllStringSubmatch(w.Body.String(), -1) {
		phases[line[1]] = line[2]
	}
	return phases
}

// TestPhaseMetric follows the phase of a server through its drain. In each scrape exactly
// one phase is 1.
func TestPhaseMetric(t *testing.T) {
	t.Parallel()
	s := mux.New(
		mux.Configure(func(c *mux.Config) {
			c.Listeners[0].Address = "127.0.0.1:0"
			c.Drain.Delay, c.Drain.Spread, c.Drain.Timeout = time.Second, 0, 10*time.Second
		}),
		mux.WithLogger(slog.New(slog.DiscardHandler)),
	)
	pages := New(s, Options{})
	check := func(in lifecycle.Phase) {
		t.Helper()
		want := map[string]string{"new": "0", "serving": "0", "draining": "0", "stopped": "0"}
		want[string(in)] = "1"
		if diff := cmp.Diff(want, scrapePhases(t.Context(), pages)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", in, diff)
		}
	}
	serving := make(chan struct{})
	s.OnPhase(func(p lifecycle.Phase) {
		if p == lifecycle.PhaseServing {
			close(serving)
		}
	})
	// The metric is scraped in each step of the drain.
	for _, step := range lifecycle.Steps() {
		if err := s.OnDrain(step, "scrape", func(context.Context) error {
			check(lifecycle.PhaseDraining)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	check(lifecycle.PhaseNew)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.ListenAndServe() }()
	<-serving
	check(lifecycle.PhaseServing)
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	<-ended
	check(lifecycle.PhaseStopped)
}

// TestReadyzAsksChecks: the admin listener's /readyz answers what the served port's does.
func TestReadyzAsksChecks(t *testing.T) {
	t.Parallel()
	s := mux.New(mux.WithAddress("127.0.0.1:0"), mux.WithLogger(slog.New(slog.DiscardHandler)))
	defer s.Close()
	s.AddReadiness("database", func(context.Context) error { return errors.New("connection refused") })
	serving := make(chan struct{})
	s.OnPhase(func(p lifecycle.Phase) {
		if p == lifecycle.PhaseServing {
			close(serving)
		}
	})
	readyz := func() [2]string {
		w := get(t, s, "localhost", "/readyz")
		return [2]string{strconv.Itoa(w.Code), strings.TrimSpace(w.Body.String())}
	}
	got := [][2]string{readyz()}
	go s.ListenAndServe()
	<-serving
	got = append(got, readyz())
	s.SetServing("", false)
	got = append(got, readyz())
	want := [][2]string{{"503", "starting"}, {"503", "not ready: database"}, {"503", "not ready: switched off, database"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
