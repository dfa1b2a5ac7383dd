package admin

import (
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/page"
	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

const (
	// curveInterval is the time between two points of a drain's curve.
	curveInterval = 250 * time.Millisecond
	// maxCurve bounds the points. A longer drain has them farther apart.
	maxCurve = 480
)

// curvePoint is how many connections were left at a moment of a drain.
type curvePoint struct {
	ElapsedSeconds float64          `json:"elapsed_seconds"`
	Remaining      map[string]int64 `json:"remaining"` // by protocol
}

// curve is the curve of the drain. The zero value is empty. All methods may be called
// concurrently.
type curve struct {
	mu     sync.Mutex // guards what follows
	points []curvePoint
	every  int // how many calls of add make a point
	calls  int
	over   bool
}

// add adds a point, if it is time for one. The last point ends the curve.
func (c *curve) add(elapsed time.Duration, remaining map[string]int64, last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	c.over = last
	c.every = max(1, c.every)
	due := c.calls%c.every == 0
	if c.calls++; !due && !last {
		return
	}
	if len(c.points) >= maxCurve {
		half := c.points[:0]
		for i := 0; i < len(c.points); i += 2 {
			half = append(half, c.points[i])
		}
		c.points, c.every = half, 2*c.every
	}
	c.points = append(c.points, curvePoint{elapsed.Seconds(), remaining})
}

// list returns the points.
func (c *curve) list() []curvePoint {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]curvePoint{}, c.points...)
}

// follow adds to the curve of a drain.
func (p *Pages) follow(now time.Time) {
	progress, begun := p.server.DrainProgress()
	if !begun {
		return
	}
	p.curve.add(now.Sub(progress.Started), remainingOf(p.server.Stats()), progress.Step == "")
}

// remainingOf counts the open connections by protocol.
func remainingOf(stats mux.Stats) map[string]int64 {
	remaining := make(map[string]int64)
	for tag, pool := range stats.Pools {
		if pool.Active > 0 {
			remaining[tag] = pool.Active
		}
	}
	return remaining
}

// progressView is the answer of GET /drain.
type progressView struct {
	Phase lifecycle.Phase `json:"phase"`
	Plan  planView        `json:"plan"`
	// Running is true from the beginning of the drain to its end, and Over from there on.
	Running bool `json:"running"`
	Over    bool `json:"over"`
	// What follows is absent before the drain begins.
	TraceID        string     `json:"trace_id,omitempty"` // as in the log
	Started        *time.Time `json:"started,omitempty"`
	Deadline       *time.Time `json:"deadline,omitempty"` // when it begins to cut
	ElapsedSeconds float64    `json:"elapsed_seconds,omitempty"`
	// Step is the step under way, and Steps are those that have ended.
	Step  string     `json:"step,omitempty"`
	Steps []stepView `json:"steps,omitempty"`
	// Told counts the connections that were told to leave. Left are those that are open.
	Told      int64            `json:"told"`
	Left      int64            `json:"left"`
	Remaining map[string]int64 `json:"remaining"` // Left, by protocol
	History   []curvePoint     `json:"history"`
	// Account is the report of a drain that is over, and Cut are the connections that it
	// has cut, the last ones first: up to 200.
	Account *drainView       `json:"account"`
	Cut     []mux.ClosedConn `json:"cut"`
}

// planView has the bounds of the drain, in seconds.
type planView struct {
	Delay       float64  `json:"delay_seconds"`
	Spread      float64  `json:"spread_seconds"`
	Timeout     float64  `json:"timeout_seconds"`
	StepTimeout float64  `json:"step_timeout_seconds"`
	SkipSteps   []string `json:"skip_steps"`
	// Steps are in the order in which they run.
	Steps []plannedStep `json:"steps"`
}

// plannedStep is how long a step is meant to last: force-close and cleanup at most so
// long, and one that goes on at once, or is skipped, 0.
type plannedStep struct {
	Name    string  `json:"name"`
	Planned float64 `json:"planned_seconds"`
}

// newPlanView returns the plan of a drain.
func newPlanView(c lifecycle.Config) planView {
	view := planView{
		Delay: c.Delay.Seconds(), Spread: c.Spread.Seconds(), Timeout: c.Timeout.Seconds(), StepTimeout: c.StepTimeout.Seconds(),
		SkipSteps: append([]string{}, c.SkipSteps...),
	}
	left := c.Timeout // until the drain begins to cut
	for _, name := range c.Order() {
		var planned time.Duration
		switch {
		case c.Skips(name):
		case name == lifecycle.StepDrainDelay:
			planned = min(left, c.Delay)
		case name == lifecycle.StepStopAccepting:
			planned = min(left, c.Spread)
		case name == lifecycle.StepWaitConnections:
			planned = left
		case name == lifecycle.StepForceClose, name == lifecycle.StepCleanup:
			planned = c.StepTimeout
		}
		left = max(0, left-planned)
		view.Steps = append(view.Steps, plannedStep{name, planned.Seconds()})
	}
	return view
}

func (p *Pages) serveProgress(w http.ResponseWriter, _ *http.Request) {
	view := p.progress(time.Now())
	p.watchers.polled(view.Over)
	page.JSON(w, http.StatusOK, view)
}

func (p *Pages) progress(now time.Time) progressView {
	progress, begun := p.server.DrainProgress()
	stats := p.server.Stats()
	view := progressView{
		Phase:     stats.Phase,
		Plan:      newPlanView(p.server.Config().Drain),
		Told:      progress.Told,
		Remaining: remainingOf(stats),
		History:   p.curve.list(),
		Account:   newDrainView(stats.Drain),
		Cut:       []mux.ClosedConn{},
	}
	for _, n := range view.Remaining {
		view.Left += n
	}
	if !begun {
		return view
	}
	view.Over = view.Account != nil
	view.Running = !view.Over
	view.TraceID, view.Started, view.Deadline, view.Step = progress.TraceID, &progress.Started, &progress.Deadline, progress.Step
	view.ElapsedSeconds = now.Sub(progress.Started).Seconds()
	if view.Over {
		view.ElapsedSeconds = view.Account.DurationSeconds
		view.Cut = p.cutSince(progress.Started)
	}
	for _, s := range progress.Steps {
		view.Steps = append(view.Steps, newStepView(s))
	}
	return view
}

// cutSince returns the connections that were cut after a time.
func (p *Pages) cutSince(begun time.Time) []mux.ClosedConn {
	return slices.DeleteFunc(append([]mux.ClosedConn{}, p.server.Closed()...), func(c mux.ClosedConn) bool {
		return c.Outcome != mux.EndCut || c.Closed.Before(begun)
	})
}

// serveDrain begins the drain.
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
