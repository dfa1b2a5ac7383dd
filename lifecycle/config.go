package lifecycle

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The defaults of [Config].
const (
	// DefaultDelay is the time a balancer gets to notice that it is not to
	// choose this server any more: two failed probes, two seconds apart, and
	// a second to spare.
	DefaultDelay = 5 * time.Second
	// DefaultTimeout is what Kubernetes gives a pod by default before it
	// kills it.
	DefaultTimeout = 30 * time.Second
	// DefaultStepTimeout bounds a step that has work to do and nobody to wait
	// for. It is more than the 5 s that a mute WebSocket peer is given to
	// answer a close frame.
	DefaultStepTimeout = 6 * time.Second
	// DefaultSpread is the time over which clients are told to leave, so that
	// they do not all reconnect in the same moment.
	DefaultSpread = 5 * time.Second
)

// maxDuration bounds each duration of a Config. No grace period is as long,
// and sums of a few of them stay far from overflow.
const maxDuration = 365 * 24 * time.Hour

// section is the name under which a Config stands in muxserve.yaml; faults
// name their key with it.
const section = "drain."

// Config says how a server drains. Start from [DefaultConfig]: the zero Config
// is a drain without patience, which waits for nobody and cuts every
// connection at once.
type Config struct {
	// Profile names the balancer whose numbers [Profile] gives; what is set beside it wins.
	// One of k8s, haproxy and nlb, or empty for the defaults.
	Profile string `apply:"runtime" yaml:"profile"`
	// Delay is how long new connections are still served after the server has
	// announced that it is going. Zero goes on at once. Default 5s.
	Delay time.Duration `apply:"runtime" yaml:"delay"`
	// Timeout is how long after its start the drain stops waiting and begins
	// to cut, whatever the steps before it have used. Zero cuts at once: it
	// does not mean "for ever". Default 30s.
	Timeout time.Duration `apply:"runtime" yaml:"timeout"`
	// StepTimeout bounds each step that does something rather than waits. It
	// must be positive. Default 6s.
	StepTimeout time.Duration `apply:"runtime" yaml:"step_timeout"`
	// Spread is the time over which clients are told to leave. The step that
	// tells them, stop-accepting, gets it on top of StepTimeout. Zero tells
	// all of them at once. Default 5s.
	Spread time.Duration `apply:"runtime" yaml:"spread"`
	// SkipSteps names steps to leave out, with their hooks. Any but cleanup
	// may be. Default none.
	SkipSteps []string `apply:"runtime" yaml:"skip_steps"`
	// AcceptDuringDelay puts drain-delay before stop-accepting, which is what
	// works behind a balancer. False puts it after. Default true.
	AcceptDuringDelay bool `apply:"runtime" yaml:"accept_during_delay"`
	// GracePeriod is after how long whoever sent the signal kills the process
	// (terminationGracePeriodSeconds, TimeoutStopSec). It changes nothing but
	// the warnings. Zero, the default, is unknown.
	GracePeriod time.Duration `apply:"runtime" yaml:"grace_period"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Delay:             DefaultDelay,
		Timeout:           DefaultTimeout,
		StepTimeout:       DefaultStepTimeout,
		Spread:            DefaultSpread,
		AcceptDuringDelay: true,
	}
}

// Validate returns every fault of c, joined, each naming its key in
// muxserve.yaml; nil if there is none.
func (c Config) Validate() error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("lifecycle: "+section+key+": "+format, args...))
	}
	durations := []struct {
		key   string
		value time.Duration
	}{
		{"delay", c.Delay},
		{"timeout", c.Timeout},
		{"step_timeout", c.StepTimeout},
		{"spread", c.Spread},
		{"grace_period", c.GracePeriod},
	}
	if _, err := Profile(c.Profile); err != nil {
		faults = append(faults, err)
	}
	for _, d := range durations {
		switch {
		case d.value < 0:
			fault(d.key, "must not be negative, is %v", d.value)
		case d.value > maxDuration:
			fault(d.key, "must be at most %v, is %v", maxDuration, d.value)
		}
	}
	if c.StepTimeout == 0 {
		fault("step_timeout", "must be positive: without time nothing can be closed or cleaned up")
	}
	for _, name := range c.SkipSteps {
		switch {
		case name == StepCleanup:
			fault("skip_steps", "%s cannot be skipped", name)
		case !slices.Contains(skippable(), name):
			fault("skip_steps", "unknown step %q; the steps are %s", name, strings.Join(skippable(), ", "))
		}
	}
	return errors.Join(faults...)
}

// Warnings returns what is allowed in c but cannot work as it is meant, each
// as a sentence that names the keys; nil if there is nothing to say.
func (c Config) Warnings() []string {
	var warnings []string
	if longest := c.Longest(); c.GracePeriod > 0 && longest >= c.GracePeriod {
		warnings = append(warnings, fmt.Sprintf(
			"drain.grace_period %v is over before the drain can be: drain.timeout %v and then twice drain.step_timeout %v come to %v",
			c.GracePeriod, c.Timeout, c.stepTimeout(), longest))
	}
	if c.skips(StepWaitConnections) {
		return warnings
	}
	var delay, spread time.Duration
	if !c.skips(StepDrainDelay) {
		delay = c.Delay
	}
	if !c.skips(StepStopAccepting) {
		spread = c.Spread
	}
	if need := delay + spread + c.StepTimeout; need >= c.Timeout {
		warnings = append(warnings, fmt.Sprintf(
			"drain.timeout %v leaves connections no time to end by themselves: "+
				"drain.delay %v + drain.spread %v + drain.step_timeout %v come to %v",
			c.Timeout, delay, spread, c.StepTimeout, need))
	}
	return warnings
}

// Longest returns how long a drain takes at the very most: Timeout, then
// StepTimeout each for force-close and cleanup, and a moment for each of the
// six steps to be given up in. The grace period of whoever kills the process
// in the end (terminationGracePeriodSeconds, TimeoutStopSec) should be longer.
func (c Config) Longest() time.Duration {
	return c.Timeout + 2*c.stepTimeout() + time.Duration(len(Steps()))*abandonGrace
}

// stepTimeout returns the step timeout with the default in the place of one
// that Validate would have refused: force-close and cleanup always get time.
func (c Config) stepTimeout() time.Duration {
	if c.StepTimeout <= 0 {
		return DefaultStepTimeout
	}
	return c.StepTimeout
}

// skips reports whether the step is to be left out.
func (c Config) skips(step string) bool {
	return step != StepCleanup && slices.Contains(c.SkipSteps, step)
}

// order returns the steps in the order in which they run.
func (c Config) order() []string {
	steps := Steps()
	if !c.AcceptDuringDelay {
		delay := slices.Index(steps, StepDrainDelay)
		stop := slices.Index(steps, StepStopAccepting)
		steps[delay], steps[stop] = steps[stop], steps[delay]
	}
	return steps
}
