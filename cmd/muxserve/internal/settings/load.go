package settings

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
)

// listenOption is the flag that the platform's variables give way to.
const listenOption = "listen"

// Load returns the settings that the flags and the environment ask for. A flag
// wins over its variable, which wins over the default. A variable that is empty
// is as good as not set. What loses is not looked at.
//
// IP and PORT, or APP_PORT where PORT is not set, replace the host and the port
// of the default address, as platforms expect that give a process its port.
//
// The error reports every fault at once, each naming the flag or the variable.
func Load(flags cli.Parsed, getenv func(string) string) (*Settings, error) {
	s := Default()
	var faults []error
	for _, o := range options {
		whence, source, values := lookUp(o, flags, getenv)
		if len(values) == 0 && o.name == listenOption {
			address, err := platformAddress(getenv)
			if err != nil {
				faults = append(faults, err)
			}
			if address.source != "" {
				source, values = address.source, []string{address.value}
			}
		}
		if len(values) == 0 {
			continue
		}
		s.sources[o.key] = source
		if err := o.set(s, values); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", whence, err))
		}
	}
	if len(faults) == 0 {
		faults = append(faults, s.validate()...)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return s, nil
}

// lookUp returns the values of an option, none if nobody gave any, the name of
// what gave them and the same with its kind, for showing.
func lookUp(o option, flags cli.Parsed, getenv func(string) string) (whence, source string, values []string) {
	if given := flags.Values[o.name]; len(given) > 0 {
		if !o.list {
			given = given[len(given)-1:]
		}
		return o.flag(), "flag " + o.flag(), given
	}
	value := getenv(o.env())
	if value == "" {
		return "", "", nil
	}
	values = []string{value}
	if o.list {
		values = strings.Split(value, ",")
	}
	return o.env(), "environment " + o.env(), values
}

// validate reports what is wrong with the settings as a whole.
func (s *Settings) validate() []error {
	var faults []error
	for _, err := range leaves(s.Mux.Validate()) {
		faults = append(faults, withFlag(err))
	}
	seen := make(map[string]bool)
	for _, address := range s.addresses() {
		switch {
		case address == Off || strings.HasSuffix(address, ":0"):
		case seen[address]:
			faults = append(faults, fmt.Errorf("%s is used twice; every --listen and --admin needs an address of its own", address))
		default:
			seen[address] = true
		}
	}
	return faults
}

// addresses returns where the process is to listen, the admin listener last.
func (s *Settings) addresses() []string {
	var all []string
	for _, l := range s.Mux.Listeners {
		all = append(all, l.Address)
	}
	return append(all, s.Admin.Address)
}

// leaves takes joined errors apart. All listeners have the same TLS settings, so
// a fault of those comes once for each; it is returned once.
func leaves(err error) []error {
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) {
		if err == nil {
			return nil
		}
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		for _, leaf := range leaves(e) {
			if !slices.ContainsFunc(all, func(known error) bool { return known.Error() == leaf.Error() }) {
				all = append(all, leaf)
			}
		}
	}
	return all
}

// withFlag adds to an error that names a key the flag that sets it. The name of the
// package stands before the key; a package may be called like a key.
func withFlag(err error) error {
	for _, o := range options {
		if key := strings.TrimPrefix(o.key, "listeners."); strings.Contains(err.Error(), ": "+key+": ") {
			return fmt.Errorf("%w (%s or %s)", err, o.flag(), o.env())
		}
	}
	return err
}
