package settings

import (
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

// inputs are the sources of settings.
type inputs struct {
	flags  cli.Parsed
	getenv func(string) string
	// read reads the configuration file.
	read func(name string) ([]byte, error)
	// full refuses a file without content.
	full bool
}

// Load returns the settings that the flags, the environment and the file make, in the
// order that the manual page gives. Load does not check a flag or variable that loses; it
// checks the whole file.
//
// The error has every fault on a line of its own, with the line of the file and the key,
// or with the flag or the variable.
func Load(flags cli.Parsed, getenv func(string) string) (*Settings, error) {
	return load(newInputs(flags, getenv))
}

// LoadFull is [Load] where the file has had content before. It refuses a file that is empty
// or has comments alone: an editor has more likely truncated it and not written it yet, and
// the defaults would give up every address.
func LoadFull(flags cli.Parsed, getenv func(string) string) (*Settings, error) {
	in := newInputs(flags, getenv)
	in.full = true
	return load(in)
}

func newInputs(flags cli.Parsed, getenv func(string) string) inputs {
	read := func(name string) ([]byte, error) { return ReadFile(name, maxFileBytes) }
	return inputs{flags: flags, getenv: getenv, read: read}
}

func load(in inputs) (*Settings, error) {
	s := Default()
	s.inputs = in
	root, readable, faults := s.readFile()
	s.startFromProfiles(root)
	if root != nil {
		faults = append(faults, s.loadFile(root)...)
	}
	faults = append(faults, s.loadOptions()...)
	faults = append(faults, s.loadToken()...)
	if readable {
		faults = append(faults, s.validate(faults)...)
	}
	if err := s.report(faults); err != nil {
		return nil, err
	}
	return s, nil
}

// textEmpty is the fault of a file that has lost its content.
const textEmpty = "the file is empty, or has comments alone; write {} for a configuration of defaults"

// readFile returns the content of the file; nil without a file and for an empty one.
// readable is false for a file that exists and cannot be read, parsed or accepted.
func (s *Settings) readFile() (root *yaml.Node, readable bool, faults []fault) {
	whence, _, values := s.inputs.lookUp(configOption)
	if len(values) == 0 {
		return nil, true, nil
	}
	s.file = values[0]
	data, err := s.inputs.read(s.file)
	if err != nil {
		return nil, false, []fault{{whence: whence, text: err.Error()}}
	}
	s.read[s.file] = data
	root, broken := parseConfig(data)
	if broken != nil {
		return nil, false, []fault{*broken}
	}
	if s.blank = root == nil || isNull(root); s.blank && s.inputs.full {
		return nil, false, []fault{{line: 1, text: textEmpty}}
	}
	return root, true, nil
}

// startFromProfiles replaces the defaults by those of the profile, and the drain's by those of
// its own. It comes before the file and the flags, which win over both.
func (s *Settings) startFromProfiles(root *yaml.Node) {
	// Validation reports an unknown name.
	if s.inputs.profile(profileOption, root) == profileEdge {
		mux.Edge(&s.Mux)
	}
	if c, err := lifecycle.Profile(s.inputs.profile(drainProfileOption, below(root, "drain"))); err == nil {
		s.Mux.Drain = c
	}
}

// profile returns the name of a profile, from its flag or from a section of the file.
func (in inputs) profile(o option, section *yaml.Node) string {
	if _, _, values := in.lookUp(o); len(values) > 0 {
		return values[0]
	}
	if n := below(section, "profile"); n != nil {
		return n.Value
	}
	return ""
}

// loadFile sets the keys of the file.
func (s *Settings) loadFile(root *yaml.Node) []fault {
	d := decoder{lines: s.places}
	d.decode(root, reflect.ValueOf(s).Elem(), "")
	for _, path := range d.set {
		s.origins[path] = origin{line: s.places[path]}
	}
	return d.faults
}

// loadOptions sets the keys of the flags and the environment.
func (s *Settings) loadOptions() []fault {
	var faults []fault
	for _, o := range options {
		if o.Key == "" {
			continue
		}
		whence, source, values := s.inputs.lookUp(o)
		if len(values) == 0 && o.Name == listenOption.Name {
			faults = append(faults, s.loadPlatform()...)
		}
		if len(values) == 0 {
			continue
		}
		err := o.apply(s, values)
		for _, path := range s.paths(o.Key) {
			s.origins[path] = origin{name: source}
		}
		if err != nil {
			for text := range strings.SplitSeq(err.Error(), "\n") {
				faults = append(faults, fault{path: o.Key, whence: whence, text: text})
			}
		}
	}
	return faults
}

// lookUp returns the values of an option, and their source: whence is the flag or the
// variable, and source the same with its kind, for people. Without a flag and a variable
// it returns none.
func (in inputs) lookUp(o option) (whence, source string, values []string) {
	if given := in.flags.Values[o.Name]; len(given) > 0 {
		if !o.list {
			given = given[len(given)-1:]
		}
		return o.flag(), "flag " + o.flag(), given
	}
	value := in.getenv(o.env())
	if value == "" {
		return "", "", nil
	}
	values = []string{value}
	if o.list {
		values = strings.Split(value, ",")
	}
	return o.env(), "environment " + o.env(), values
}

// paths returns the paths of a key in the settings: one for each listener for a key of
// listeners, and one for other keys.
func (s *Settings) paths(key string) []string {
	rest, found := strings.CutPrefix(key, listenersKey)
	if !found {
		return []string{key}
	}
	paths := make([]string, len(s.Mux.Listeners))
	for i := range paths {
		paths[i] = element("listeners", i) + rest
	}
	return paths
}
