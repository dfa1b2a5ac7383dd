package settings

import (
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
	"github.com/muxserve/muxserve/lifecycle"
)

// inputs is what settings are loaded from.
type inputs struct {
	flags  cli.Parsed
	getenv func(string) string
	// read reads the configuration file.
	read func(name string) ([]byte, error)
}

// Load returns the settings that the flags, the environment and the file ask
// for. A flag wins over its variable, which wins over the file, which wins over
// the default. A variable that is empty is as good as not set. A flag or variable
// that loses is not looked at; all of the file is.
//
// What the flags say of listeners bears on every listener, those of the file
// included. --listen says where listeners are, not what they are: the first
// address is the first listener of the file with another address, and so on; what
// is one too many has the settings of the file's last.
//
// IP and PORT, or APP_PORT where PORT is not set, replace the host and the port
// of the first TCP address of the file or of the default address, as platforms
// expect that give a process its port.
//
// The error reports every fault at once, one a line, each naming the line of the
// file and the key, or the flag or the variable.
func Load(flags cli.Parsed, getenv func(string) string) (*Settings, error) {
	return load(inputs{flags: flags, getenv: getenv, read: readConfig})
}

func load(in inputs) (*Settings, error) {
	s := Default()
	s.inputs = in
	root, readable, faults := s.readFile()
	s.startFromProfile(root)
	if root != nil {
		faults = append(faults, s.loadFile(root)...)
	}
	faults = append(faults, s.loadOptions()...)
	if readable {
		faults = append(faults, s.validate(faults)...)
	}
	if err := s.report(faults); err != nil {
		return nil, err
	}
	return s, nil
}

// readFile returns what stands in the file, nil if there is no file or nothing in
// it. It is false if there is a file that cannot be read, so that nobody knows what it says.
func (s *Settings) readFile() (*yaml.Node, bool, []fault) {
	whence, _, values := s.inputs.lookUp(configOption)
	if len(values) == 0 {
		return nil, true, nil
	}
	s.file = values[0]
	data, err := s.inputs.read(s.file)
	if err != nil {
		return nil, false, []fault{{whence: whence, text: err.Error()}}
	}
	root, broken := parseConfig(data)
	if broken != nil {
		return nil, false, []fault{*broken}
	}
	return root, true, nil
}

// startFromProfile puts the numbers of the drain's profile in the place of the
// defaults, before anything else is laid over them.
func (s *Settings) startFromProfile(root *yaml.Node) {
	_, _, values := s.inputs.lookUp(profileOption)
	name := ""
	if n := below(below(root, "drain"), "profile"); n != nil {
		name = n.Value
	}
	if len(values) > 0 {
		name = values[0]
	}
	// A name that nobody knows is left to validation.
	if c, err := lifecycle.Profile(name); err == nil {
		s.Mux.Drain = c
	}
}

// loadFile lays the file over the defaults.
func (s *Settings) loadFile(root *yaml.Node) []fault {
	d := decoder{lines: s.places}
	d.decode(root, reflect.ValueOf(s).Elem(), "")
	for _, path := range d.set {
		s.origins[path] = origin{line: s.places[path]}
	}
	return d.faults
}

// loadOptions lays the flags and the environment over the settings.
func (s *Settings) loadOptions() []fault {
	var faults []fault
	for _, o := range options {
		if o.key == "" {
			continue
		}
		whence, source, values := s.inputs.lookUp(o)
		if len(values) == 0 && o.name == listenOption.name {
			faults = append(faults, s.loadPlatform()...)
		}
		if len(values) == 0 {
			continue
		}
		err := o.apply(s, values)
		for _, path := range s.paths(o.key) {
			s.origins[path] = origin{name: source}
		}
		if err != nil {
			for text := range strings.SplitSeq(err.Error(), "\n") {
				faults = append(faults, fault{path: o.key, whence: whence, text: text})
			}
		}
	}
	return faults
}

// lookUp returns the values of an option, none if nobody gave any, the name of
// what gave them and the same with its kind, for showing.
func (in inputs) lookUp(o option) (whence, source string, values []string) {
	if given := in.flags.Values[o.name]; len(given) > 0 {
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

// paths returns the paths that a key stands at, which are as many as there are
// listeners where it is a key of those.
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
