package lifecycle

import (
	"context"
	"log/slog"
	"maps"
	"slices"
)

// The keys of this package's log records. They are the project's: a key means the same
// wherever it stands.
const (
	keyTraceID   = "trace_id" // of one drain, the same in all its records
	keyPhase     = "phase"    // a [Phase]
	keyStep      = "step"     // one of [Steps]
	keyStatus    = "status"   // a [Status]
	keyDuration  = "duration_seconds"
	keyRemaining = "remaining" // a group: connections left, by protocol
	keyForced    = "forced"    // a group: connections cut, by protocol
	keyReason    = "reason"    // why the waiting was cut short
	keyErr       = "err"
)

// tell logs one transition and calls the watchers.
func (m *Machine) tell(phase Phase, watchers []func(Phase)) {
	attrs := []slog.Attr{slog.String(keyPhase, string(phase))}
	if !phase.before(PhaseDraining) {
		attrs = append(attrs, slog.String(keyTraceID, m.traceID))
	}
	m.log.LogAttrs(context.Background(), slog.LevelInfo, "phase change", attrs...)
	for _, fn := range watchers {
		err := protect(func() error {
			fn(phase)
			return nil
		})
		if err != nil {
			m.logWatcher(phase, err)
		}
	}
}

// logWatcher logs the panic of a watcher.
func (m *Machine) logWatcher(phase Phase, err error) {
	m.log.LogAttrs(context.Background(), slog.LevelError, "phase watcher failed",
		slog.String(keyPhase, string(phase)), slog.Any(keyErr, err))
}

// logStep logs the one line of a step.
func (d *drain) logStep(s StepResult) {
	attrs := []slog.Attr{
		slog.String(keyTraceID, d.report.TraceID),
		slog.String(keyPhase, string(PhaseDraining)),
		slog.String(keyStep, s.Name),
		slog.String(keyStatus, string(s.Status)),
		slog.Float64(keyDuration, s.Duration.Seconds()),
		countsAttr(keyRemaining, s.Remaining),
	}
	if s.Err != nil {
		attrs = append(attrs, slog.Any(keyErr, s.Err))
	}
	d.log.LogAttrs(d.base, slog.LevelInfo, "drain step", attrs...)
}

// logEnd logs the one line of the whole drain, at Warn where connections were cut.
func (d *drain) logEnd() {
	attrs := []slog.Attr{
		slog.String(keyTraceID, d.report.TraceID),
		slog.Float64(keyDuration, d.report.Duration.Seconds()),
		countsAttr(keyForced, d.report.Forced),
	}
	if d.report.Reason != "" {
		attrs = append(attrs, slog.String(keyReason, d.report.Reason))
	}
	level := slog.LevelInfo
	if d.report.ForcedTotal() > 0 {
		level = slog.LevelWarn
	}
	d.log.LogAttrs(d.base, level, "drain ended", attrs...)
}

// countsAttr is a group with a count for each protocol, in the order of their
// names; slog leaves it out if there is none.
func countsAttr(key string, counts map[string]int) slog.Attr {
	var attrs []slog.Attr
	for _, protocol := range slices.Sorted(maps.Keys(counts)) {
		attrs = append(attrs, slog.Int(protocol, counts[protocol]))
	}
	return slog.Attr{Key: key, Value: slog.GroupValue(attrs...)}
}
