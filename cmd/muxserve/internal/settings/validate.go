package settings

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// validate reports the faults of the settings as a whole. It leaves out what is among the
// faults before already, and what may only be a consequence of them.
func (s *Settings) validate(before []fault) []fault {
	own := s.validateOwn()
	faults := slices.Clone(own)
	for _, f := range faultsOf("", s.Mux.Validate()) {
		// Both check addresses; validateOwn says more.
		if f.path == "" || !slices.ContainsFunc(own, func(o fault) bool { return o.path == f.path }) {
			faults = append(faults, f)
		}
	}
	faults = slices.DeleteFunc(faults, func(f fault) bool {
		return f.path != "" && slices.ContainsFunc(before, func(b fault) bool { return s.mayFollow(f.path, b.path) })
	})
	for i, f := range faults {
		faults[i] = s.locate(f)
	}
	return faults
}

// validateOwn reports the faults of keys that are not in [mux.Config], and of addresses.
func (s *Settings) validateOwn() []fault {
	faults := s.validateAddresses()
	check := func(path string, err error) {
		if err != nil {
			faults = append(faults, fault{path: path, text: err.Error()})
		}
	}
	check("static", checkDirectory(s.Static))
	check("log.format", oneOf(s.Log.Format, formats))
	return faults
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
