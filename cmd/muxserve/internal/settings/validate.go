package settings

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/muxserve/muxserve/listeners"
)

// validate reports the faults of the settings as a whole. It leaves out what is among the
// faults before already, and what may only be a consequence of them.
func (s *Settings) validate(before []fault) []fault {
	own := s.validateAddresses()
	check := func(path string, err error) {
		if err != nil {
			own = append(own, fault{path: path, text: err.Error()})
		}
	}
	check("static", checkDirectory(s.Static))
	check("profile", oneOf(s.Profile, []string{"", profileEdge}))
	check("admin.protect", s.checkProtect())
	for i, host := range s.Admin.Hosts {
		check(element("admin.hosts", i), checkHost(host))
	}
	check("log.format", oneOf(s.Log.Format, formats))
	faults := slices.Clone(own)
	for _, f := range faultsOf("", s.Mux.Validate()) {
		// Both check addresses; validateAddresses says more.
		if f.path == "" || !slices.ContainsFunc(own, func(o fault) bool { return o.path == f.path }) {
			faults = append(faults, f)
		}
	}
	faults = slices.DeleteFunc(faults, func(f fault) bool {
		return f.path != "" && slices.ContainsFunc(before, func(b fault) bool { return s.mayFollow(f.path, b.path) })
	})
	return s.locate(faults)
}

// mayFollow reports whether a fault at path may be a consequence of one at earlier. It
// may be where both are of the same key, where one key contains the other, and within the
// TLS or PROXY section of a listener, whose keys depend on each other. An unknown key
// there only explains that another key is missing.
func (s *Settings) mayFollow(path, earlier string) bool {
	key := withoutIndexes(path)
	if key == earlier || within(path, earlier) || within(earlier, path) {
		return true
	}
	sameSection := parent(path) == parent(earlier) || parent(key) == parent(earlier)
	if !sameSection || !strings.HasPrefix(parent(key), listenersKey+".") {
		return false
	}
	_, set := s.origins[path]
	return known(earlier) || !set
}

// within reports whether path is section or is in it.
func within(path, section string) bool {
	rest, ok := strings.CutPrefix(path, section)
	return ok && section != "" && (rest == "" || strings.ContainsAny(rest[:1], ".["))
}

// checkDirectory accepts a directory that can be read, and "" for none.
func checkDirectory(name string) error {
	if name == "" {
		return nil
	}
	// Opening a pipe may block for ever, so the kind is checked first.
	if info, err := os.Stat(name); err == nil && !info.IsDir() {
		return fmt.Errorf("%q is not a directory", name)
	}
	// Unlike Stat, Open fails where the directory must not be read.
	d, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("not a directory that can be read: %w", err)
	}
	return d.Close()
}

// checkProtect accepts the values of admin.protect. All needs a token.
func (s *Settings) checkProtect() error {
	if s.Admin.Protect == ProtectAll && s.Admin.Token == "" && s.Admin.TokenFile == "" {
		return errors.New("all needs a token; set admin.token or admin.token_file")
	}
	return oneOf(s.Admin.Protect, protections)
}

// checkHost accepts a host name as browsers send it, without scheme and port.
func checkHost(name string) error {
	if name == "" || strings.ContainsAny(name, " \t/:*") {
		return fmt.Errorf("%q is not a host name without scheme and port, such as admin.example.com", name)
	}
	return nil
}

func checkProtocols(values []string) error {
	if len(splitList(values)) == 0 {
		return errors.New("empty; leave it out to serve all protocols")
	}
	return nil
}

func checkReadLimit(values []string) error {
	if n, err := strconv.ParseInt(values[0], 10, 64); err != nil || n == 0 || n < -1 {
		return fmt.Errorf("%q is not a number of bytes such as 32768, nor -1", values[0])
	}
	return nil
}

// The beginnings of the addresses that are not TCP.
const (
	UnixPrefix      = "unix:" // before the path of a Unix-domain socket
	InheritedPrefix = "fd:"   // before the name of a service manager's sockets
)

// listenersKey begins the path of every key of a listener.
const listenersKey = "listeners[]"

// The environment variables by which hosting platforms set the address of a process.
const (
	envIP      = "IP"
	envPort    = "PORT"
	envAppPort = "APP_PORT"
)

// isTCP reports whether an address names neither a Unix-domain socket nor an inherited
// socket.
func isTCP(address string) bool {
	return !strings.HasPrefix(address, UnixPrefix) && !strings.HasPrefix(address, InheritedPrefix)
}

// checkAddress accepts HOST:PORT, unix:PATH and fd:NAME. It refuses other forms that the
// listener would accept, such as the name of a service, because they are mistakes here.
func checkAddress(address string) error {
	if _, name, _ := strings.Cut(address, ":"); !isTCP(address) && name != "" {
		return nil
	}
	host, port, err := net.SplitHostPort(address)
	if err == nil && !strings.ContainsAny(host, " \t/") {
		err = checkPort(port)
	}
	if err != nil || strings.ContainsAny(host, " \t/") {
		return fmt.Errorf("%q is not HOST:PORT, such as 127.0.0.1:8080 or :8080, nor unix:PATH", address)
	}
	return nil
}

// checkAdmin accepts what checkAddress accepts, and [Off].
func checkAdmin(address string) error {
	if address == Off {
		return nil
	}
	if err := checkAddress(address); err != nil {
		return fmt.Errorf("%w, nor %s", err, Off)
	}
	return nil
}

// checkPort accepts the decimal number of a TCP port. The system chooses a port for 0.
func checkPort(port string) error {
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q is not a port from 0 to 65535", port)
	}
	return nil
}

// setListeners replaces the listeners by one for each address. Each has the settings of
// the listener at its position, or of the last one where there are fewer.
func setListeners(s *Settings, addresses []string) error {
	before := s.Mux.Listeners
	s.Mux.Listeners = nil
	var faults []error
	for i, address := range addresses {
		address = strings.TrimSpace(address)
		faults = append(faults, checkAddress(address))
		l := listeners.DefaultConfig()
		if len(before) > 0 {
			from := min(i, len(before)-1)
			l = before[from]
			s.copyOrigins(element("listeners", from), element("listeners", i))
		}
		l.Address = address
		s.Mux.Listeners = append(s.Mux.Listeners, l)
	}
	return errors.Join(faults...)
}

// copyOrigins copies the origins of a listener's keys to another listener.
func (s *Settings) copyOrigins(from, to string) {
	if from == to {
		return
	}
	s.places[to] = s.places[from]
	for path, o := range maps.Clone(s.origins) {
		if rest, ok := strings.CutPrefix(path, from+"."); ok {
			s.origins[to+"."+rest] = o
		}
	}
}

// loadPlatform replaces the host of the first TCP address by IP, and its port by PORT or,
// where that is not set, APP_PORT. Without a TCP address it does nothing. A platform that
// sets the port alone connects from elsewhere, so the default host gives way to all
// addresses then; a host of the file stays.
func (s *Settings) loadPlatform() []fault {
	getenv := s.inputs.getenv
	at := slices.IndexFunc(s.Mux.Listeners, func(l listeners.Config) bool { return isTCP(l.Address) })
	if at < 0 {
		return nil
	}
	path := element("listeners", at) + ".address"
	host, port, err := net.SplitHostPort(s.Mux.Listeners[at].Address)
	if err != nil {
		return nil // The file has a wrong address, which validation reports.
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
	if name == envAppPort && ofService(value) {
		s.passedOver = append(s.passedOver, fmt.Sprintf("%s=%s is passed over: Kubernetes makes it from a Service called app", envAppPort, value))
		value = ""
	}
	if value != "" {
		if err := checkPort(value); err != nil {
			return []fault{{path: path, whence: name, text: err.Error()}}
		}
		if _, set := s.origins[path]; !set && len(names) == 0 {
			host = ""
		}
		port, names = value, append(names, name)
	}
	if len(names) > 0 {
		s.Mux.Listeners[at].Address = net.JoinHostPort(host, port)
		s.origins[path] = origin{name: "environment " + strings.Join(names, " and ")}
	}
	return nil
}

// adminAddress is the path of the admin listener's address.
const adminAddress = "admin.address"

// bothFamilies reports whether one address is [::] and the other 0.0.0.0. Listeners can
// have one each, but [::] does not leave IPv4 to the admin listener, nor the other way.
func bothFamilies(a, b string) bool {
	one, errA := netip.ParseAddrPort(a)
	other, errB := netip.ParseAddrPort(b)
	return errA == nil && errB == nil && one.Port() == other.Port() && one.Port() != 0 &&
		one.Addr().IsUnspecified() && other.Addr().IsUnspecified()
}

// validateAddresses reports addresses that are wrong or cannot be listened on together.
func (s *Settings) validateAddresses() []fault {
	var faults []fault
	if len(s.Mux.Listeners) == 0 {
		faults = append(faults, fault{path: "listeners", text: "empty; leave it out to listen on the default address"})
	}
	type place struct{ path, address string }
	var before []place
	check := func(path, address string, err error) {
		if err != nil {
			faults = append(faults, fault{path: path, text: err.Error()})
			return
		}
		at := slices.IndexFunc(before, func(p place) bool {
			return listeners.Collide(p.address, address) || path == adminAddress && bothFamilies(p.address, address)
		})
		switch {
		case at < 0:
			before = append(before, place{path, address})
		case before[at].address == address:
			faults = append(faults, fault{path: path, text: fmt.Sprintf("%s is that of %s already", address, before[at].path)})
		default:
			faults = append(faults, fault{path: path, text: fmt.Sprintf("%s cannot be listened on beside %s, which is that of %s", address, before[at].address, before[at].path)})
		}
	}
	for i, l := range s.Mux.Listeners {
		check(element("listeners", i)+".address", l.Address, checkAddress(l.Address))
	}
	check(adminAddress, s.Admin.Address, checkAdmin(s.Admin.Address))
	return faults
}
