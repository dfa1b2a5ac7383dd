package settings

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/muxserve/muxserve/mux"
)

// The variables by which hosting platforms say where a process is to listen.
const (
	envIP      = "IP"
	envPort    = "PORT"
	envAppPort = "APP_PORT"
)

// sourced is a value and what it came from.
type sourced struct{ value, source string }

// platformAddress returns the default address with the host of IP and the port
// of PORT or APP_PORT in place of its own. It is zero if none of them is set.
func platformAddress(getenv func(string) string) (sourced, error) {
	host, port, err := net.SplitHostPort(mux.DefaultAddress)
	if err != nil {
		return sourced{}, err
	}
	source := ""
	if ip := getenv(envIP); ip != "" {
		if _, err := netip.ParseAddr(ip); err != nil && ip != "localhost" {
			return sourced{}, fmt.Errorf("%s: %q is not an IP address such as 0.0.0.0 or ::1", envIP, ip)
		}
		host, source = ip, "environment "+envIP
	}
	name, value := envPort, getenv(envPort)
	if value == "" {
		name, value = envAppPort, getenv(envAppPort)
	}
	if value != "" {
		if err := checkPort(value); err != nil {
			return sourced{}, fmt.Errorf("%s: %w", name, err)
		}
		port = value
		if source == "" {
			source = "environment " + name
		} else {
			source += " and " + name
		}
	}
	if source == "" {
		return sourced{}, nil
	}
	return sourced{value: net.JoinHostPort(host, port), source: source}, nil
}

// checkPort accepts the decimal number of a TCP port. 0 is one that the system chooses.
func checkPort(port string) error {
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q is not a port from 0 to 65535", port)
	}
	return nil
}
