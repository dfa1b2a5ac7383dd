package lifecycle

import (
	"reflect"
	"strings"
	"testing"
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
		"one second": {cfg: config(func(c *Config) { c.Timeout = 17 * time.Second })},
		"no time": {
			cfg: config(func(c *Config) { c.Timeout = 16 * time.Second }),
			want: []string{"drain.timeout 16s leaves connections no time to end by themselves: " +
				"drain.delay 5s + drain.spread 5s + drain.step_timeout 6s come to 16s"},
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
