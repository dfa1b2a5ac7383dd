package lifecycle

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// ErrDrainBegun is the error of [Machine.OnStep] once the drain has begun.
var ErrDrainBegun = errors.New("lifecycle: the drain has begun")

// traceIDBytes is the length of a W3C trace id, as which a drain's can be used.
const traceIDBytes = 16

// Actions are what the steps of a drain do. Any may be nil: there is nothing
// to do then.
//
// Each gets a context that ends when the step's bound is over and, in the
// steps before force-close, when the waiting is cut short. An action that does
// not return within a moment (50 ms) after that is left behind: its goroutine
// goes on while the next step runs, so actions must be safe to run together.
type Actions struct {
	// Announce tells balancers that this server wants no more traffic.
	Announce func(ctx context.Context) error
	// StopAccepting closes the doors and tells every client to leave, spread
	// over [Config].Spread.
	StopAccepting func(ctx context.Context) error
	// WaitConnections returns when nothing is left that may end by itself.
	WaitConnections func(ctx context.Context) error
	// ForceClose cuts every connection that is left. It is called if any is,
	// or if StopAccepting has not succeeded: a drain that is cut short never
	// calls StopAccepting, so ForceClose must close doors that are still open.
	ForceClose func(ctx context.Context) error
	// Cleanup gives back everything else. It is always called.
	Cleanup func(ctx context.Context) error
	// Remaining returns the connections left per protocol. It is called after
	// every step and must not block.
	Remaining func() map[string]int
	// Forced returns the connections that were cut, per protocol. It is
	// called once, at the end, and must not block. Without it, what was left
	// before ForceClose counts as cut.
	Forced func() map[string]int
}

// A Machine holds the phase of one server and runs its one drain. It is made
// by [New]. All methods are safe to call together.
type Machine struct {
	actions Actions
	log     *slog.Logger
	traceID string

	// report is written before done is closed and never after.
	report *Report
	done   chan struct{}

	// mu guards what follows. It is never held while foreign code runs.
	mu         sync.Mutex
	cfg        Config // fixed once the steps of the drain have begun
	phase      Phase
	watchers   []func(Phase)           // only ever appended to
	news       []Phase                 // transitions that watchers have not been told yet
	telling    bool                    // a goroutine is telling the watchers
	hooks      map[string][]part       // by step
	cutShort   error                   // why not to wait any more; nil while waiting is allowed
	progress   Progress                // of the drain; zero before it
	cancelWait context.CancelCauseFunc // ends the context of the waiting steps; nil before the drain
}

// New returns a machine in [PhaseNew]. It assumes that cfg is valid (see
// [Config.Validate]); what it would refuse is ignored. A nil log discards.
func New(cfg Config, actions Actions, log *slog.Logger) *Machine {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var id [traceIDBytes]byte
	_, _ = rand.Read(id[:]) // It never fails: crypto/rand ends the program instead.
	cfg.SkipSteps = slices.Clone(cfg.SkipSteps)
	return &Machine{
		cfg:     cfg,
		actions: actions,
		log:     log,
		traceID: hex.EncodeToString(id[:]),
		done:    make(chan struct{}),
		phase:   PhaseNew,
		hooks:   make(map[string][]part),
	}
}

// Phase returns where the server stands.
func (m *Machine) Phase() Phase {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.phase
}

// Configure replaces the configuration of the drain to come. It assumes that cfg is
// valid. Once the drain has begun, it changes nothing and returns [ErrDrainBegun].
func (m *Machine) Configure(cfg Config) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.phase.before(PhaseDraining) {
		return ErrDrainBegun
	}
	cfg.SkipSteps = slices.Clone(cfg.SkipSteps)
	m.cfg = cfg
	return nil
}

// Config returns the configuration in force. In the steps of a drain whose context ends
// before Timeout, it is what [Machine.Drain] has made of it.
func (m *Machine) Config() Config {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cfg
}

// shorten fits the configuration of the drain that begins into what is left.
func (m *Machine) shorten(left time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cfg = m.cfg.shortened(max(0, left))
}

// SetServing moves a new server to [PhaseServing]. In later phases it has no effect.
func (m *Machine) SetServing() { m.advance(PhaseServing) }

// OnPhase registers fn, which is called at each later transition with the phase entered.
// Calls come one at a time, in the order of the phases, and before the drain goes on; so
// fn must return soon and must not call [Machine.Drain]. A panic of fn is logged.
func (m *Machine) OnPhase(fn func(Phase)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watchers = append(m.watchers, fn)
}

// OnStep registers a hook: fn is called once, in the drain's step of that name, with the
// context and the rules of the step's action (see [Actions]). Errors name it hookName.
// All hooks of a step begin together with its action; a hook that needs another's result
// belongs in a later step. An error, a panic or a hanging of fn is recorded in the
// [Report] and holds nothing else up.
//
// The hooks of a step that is skipped, or cut before it begins, are not called. Those of
// force-close and cleanup always are, unless skipped.
//
// OnStep fails if there is no such step, and with [ErrDrainBegun] once the drain has
// begun.
func (m *Machine) OnStep(step, hookName string, fn func(ctx context.Context) error) error {
	if !slices.Contains(Steps(), step) {
		return fmt.Errorf("lifecycle: hook %s: unknown step %q", hookName, step)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.phase.before(PhaseDraining) {
		return fmt.Errorf("lifecycle: hook %s: %w", hookName, ErrDrainBegun)
	}
	m.hooks[step] = append(m.hooks[step], part{label: step + ": hook " + hookName, fn: fn})
	return nil
}

// Done returns a channel that is closed when the drain has ended.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Drain takes the server to [PhaseStopped] and returns the account of it, with
// its [Report.Err].
//
// There is one drain, and every caller gets its report. The first caller runs it: when
// its ctx ends, the waiting is over and the connections left are cut at once, as by
// [Machine.Force], but Drain still returns only at the end. A later caller whose ctx ends
// gets a nil report and ctx.Err(), while the drain goes on.
//
// Where the first caller's ctx has a deadline before [Config].Timeout is over, the drain
// plans for it: the delay takes a quarter of the time at most, delay and spread together
// half of it, and StepTimeout is a quarter at most, but for force-close and cleanup, which
// come behind the deadline.
func (m *Machine) Drain(ctx context.Context) (*Report, error) {
	if m.advance(PhaseDraining) {
		m.run(ctx)
		return m.report, m.report.Err()
	}
	select {
	case <-m.done:
		return m.report, m.report.Err()
	default:
	}
	select {
	case <-m.done:
		return m.report, m.report.Err()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Force ends all waiting: the drain, now or when it comes, goes straight to force-close
// and cleanup. It begins no drain, and returns at once.
func (m *Machine) Force() { m.cut(errForced) }

// cut ends the waiting for the given cause. Only the first cause counts.
func (m *Machine) cut(cause error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cutShort != nil {
		return
	}
	m.cutShort = &cutError{cause}
	if m.cancelWait != nil {
		m.cancelWait(m.cutShort)
	}
}

// waiting returns a context with the values of base that ends with the waiting.
func (m *Machine) waiting(base context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(base)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cancelWait = cancel
	if m.cutShort != nil {
		cancel(m.cutShort)
	}
	return ctx, cancel
}

// advance moves to a later phase, tells the watchers, and reports whether it was one:
// exactly one call succeeds for each phase.
//
// One goroutine at a time tells the watchers, also of the transitions that others make
// meanwhile. So watchers see the phases in order, and may call for a transition.
func (m *Machine) advance(to Phase) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.phase.before(to) {
		return false
	}
	m.phase = to
	m.news = append(m.news, to)
	if m.telling {
		return true
	}
	m.telling = true
	for len(m.news) > 0 {
		phase, watchers := m.news[0], m.watchers
		m.news = m.news[1:]
		m.mu.Unlock()
		m.tell(phase, watchers)
		m.mu.Lock()
	}
	m.telling = false
	return true
}

// A Phase is where a server stands in its life. A server moves forward through [Phases]
// alone. It may leave phases out: drained before it served, it goes from new to draining.
type Phase string

// The phases, in their order.
const (
	// PhaseNew is a server that has not begun to serve.
	PhaseNew Phase = "new"
	// PhaseServing is a server that wants traffic.
	PhaseServing Phase = "serving"
	// PhaseDraining is a server that wants no more traffic. It serves what it has, and at
	// first what still comes.
	PhaseDraining Phase = "draining"
	// PhaseStopped is a server whose drain has ended. It does not come back.
	PhaseStopped Phase = "stopped"
)

// Phases returns all phases in their order. The slice is the caller's own.
func Phases() []Phase {
	return []Phase{PhaseNew, PhaseServing, PhaseDraining, PhaseStopped}
}

// before reports whether p comes before q. A phase that does not exist comes first.
func (p Phase) before(q Phase) bool {
	order := Phases()
	return slices.Index(order, p) < slices.Index(order, q)
}
