package settings

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// fault is one thing that is wrong. path is that of the key; empty if it is about
// no key. line is that of the file; 0 if it did not come out of the file. whence
// is the flag or the variable that it came from; empty if none is known to be wrong.
type fault struct {
	path   string
	line   int
	whence string
	text   string
}

// origin is what set a key: a line of the file, or something by name.
type origin struct {
	name string // "flag --x", "environment X"
	line int    // where name is empty
}

// source says what set the key at a path.
func (s *Settings) source(path string) string {
	o, ok := s.origins[path]
	switch {
	case !ok && s.Mux.Drain.Profile != "" && strings.HasPrefix(path, "drain."):
		return "profile " + s.Mux.Drain.Profile
	case !ok:
		return "default"
	case o.line > 0:
		return fmt.Sprintf("%s:%d", s.file, o.line)
	default:
		return o.name
	}
}

// report returns the faults as errors: those of the file first, in the order of
// its lines, each of them once.
func (s *Settings) report(faults []fault) error {
	slices.SortStableFunc(faults, func(a, b fault) int {
		switch {
		case a.line == 0 || b.line == 0:
			return cmp.Compare(b.line, a.line)
		default:
			return cmp.Compare(a.line, b.line)
		}
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

// format writes a fault as one line: where it is in the file, the path of its key, and what is wrong.
// What is not in the file is told with the flag that sets it.
func (s *Settings) format(f fault) string {
	if f.line > 0 {
		where := fmt.Sprintf("%s:%d: ", s.file, f.line)
		if f.path != "" {
			where += f.path + ": "
		}
		return where + f.text
	}
	key := withoutIndexes(f.path)
	at := slices.IndexFunc(options, func(o option) bool { return o.key == key })
	switch {
	case f.whence != "":
		return f.whence + ": " + f.text
	case f.path == "":
		return f.text
	case at < 0:
		return f.path + ": " + f.text
	case strings.HasPrefix(key, listenersKey):
		// A flag bears on all listeners, so that the fault is the same in each.
		key = strings.Replace(key, "[]", "", 1)
	}
	return fmt.Sprintf("%s: %s (%s or %s)", key, f.text, options[at].flag(), options[at].env())
}

// locate fills in the line of a fault of the settings as a whole. A key that is
// not in the file has the line of the section where it is missing.
func (s *Settings) locate(f fault) fault {
	if o, ok := s.origins[f.path]; ok {
		f.line = o.line
		return f
	}
	for path := f.path; path != "" && f.line == 0; path = parent(path) {
		f.line = s.places[path]
	}
	return f
}

// parent returns the path of the section or list that a key or element is in.
func parent(path string) string { return path[:max(0, strings.LastIndexAny(path, ".["))] }

// Locate returns the faults that err joins, each as one line with its place in
// the file, or with the flag that sets its key. err names keys as the packages'
// sections do, below the section at path.
func (s *Settings) Locate(path string, err error) error {
	if path != "" {
		path += ": "
	}
	var faults []fault
	for _, f := range faultsOf(path, err) {
		faults = append(faults, s.locate(f))
	}
	return s.report(faults)
}

// faultForm is how the packages report a fault of a key: the names of packages, each with a colon, then the
// key. Package mux says before that which listener it is.
var faultForm = regexp.MustCompile(
	`^(?:mux: )?(listeners\[\d+\])?(?:: )?(?:(?:mux|listeners|protocols|pool|lifecycle): )?([a-z0-9_]+(?:\.[a-z0-9_]+)*): (.*)$`)

// faultsOf takes joined errors apart, those inside of an error that says more
// about all of them included.
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

// known reports whether a path is one of a key or of a section.
func known(path string) bool {
	path = withoutIndexes(path)
	return slices.ContainsFunc(allKeys(), func(k Key) bool {
		return k.Path == path || strings.HasPrefix(k.Path, path+".") || strings.HasPrefix(k.Path, path+"[]")
	})
}
