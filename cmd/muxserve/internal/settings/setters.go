package settings

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/protocols"
)

const unixPrefix = "unix:"

// checkAddress accepts HOST:PORT and unix:PATH. The listener would take a few
// more forms, such as the name of a service, which nobody means here.
func checkAddress(address string) error {
	if path, ok := strings.CutPrefix(address, unixPrefix); ok && path != "" {
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

func setListeners(s *Settings, values []string) error {
	s.Mux.Listeners = nil
	var faults []error
	for _, address := range values {
		address = strings.TrimSpace(address)
		faults = append(faults, checkAddress(address))
		s.Mux.Listeners = append(s.Mux.Listeners, listeners.Config{Address: address})
	}
	return errors.Join(faults...)
}

func setAdmin(s *Settings, values []string) error {
	s.Admin.Address = values[0]
	if values[0] == Off {
		return nil
	}
	if err := checkAddress(values[0]); err != nil {
		return fmt.Errorf("%w, nor %s", err, Off)
	}
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

func setProxyMode(s *Settings, values []string) error {
	mode, err := oneOf(values[0], []string{listeners.ProxyOff, listeners.ProxyOptional, listeners.ProxyRequired})
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

func setTLSMode(s *Settings, values []string) error {
	modes := []string{
		listeners.ModeOff, listeners.ModeSelfSigned, listeners.ModeAuto, listeners.ModeManual, listeners.ModeMutual,
	}
	mode, err := oneOf(values[0], modes)
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

func setGRPCTransport(s *Settings, values []string) error {
	names := []string{
		string(protocols.TransportAuto), string(protocols.TransportNative), string(protocols.TransportShared),
	}
	name, err := oneOf(values[0], names)
	s.Mux.GRPC.Transport = protocols.GRPCTransport(name)
	return err
}

func setStatic(s *Settings, values []string) error {
	s.Static = values[0]
	if s.Static == "" {
		return nil
	}
	// Opening it tells, unlike Stat, whether it may be read.
	entries, err := os.Open(s.Static)
	if err != nil {
		return fmt.Errorf("not a directory that can be read: %w", err)
	}
	defer entries.Close()
	if info, err := entries.Stat(); err != nil || !info.IsDir() {
		return fmt.Errorf("%q is not a directory", s.Static)
	}
	return nil
}

func setDrainDelay(s *Settings, values []string) (err error) {
	s.Mux.Drain.Delay, err = duration(values[0])
	return err
}

func setDrainTimeout(s *Settings, values []string) (err error) {
	s.Mux.Drain.Timeout, err = duration(values[0])
	return err
}

func setLogFormat(s *Settings, values []string) (err error) {
	s.Log.Format, err = oneOf(values[0], []string{FormatText, FormatJSON})
	return err
}

func setLogLevel(s *Settings, values []string) error {
	name, err := oneOf(strings.ToLower(values[0]), []string{"debug", "info", "warn", "error"})
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
