package lifecycle

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// defaultStepTimeout leaves connections time to show what they are: in stop-accepting they
// have three quarters of it, and 3 s by default.
const defaultStepTimeout = 6 * time.Second

// maxDuration bounds each duration of a Config, so that sums of them do not overflow.
const maxDuration = 365 * 24 * time.Hour

// section is the name under which a Config stands in muxserve.yaml; faults
// name their key with it.
const section = "drain."

// Config says how a server drains. Start from [DefaultConfig]: the zero Config waits for
// nothing and cuts every connection at once.
type Config struct {
	// Profile is the balancer in front of the server: k8s, haproxy, nlb, none, or empty where it is
	// not known.
	// Its numbers replace the defaults; keys that are set beside it win.
	Profile string `apply:"runtime" yaml:"profile"`
	// Delay is how long the server still serves new connections after the announcement.
	// Zero goes on at once. Default 5s.
	Delay time.Duration `apply:"runtime" yaml:"delay"`
	// Timeout is how long after its start the drain stops waiting and begins to cut,
	// whatever the steps have used. Zero cuts at once. Default 30s.
	Timeout time.Duration `apply:"runtime" yaml:"timeout"`
	// StepTimeout bounds each step that acts rather than waits. It must be positive.
	// Default 6s.
	StepTimeout time.Duration `apply:"runtime" yaml:"step_timeout"`
	// Spread is the time over which clients are told to leave, so that they do not all
	// reconnect in the same moment. The step stop-accepting gets it on top of StepTimeout.
	// Zero tells all clients at once. Muxserve warns where the max_connections that are set
	// would make more reconnects a second than a replica has time for. Default 10s.
	Spread time.Duration `apply:"runtime" yaml:"spread"`
	// SkipSteps names steps to leave out, with their hooks: any but cleanup. Default none.
	SkipSteps []string `apply:"runtime" yaml:"skip_steps"`
	// AcceptDuringDelay puts drain-delay before stop-accepting, as a balancer needs it.
	// False puts it after. Default true.
	AcceptDuringDelay bool `apply:"runtime" yaml:"accept_during_delay"`
	// GracePeriod is the time from the signal until the service manager kills the process
	// (terminationGracePeriodSeconds, TimeoutStopSec). It changes the warnings alone.
	// Zero, the default, is unknown.
	GracePeriod time.Duration `apply:"runtime" yaml:"grace_period"`
}

// DefaultConfig returns the defaults.
//
// Spread is by table `spreads` of testdata/fleet, with 10,000 WebSockets over TLS on each
// replica. Behind least connections, the replica that has just restarted takes the clients
// of the next one. Over 10 s they ask it for 0.65 of a processor, and over 5 s for 1.3, so
// that they wait 1.5 s for their handshakes. AcceptDuringDelay is by table `accept`:
// without it a balancer that has not noticed sends clients to a closed port.
func DefaultConfig() Config {
	return Config{
		Delay:             5 * time.Second,  // For a balancer: two failed probes, 2 s apart, and 1 s to spare.
		Timeout:           30 * time.Second, // Kubernetes kills a pod after this time by default.
		StepTimeout:       defaultStepTimeout,
		Spread:            10 * time.Second,
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

// Warnings returns what is valid in c but cannot work as it is meant, each as a sentence
// that names the keys; nil if there is nothing to say.
func (c Config) Warnings() []string {
	var warnings []string
	if longest := c.Longest(); c.GracePeriod > 0 && longest >= c.GracePeriod {
		warnings = append(warnings, fmt.Sprintf(
			"drain.grace_period %v is over before the drain can be: drain.timeout %v and then twice drain.step_timeout %v come to %v",
			c.GracePeriod, c.Timeout, c.stepTimeout(), longest))
	}
	if c.Skips(StepWaitConnections) {
		return warnings
	}
	var delay, spread time.Duration
	if !c.Skips(StepDrainDelay) {
		delay = c.Delay
	}
	if !c.Skips(StepStopAccepting) {
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

// Longest returns how long a drain takes at most: Timeout, then StepTimeout each for
// force-close and cleanup, and 50 ms for each of the six steps to be abandoned in. The
// service manager's grace period should be longer.
func (c Config) Longest() time.Duration {
	return c.Timeout + 2*c.stepTimeout() + time.Duration(len(Steps()))*abandonGrace
}

// shortened returns c for a drain that begins to cut when left is over, before Timeout is.
// All clients are told in the first half, so that what is under way has the second to end
// by itself. A step that acts takes no more than the delay may.
func (c Config) shortened(left time.Duration) Config {
	c.Timeout = left
	c.StepTimeout = min(c.stepTimeout(), left/4)
	c.Delay = min(c.Delay, left/4)
	c.Spread = min(c.Spread, left/2-c.Delay)
	return c
}

// stepTimeout returns StepTimeout, or the default where Validate would have refused it:
// force-close and cleanup always get time.
func (c Config) stepTimeout() time.Duration {
	if c.StepTimeout <= 0 {
		return defaultStepTimeout
	}
	return c.StepTimeout
}

// Skips reports whether the step is to be left out. Cleanup never is.
func (c Config) Skips(step string) bool {
	return step != StepCleanup && slices.Contains(c.SkipSteps, step)
}

// Order returns the steps in the order in which they run, those that are skipped
// included. The slice is the caller's own.
func (c Config) Order() []string {
	steps := Steps()
	if !c.AcceptDuringDelay {
		delay := slices.Index(steps, StepDrainDelay)
		stop := slices.Index(steps, StepStopAccepting)
		steps[delay], steps[stop] = steps[stop], steps[delay]
	}
	return steps
}

// Profiles returns the names that [Profile] knows. The slice is the caller's own.
func Profiles() []string { return []string{"k8s", "haproxy", "nlb", "none"} }

// Profile returns the configuration for the default settings of a balancer, and
// [DefaultConfig] for the empty name. Its numbers follow from how soon that balancer
// stops choosing a server that is not ready. In the tables `late` and `spreads` of
// testdata/fleet each delay loses nothing, and each spread keeps the handshakes of a
// restart with 10,000 clients over TLS below one processor of any replica:
//
//   - k8s: Kubernetes takes the endpoint out at once, and every node knows it a few
//     seconds later: delay 5 s. It kills the pod 30 s after the signal
//     (terminationGracePeriodSeconds): timeout 20 s, steps 3 s.
//   - haproxy: three failed checks (fall 3), 2 s apart (inter 2s), and one under way:
//     delay 8 s. HAProxy kills nothing: timeout 60 s.
//   - nlb: two failed checks, 10 s apart, and up to ten more seconds until all zones know
//     it: delay 30 s. Timeout 2 min, below the 350 s after which it forgets an idle
//     connection. It cuts the connections of a target that fails its checks; set
//     target_health_state.unhealthy.connection_termination.enabled to false.
//   - none: nobody has to notice, and clients are told at once: no delay, no spread. It is
//     for tests and for servers that clients reach directly.
func Profile(name string) (Config, error) {
	c := DefaultConfig()
	c.Profile = name
	switch name {
	case "":
	case "k8s": // `late`: nothing is lost from 3 s on. `spreads`: 0.88 of a processor; over 4 s, 1.29.
		c.Delay, c.Spread, c.Timeout, c.StepTimeout = 5*time.Second, 6*time.Second, 20*time.Second, 3*time.Second
		c.GracePeriod = 30 * time.Second
	case "haproxy": // `late`: nothing is lost from 6 s on. `spreads`: 0.65 of a processor.
		c.Delay, c.Spread, c.Timeout = 8*time.Second, 10*time.Second, time.Minute
	case "nlb": // `late`: nothing is lost from 30 s on. `spreads`: 0.06 of a processor.
		c.Delay, c.Spread, c.Timeout = 30*time.Second, 20*time.Second, 2*time.Minute
	case "none":
		c.Delay, c.Spread = 0, 0
	default:
		return Config{}, fmt.Errorf("lifecycle: "+section+"profile: unknown %q; want one of %s", name, strings.Join(Profiles(), ", "))
	}
	return c, nil
}
