package settings

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/muxserve/muxserve/listeners"
)

// The variables by which hosting platforms say where a process is to listen.
const (
	envIP      = "IP"
	envPort    = "PORT"
	envAppPort = "APP_PORT"
)

// loadPlatform replaces the host and the port of the first TCP address by what IP, and PORT or
// APP_PORT, say. Where there is none, it leaves the others alone.
func (s *Settings) loadPlatform() []fault {
	getenv := s.inputs.getenv
	at := slices.IndexFunc(s.Mux.Listeners, func(l listeners.Config) bool { return isTCP(l.Address) })
	if at < 0 {
		return nil
	}
	path := element("listeners", at) + ".address"
	host, port, err := net.SplitHostPort(s.Mux.Listeners[at].Address)
	if err != nil {
		return nil // It is the file's, and no address at all, which validation tells.
	}
	var names []string
	if ip := getenv(envIP); ip != "" {
		if _, err := netip.ParseAddr(ip); err != nil && ip != "localhost" {
			return []fault{{path: path, whence: envIP, text: fmt.Sprintf("%q is not an IP address such as 0.0.0.0 or ::1", ip)}}
		}
		host, names = ip, append(names, envIP)
	}
	name, value := envPort, getenv(envPort)
	if value == "" {
		name, value = envAppPort, getenv(envAppPort)
	}
	if value != "" {
		if err := checkPort(value); err != nil {
			return []fault{{path: path, whence: name, text: err.Error()}}
		}
		port, names = value, append(names, name)
	}
	if len(names) > 0 {
		s.Mux.Listeners[at].Address = net.JoinHostPort(host, port)
		s.origins[path] = origin{name: "environment " + strings.Join(names, " and ")}
	}
	return nil
}

// checkPort accepts the decimal number of a TCP port. 0 is one that the system chooses.
func checkPort(port string) error {
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q is not a port from 0 to 65535", port)
	}
	return nil
}
