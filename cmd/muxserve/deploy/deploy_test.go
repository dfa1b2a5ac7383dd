// Package deploy_test compares the recipes with the defaults and profiles of package
// lifecycle.
package deploy_test

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/muxserve/muxserve/lifecycle"
)

// number returns the only number that pattern matches in a file.
func number(t *testing.T, file, pattern string) int {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)`+pattern).FindAllSubmatch(content, -1)
	if len(found) != 1 {
		t.Fatalf("%s: %q is there %d times", file, pattern, len(found))
	}
	n, err := strconv.Atoi(string(found[0][1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// seconds returns n seconds.
func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

func profile(t *testing.T, name string) lifecycle.Config {
	t.Helper()
	c, err := lifecycle.Profile(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestTimes checks that service managers wait for the longest drain before they kill, and
// that balancers notice a drain within its delay.
func TestTimes(t *testing.T) {
	none, k8s, haproxy, nlb := profile(t, "none"), profile(t, "k8s"), profile(t, "haproxy"), profile(t, "nlb")
	probes := number(t, "kubernetes.yaml", `readinessProbe:(?:.|\n)*?periodSeconds: (\d+)`) *
		number(t, "kubernetes.yaml", `readinessProbe:(?:.|\n)*?failureThreshold: (\d+)`)
	haproxyChecks := number(t, "haproxy.cfg", `inter (\d+)s`) * number(t, "haproxy.cfg", `fall (\d+)`)
	nlbKeys := "`HealthCheckIntervalSeconds`, `UnhealthyThresholdCount` \\| "
	nlbChecks := number(t, "nlb.md", nlbKeys+`(\d+), `) * number(t, "nlb.md", nlbKeys+`\d+, (\d+)`)
	tests := []struct {
		name       string
		less, more time.Duration
	}{
		{"systemd kills", none.Longest(), seconds(number(t, "muxserve.service", `^TimeoutStopSec=(\d+)s$`))},
		{"Kubernetes kills", k8s.Longest(), seconds(number(t, "kubernetes.yaml", `terminationGracePeriodSeconds: (\d+)`))},
		{"Kubernetes notices", seconds(probes), k8s.Delay},
		{"HAProxy notices", seconds(haproxyChecks), haproxy.Delay},
		{"the NLB notices", seconds(nlbChecks), nlb.Delay},
		{"the NLB cuts", nlb.Longest(), seconds(number(t, "nlb.md", "`deregistration_delay.timeout_seconds` \\| (\\d+)"))},
	}
	for _, tt := range tests {
		if tt.less >= tt.more {
			t.Errorf("%s: %v is not less than %v", tt.name, tt.less, tt.more)
		}
	}
}

// TestValid checks the recipes with the programs that read them, where they are
// installed.
func TestValid(t *testing.T) {
	tests := []struct {
		command []string
		allowed []string // in lines that are no fault of the file
	}{
		{[]string{"systemd-analyze", "verify", "./muxserve.service", "./muxserve.socket"}, []string{
			"/usr/local/bin/muxserve is not executable",
			"ignoring: notify-reload", // Before systemd 253, which then keeps the type that stands above it.
		}},
		{[]string{"haproxy", "-c", "-q", "-f", "haproxy.cfg"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.command[0], func(t *testing.T) {
			path, err := exec.LookPath(tt.command[0])
			if err != nil {
				t.Skip(err) // .ci/run installs HAProxy; systemd belongs to the machine, and not every one has it.
			}
			out, err := exec.CommandContext(t.Context(), path, tt.command[1:]...).CombinedOutput()
			for line := range strings.Lines(string(out)) {
				if !slices.ContainsFunc(tt.allowed, func(text string) bool { return strings.Contains(line, text) }) {
					t.Error(strings.TrimSpace(line))
				}
			}
			if err != nil && tt.allowed == nil {
				t.Error(err)
			}
		})
	}
}
