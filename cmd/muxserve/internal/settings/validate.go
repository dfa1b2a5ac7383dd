package settings

import (
	"fmt"
	"os"
	"strings"
)

// validateOwn reports what is wrong with the keys that are the command's own, and
// with the addresses of all listeners together.
func (s *Settings) validateOwn() []fault {
	faults := s.validateAddresses()
	check := func(path string, err error) {
		if err != nil {
			faults = append(faults, fault{path: path, text: err.Error()})
		}
	}
	check("static", checkDirectory(s.Static))
	_, err := oneOf(s.Log.Format, formats)
	check("log.format", err)
	return faults
}

// validateAddresses wants every address to be one, and no two to be the same.
func (s *Settings) validateAddresses() []fault {
	var faults []fault
	if len(s.Mux.Listeners) == 0 {
		faults = append(faults, fault{path: "listeners", text: "empty; leave it out to listen on the default address"})
	}
	seen := make(map[string]string)
	check := func(path, address string, err error) {
		other, twice := seen[address]
		seen[address] = path
		switch {
		case err != nil:
			faults = append(faults, fault{path: path, text: err.Error()})
		case twice && address != Off && !strings.HasSuffix(address, ":0"):
			faults = append(faults, fault{path: path, text: fmt.Sprintf("%s is that of %s already", address, other)})
		}
	}
	for i, l := range s.Mux.Listeners {
		check(element("listeners", i)+".address", l.Address, checkAddress(l.Address))
	}
	check("admin.address", s.Admin.Address, checkAdmin(s.Admin.Address))
	return faults
}

// checkAdmin accepts what [checkAddress] does, and [Off].
func checkAdmin(address string) error {
	if address == Off {
		return nil
	}
	if err := checkAddress(address); err != nil {
		return fmt.Errorf("%w, nor %s", err, Off)
	}
	return nil
}

// checkDirectory wants a directory that can be read, or none.
func checkDirectory(name string) error {
	if name == "" {
		return nil
	}
	// The kind is looked at first: to open a pipe may take for ever.
	if info, err := os.Stat(name); err == nil && !info.IsDir() {
		return fmt.Errorf("%q is not a directory", name)
	}
	// Opening it tells, unlike Stat, whether it may be read.
	d, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("not a directory that can be read: %w", err)
	}
	return d.Close()
}
