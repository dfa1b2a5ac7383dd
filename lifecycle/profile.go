package lifecycle

import (
	"fmt"
	"strings"
	"time"
)

// The names of profiles.
const (
	ProfileKubernetes = "k8s"
	ProfileHAProxy    = "haproxy"
	ProfileNLB        = "nlb"
)

// Profiles returns the names that [Profile] knows.
func Profiles() []string { return []string{ProfileKubernetes, ProfileHAProxy, ProfileNLB} }

// Profile returns the configuration that fits a balancer as it comes out of the
// box, and [DefaultConfig] for the empty name. Its numbers follow from how soon that balancer
// stops choosing a server which says that it is not ready:
//
//   - k8s: the endpoint is taken out at once, and every node knows it a few seconds later: delay 5 s. The pod is killed
//     30 s after the signal (terminationGracePeriodSeconds), by when the last step has to be over: timeout 20 s, steps 3 s.
//   - haproxy: three failed checks (fall 3), two seconds apart (inter 2s), and one more under way: delay 8 s. Nobody kills: timeout 60 s.
//   - nlb: two failed checks, ten seconds apart, and up to ten more until all zones know it: delay 30 s; timeout 2 min, under the
//     350 s after which it forgets a connection that is idle. It cuts the connections of a target that fails its checks unless
//     target_health_state.unhealthy.connection_termination.enabled is false, and it should be.
func Profile(name string) (Config, error) {
	c := DefaultConfig()
	c.Profile = name
	switch name {
	case "":
	case ProfileKubernetes:
		c.Delay, c.Spread, c.Timeout, c.StepTimeout = 5*time.Second, 4*time.Second, 20*time.Second, 3*time.Second
		c.GracePeriod = 30 * time.Second
	case ProfileHAProxy:
		c.Delay, c.Spread, c.Timeout = 8*time.Second, 10*time.Second, time.Minute
	case ProfileNLB:
		c.Delay, c.Spread, c.Timeout = 30*time.Second, 20*time.Second, 2*time.Minute
	default:
		return Config{}, fmt.Errorf("lifecycle: "+section+"profile: unknown %q; want one of %s", name, strings.Join(Profiles(), ", "))
	}
	return c, nil
}
