package lifecycle

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestValidate(t *testing.T) {
	const choice = "the steps are announce, drain-delay, stop-accepting, wait-connections, force-close"
	tests := map[string]struct {
		cfg  Config
		want []string
	}{
		"default":   {cfg: DefaultConfig()},
		"no delay":  {cfg: config(func(c *Config) { c.Delay, c.Spread, c.Timeout = 0, 0, 0 })},
		"skippable": {cfg: config(func(c *Config) { c.SkipSteps = skippable() })},
		"zero": {
			want: []string{"lifecycle: drain.step_timeout: must be positive: without time nothing can be closed or cleaned up"},
		},
		"everything wrong": {
			cfg: Config{
				Delay: -time.Second, Timeout: -1, StepTimeout: -time.Minute, Spread: maxDuration + 1,
				SkipSteps: []string{"cleanup", "drain_delay"},
			},
			want: []string{
				"lifecycle: drain.delay: must not be negative, is -1s",
				"lifecycle: drain.timeout: must not be negative, is -1ns",
				"lifecycle: drain.step_timeout: must not be negative, is -1m0s",
				"lifecycle: drain.spread: must be at most 8760h0m0s, is 8760h0m0.000000001s",
				"lifecycle: drain.skip_steps: cleanup cannot be skipped",
				`lifecycle: drain.skip_steps: unknown step "drain_delay"; ` + choice,
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(strings.Join(tt.want, "\n"), text(tt.cfg.Validate())); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	tests := map[string]struct {
		cfg  Config
		want []string
	}{
		"default":    {cfg: DefaultConfig()},
		"one second": {cfg: config(func(c *Config) { c.Timeout = 22 * time.Second })},
		"no time": {
			cfg: config(func(c *Config) { c.Timeout = 21 * time.Second }),
			want: []string{"drain.timeout 21s leaves connections no time to end by themselves: " +
				"drain.delay 5s + drain.spread 10s + drain.step_timeout 6s come to 21s"},
		},
		"what is skipped takes no time": {
			cfg: config(func(c *Config) {
				c.Timeout = 7 * time.Second
				c.SkipSteps = []string{StepDrainDelay, StepStopAccepting}
			}),
		},
		"nobody waits": {
			cfg: config(func(c *Config) {
				c.Timeout = 0
				c.SkipSteps = []string{StepWaitConnections}
			}),
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tt.cfg.Warnings()); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

// TestConfigKeys holds the names of the fields in muxserve.yaml still.
func TestConfigKeys(t *testing.T) {
	var got []string
	for f := range reflect.TypeFor[Config]().Fields() {
		got = append(got, f.Tag.Get("yaml"))
	}
	want := []string{"profile", "delay", "timeout", "step_timeout", "spread", "skip_steps", "accept_during_delay", "grace_period"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
}

// TestConfigure: the drain runs by the configuration that was in force when it began.
func TestConfigure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var late error
		m := New(DefaultConfig(), Actions{}, nil)
		if err := m.OnStep(StepAnnounce, "late", func(context.Context) error {
			late = m.Configure(DefaultConfig())
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		c := DefaultConfig()
		c.Delay = 17 * time.Second
		if err := m.Configure(c); err != nil {
			t.Fatal(err)
		}
		if got := m.Config().Delay; got != c.Delay {
			t.Errorf("delay %v", got)
		}
		report, err := m.Drain(t.Context())
		if err != nil || report.Duration != c.Delay {
			t.Errorf("took %v: %v", report.Duration, err)
		}
		if !errors.Is(late, ErrDrainBegun) {
			t.Errorf("during the drain: %v", late)
		}
	})
}

// TestProfiles: the numbers of every profile are valid, work together and fit the grace
// period.
func TestProfiles(t *testing.T) {
	for _, name := range append(Profiles(), "") {
		c, err := Profile(name)
		if err != nil {
			t.Fatal(err)
		}
		if c.Profile != name {
			t.Errorf("%s: calls itself %q", name, c.Profile)
		}
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if w := c.Warnings(); w != nil {
			t.Errorf("%s: %v", name, w)
		}
	}
	if k8s, _ := Profile("k8s"); k8s.Longest() >= k8s.GracePeriod {
		t.Errorf("k8s: a drain may take %v of %v", k8s.Longest(), k8s.GracePeriod)
	}
}

func TestUnknownProfile(t *testing.T) {
	_, err := Profile("elb")
	if err == nil || !strings.Contains(err.Error(), `drain.profile: unknown "elb"; want one of k8s, haproxy, nlb, none`) {
		t.Error(err)
	}
	c := DefaultConfig()
	c.Profile = "elb"
	if err := c.Validate(); err == nil {
		t.Error("valid")
	}
}

// TestWarnGracePeriod: a grace period that may end before the drain is a warning.
func TestWarnGracePeriod(t *testing.T) {
	c := DefaultConfig()
	c.GracePeriod = 30 * time.Second
	if w := c.Warnings(); len(w) != 1 || !strings.HasPrefix(w[0], "drain.grace_period 30s is over") {
		t.Error(w)
	}
	c.GracePeriod = c.Longest() + time.Second
	if w := c.Warnings(); w != nil {
		t.Error(w)
	}
}
