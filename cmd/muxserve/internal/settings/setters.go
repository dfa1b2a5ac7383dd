package settings

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/protocols"
)

// unixPrefix begins the address of a Unix-domain socket, and inheritedPrefix that
// of a socket that whoever started the process has opened.
const (
	unixPrefix      = "unix:"
	inheritedPrefix = "fd:"
)

// isTCP reports whether an address is neither that of a Unix-domain socket nor an inherited one's.
func isTCP(address string) bool {
	return !strings.HasPrefix(address, unixPrefix) && !strings.HasPrefix(address, inheritedPrefix)
}

// checkAddress accepts HOST:PORT, unix:PATH and fd:NAME. The listener would take a few
// more forms, such as the name of a service, which nobody means here.
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

// listenersKey is how the keys of a listener begin.
const listenersKey = "listeners[]"

// setListeners gives the listeners other addresses. There are as many of them then as there are
// values; each has the settings of the one that stood in its place, or of the last one.
func setListeners(s *Settings, values []string) error {
	before := s.Mux.Listeners
	s.Mux.Listeners = nil
	var faults []error
	for i, address := range values {
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

// copyOrigins gives the keys of a section the places that those of another one have.
func (s *Settings) copyOrigins(from, to string) {
	if from == to {
		return
	}
	s.places[to] = s.places[from]
	for _, k := range allKeys() {
		rest, ok := strings.CutPrefix(k.Path, listenersKey)
		if o, set := s.origins[from+rest]; ok && set {
			s.origins[to+rest] = o
		}
	}
}

func setAdmin(s *Settings, values []string) error {
	s.Admin.Address = values[0]
	return checkAdmin(values[0])
}

func setAdminToken(s *Settings, values []string) error {
	s.Admin.Token = values[0]
	return nil
}

// eachListener changes the settings of all listeners.
func eachListener(s *Settings, change func(*listeners.Config)) {
	for i := range s.Mux.Listeners {
		change(&s.Mux.Listeners[i])
	}
}

func setProtocols(s *Settings, values []string) error {
	names := splitList(values)
	eachListener(s, func(c *listeners.Config) { c.Protocols = names })
	if len(names) == 0 {
		return errors.New("empty; leave it out to serve all protocols")
	}
	return nil
}

var proxyModes = []string{listeners.ProxyOff, listeners.ProxyOptional, listeners.ProxyRequired}

func setProxyMode(s *Settings, values []string) error {
	mode, err := oneOf(values[0], proxyModes)
	eachListener(s, func(c *listeners.Config) { c.ProxyProtocol.Mode = mode })
	return err
}

func setProxyTrusted(s *Settings, values []string) error {
	trusted := splitList(values)
	eachListener(s, func(c *listeners.Config) { c.ProxyProtocol.Trusted = trusted })
	return nil
}

// splitList returns what is separated by commas in the values, without what is empty.
func splitList(values []string) []string {
	var elements []string
	for _, value := range values {
		for element := range strings.SplitSeq(value, ",") {
			if element = strings.TrimSpace(element); element != "" {
				elements = append(elements, element)
			}
		}
	}
	return elements
}

// eachTLS changes the TLS settings of all listeners.
func eachTLS(s *Settings, change func(*listeners.TLSConfig)) error {
	eachListener(s, func(c *listeners.Config) { change(&c.TLS) })
	return nil
}

var tlsModes = []string{
	listeners.ModeOff, listeners.ModeSelfSigned, listeners.ModeAuto, listeners.ModeManual, listeners.ModeMutual,
}

func setTLSMode(s *Settings, values []string) error {
	mode, err := oneOf(values[0], tlsModes)
	return errors.Join(err, eachTLS(s, func(c *listeners.TLSConfig) { c.Mode = mode }))
}

func setTLSCert(s *Settings, values []string) error {
	return eachTLS(s, func(c *listeners.TLSConfig) { c.Cert = values[0] })
}

func setTLSKey(s *Settings, values []string) error {
	return eachTLS(s, func(c *listeners.TLSConfig) { c.Key = values[0] })
}

func setTLSClientCA(s *Settings, values []string) error {
	return eachTLS(s, func(c *listeners.TLSConfig) { c.ClientCA = values[0] })
}

func setTLSKeyPassphrase(s *Settings, values []string) error {
	return eachTLS(s, func(c *listeners.TLSConfig) { c.KeyPassphrase = values[0] })
}

func setTLSMinVersion(s *Settings, values []string) error {
	return eachTLS(s, func(c *listeners.TLSConfig) { c.MinVersion = values[0] })
}

func setTLSClientAuth(s *Settings, values []string) error {
	return eachTLS(s, func(c *listeners.TLSConfig) { c.ClientAuth = values[0] })
}

func setTLSTicketKeys(s *Settings, values []string) error {
	return eachTLS(s, func(c *listeners.TLSConfig) { c.TicketKeys = values[0] })
}

func setTLSOptional(s *Settings, values []string) error {
	optional, err := boolean(values[0])
	return errors.Join(err, eachTLS(s, func(c *listeners.TLSConfig) { c.Optional = optional }))
}

func setWatch(s *Settings, values []string) (err error) {
	s.Watch, err = boolean(values[0])
	return err
}

// boolean reads a switch.
func boolean(value string) (bool, error) {
	name, err := oneOf(value, []string{"true", "false"})
	return name == "true", err
}

func setUpgradeH2C(s *Settings, values []string) (err error) {
	s.Mux.HTTP2.UpgradeH2C, err = boolean(values[0])
	return err
}

func setHTTP2WebSocket(s *Settings, values []string) (err error) {
	s.Mux.HTTP2.WebSocket, err = boolean(values[0])
	return err
}

func setReadLimit(s *Settings, values []string) error {
	n, err := strconv.ParseInt(values[0], 10, 64)
	if err != nil || n == 0 || n < -1 {
		return fmt.Errorf("%q is not a number of bytes such as 32768, nor -1", values[0])
	}
	s.Mux.WebSocket.ReadLimit = n
	return nil
}

var transports = []string{
	string(protocols.TransportAuto), string(protocols.TransportNative), string(protocols.TransportShared),
}

func setGRPCTransport(s *Settings, values []string) error {
	name, err := oneOf(values[0], transports)
	s.Mux.GRPC.Transport = protocols.GRPCTransport(name)
	return err
}

func setStatic(s *Settings, values []string) error {
	s.Static = values[0]
	return checkDirectory(s.Static)
}

// setDrainProfile says which profile it was; its numbers came in before.
func setDrainProfile(s *Settings, values []string) (err error) {
	s.Mux.Drain.Profile, err = oneOf(values[0], lifecycle.Profiles())
	return err
}

func setDrainDelay(s *Settings, values []string) (err error) {
	s.Mux.Drain.Delay, err = duration(values[0])
	return err
}

func setDrainTimeout(s *Settings, values []string) (err error) {
	s.Mux.Drain.Timeout, err = duration(values[0])
	return err
}

func setDrainSpread(s *Settings, values []string) (err error) {
	s.Mux.Drain.Spread, err = duration(values[0])
	return err
}

// formats are the values of Log.Format.
var formats = []string{FormatAuto, FormatText, FormatJSON}

func setLogFormat(s *Settings, values []string) (err error) {
	s.Log.Format, err = oneOf(values[0], formats)
	return err
}

func setLogAccess(s *Settings, values []string) (err error) {
	s.Log.Access, err = boolean(values[0])
	return err
}

func setLogLevel(s *Settings, values []string) error {
	name, err := oneOf(strings.ToLower(values[0]), levels)
	if err != nil {
		return err
	}
	return s.Log.Level.UnmarshalText([]byte(name))
}

// duration reads a length of time that is not negative.
func duration(value string) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a length of time such as 500ms, 30s or 1m30s", value)
	}
	return d, nil
}

func oneOf(value string, allowed []string) (string, error) {
	if !slices.Contains(allowed, value) {
		return "", fmt.Errorf("%q is not one of %s", value, strings.Join(allowed, ", "))
	}
	return value, nil
}
