package settings

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/muxserve/muxserve/mux"
)

// fault is one error in the settings.
type fault struct {
	path   string // of the key; empty for a fault of no key
	line   int    // in the file; 0 for a value from elsewhere
	whence string // the flag or the variable; empty if not known
	text   string
}

// origin is the source of a key's value: a line of the file, or a flag or variable.
type origin struct {
	name string // "flag --x", "environment X"
	line int    // where name is empty
}

// source names the source of the key at a path, for people.
func (s *Settings) source(path string) string {
	o, ok := s.origins[path]
	switch {
	case !ok && s.Mux.Drain.Profile != "" && strings.HasPrefix(path, "drain."):
		return "profile " + s.Mux.Drain.Profile
	case !ok && s.Profile == profileEdge && edgeKeys()[path]:
		return "profile " + s.Profile
	case !ok:
		return "default"
	case o.line > 0:
		return fmt.Sprintf("%s:%d", s.file, o.line)
	default:
		return o.name
	}
}

// edgeKeys returns the keys whose defaults the profile edge replaces.
var edgeKeys = sync.OnceValue(func() map[string]bool {
	plain, edge := Default(), Default()
	mux.Edge(&edge.Mux)
	before, keys := plain.values(), make(map[string]bool)
	for key, value := range edge.values() {
		keys[key] = value != before[key]
	}
	return keys
})

// report joins the faults to one error, without duplicates. Those with a line come first,
// in the order of the lines.
func (s *Settings) report(faults []fault) error {
	slices.SortStableFunc(faults, func(a, b fault) int {
		if a.line == 0 || b.line == 0 {
			return cmp.Compare(b.line, a.line)
		}
		return cmp.Compare(a.line, b.line)
	})
	var all []error
	for _, f := range faults {
		text := s.format(f)
		if !slices.ContainsFunc(all, func(known error) bool { return known.Error() == text }) {
			all = append(all, errors.New(text))
		}
	}
	return errors.Join(all...)
}

// format writes a fault as one line: its place in the file, the path of its key and the
// text. A fault outside of the file has the flag that sets the key.
func (s *Settings) format(f fault) string {
	if f.line > 0 {
		where := fmt.Sprintf("%s:%d: ", s.file, f.line)
		if f.path != "" {
			where += f.path + ": "
		}
		return where + f.text
	}
	key := withoutIndexes(f.path)
	at := slices.IndexFunc(options, func(o option) bool { return o.Key == key })
	switch {
	case f.whence != "":
		return f.whence + ": " + f.text
	case f.path == "":
		return f.text
	case at < 0:
		return f.path + ": " + f.text
	case strings.HasPrefix(key, listenersKey):
		// A flag sets all listeners, so the fault is the same in each.
		key = strings.Replace(key, "[]", "", 1)
	}
	return fmt.Sprintf("%s: %s (%s or %s)", key, f.text, options[at].flag(), options[at].env())
}

// locate sets the lines of faults. For a key that is not in the file it is the line of the
// section where the key is missing.
func (s *Settings) locate(faults []fault) []fault {
	for i := range faults {
		f := &faults[i]
		o, ok := s.origins[f.path]
		f.line = o.line
		for path := f.path; !ok && path != "" && f.line == 0; path = parent(path) {
			f.line = s.places[path]
		}
	}
	return faults
}

// parent returns the path of the section or list that contains a key or element.
func parent(path string) string { return path[:max(0, strings.LastIndexAny(path, ".["))] }

// Locate returns the faults that err joins, each on one line with its place in the file,
// or with the flag that sets its key. The keys in err are relative to the section at
// path.
func (s *Settings) Locate(path string, err error) error {
	if path != "" {
		path += ": "
	}
	return s.report(s.locate(faultsOf(path, err)))
}

// faultForm matches the faults that the packages report: package names, the key and the
// text, all separated by colons. Package mux puts the listener first.
var faultForm = regexp.MustCompile(
	`^(?:mux: )?(listeners\[\d+\])?(?:: )?(?:(?:mux|listeners|protocols|pool|lifecycle): )?([a-z0-9_]+(?:\[\d+\])?(?:\.[a-z0-9_]+(?:\[\d+\])?)*): (.*)$`)

// faultsOf splits joined errors. Where an error wraps joined errors, each fault keeps the
// text in front of them.
func faultsOf(prefix string, err error) []fault {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var faults []fault
		for _, e := range joined.Unwrap() {
			faults = append(faults, faultsOf(prefix, e)...)
		}
		return faults
	}
	if joined, ok := errors.AsType[interface {
		error
		Unwrap() []error
	}](err); ok {
		return faultsOf(prefix+strings.TrimSuffix(err.Error(), joined.Error()), joined)
	}
	text := prefix + err.Error()
	m := faultForm.FindStringSubmatch(text)
	if m == nil {
		return []fault{{text: text}}
	}
	path := strings.TrimPrefix(m[1]+"."+m[2], ".")
	if !known(path) {
		return []fault{{text: text}}
	}
	return []fault{{path: path, text: m[3]}}
}

// known reports whether a key or a section has this path.
func known(path string) bool {
	path = withoutIndexes(path)
	return slices.ContainsFunc(allKeys(), func(k Key) bool {
		return k.Path == path || strings.HasPrefix(k.Path, path+".") || strings.HasPrefix(k.Path, path+"[]")
	})
}
