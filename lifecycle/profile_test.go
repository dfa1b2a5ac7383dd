package lifecycle

import (
	"strings"
	"testing"
	"time"
)

// TestProfiles: the numbers of every profile are valid and work together, within the grace period where there is one.
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
	if k8s, _ := Profile(ProfileKubernetes); k8s.Longest() >= k8s.GracePeriod {
		t.Errorf("k8s: a drain may take %v of %v", k8s.Longest(), k8s.GracePeriod)
	}
}

func TestUnknownProfile(t *testing.T) {
	_, err := Profile("elb")
	if err == nil || !strings.Contains(err.Error(), `drain.profile: unknown "elb"; want one of k8s, haproxy, nlb`) {
		t.Error(err)
	}
	c := DefaultConfig()
	c.Profile = "elb"
	if err := c.Validate(); err == nil {
		t.Error("valid")
	}
}

// TestWarnGracePeriod: who kills before the drain can be over is told of.
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
