// Package settings reads muxserve's flags, their environment variables and its
// configuration file, and makes one configuration of them.
package settings

import (
	"cmp"
	"fmt"
	"log/slog"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/humanlog"
	"github.com/muxserve/muxserve/mux"
)

// defaultAdmin is the default address of the admin listener. It is on the loopback
// interface, because the admin pages show clients and serve profiles.
const defaultAdmin = "127.0.0.1:8081"

// Off is the admin address for no admin listener.
const Off = "off"

// Settings is the whole configuration of muxserve. The yaml tags are the names of the
// keys in the file, and the apply tags say how a key takes effect while the server runs.
// Any number of goroutines may read the exported fields while none writes to them.
type Settings struct {
	// Profile is edge for a port that strangers reach, or empty for net/http's and grpc-go's
	// bounds. Its numbers replace the defaults; keys that are set beside it win.
	Profile string `apply:"runtime" yaml:"profile"`
	// Mux configures the server on the service port.
	Mux mux.Config `yaml:",inline"`
	// Admin configures the admin listener.
	Admin Admin `yaml:"admin"`
	// Static is the directory whose files are served under /static/; none if empty. A reload
	// opens it again, so that a link that was pointed to another directory is followed.
	Static string `apply:"restart" yaml:"static"`
	// StaticListings shows the names in directories below Static that have no index.html.
	StaticListings bool `apply:"restart" yaml:"static_listings"`
	// StaticDotFiles serves files below Static whose name, or that of a directory on their
	// path, begins with a dot.
	StaticDotFiles bool `apply:"restart" yaml:"static_dot_files"`
	// Watch checks every second whether this file or a file of certificates, keys or
	// ticket keys has changed, and reloads them then. A file that is written in place, and
	// not replaced by rename, is read when it has stayed the same for 2 s.
	Watch bool `apply:"runtime" yaml:"watch"`
	// Log configures the log.
	Log Log `yaml:"log"`

	inputs inputs
	// passedOver has a sentence for each variable that was not used.
	passedOver []string
	// file is the name of the configuration file; empty if there is none.
	file string
	// blank says that the file is empty or has comments alone.
	blank bool
	// read has the contents of the files that were read, by their names.
	read map[string][]byte
	// places has the line of each key, section and list element of the file.
	places map[string]int
	// origins has the source of each key by its path. A key that is missing has its default.
	origins map[string]origin
}

// Admin configures the admin listener.
type Admin struct {
	// Address is HOST:PORT, unix:PATH, fd:NAME for a socket of the service manager, or off
	// for no admin listener.
	Address string `apply:"restart" yaml:"address"`
	// Token is the bearer token that a request needs in order to change something. Where it
	// is empty, only requests from the loopback interface or a Unix socket may.
	Token string `apply:"runtime" yaml:"token"`
	// TokenFile is the path of a file with the token, without the end of its last line.
	TokenFile string `apply:"runtime" yaml:"token_file"`
	// Protect is writes or all: what the token is for. With all, everything asks for it but
	// /livez, /readyz and the page itself: metrics, connections and profiles, too.
	Protect string `apply:"runtime" yaml:"protect"`
	// Hosts are more names by which the admin listener is asked for. It answers to IP
	// addresses, to localhost and to the host of address, and refuses other names, because a
	// web page may point its own name there. Probes and Prometheus may use any name.
	Hosts []string `apply:"runtime" yaml:"hosts"`
}

// The values of Admin.Protect.
const (
	ProtectWrites = "writes"
	ProtectAll    = "all"
)

// protections are the values of Admin.Protect.
var protections = []string{ProtectWrites, ProtectAll}

// Log configures the log.
type Log struct {
	// Level is the lowest level that is logged: debug, info, warn or error.
	Level slog.Level `apply:"runtime" yaml:"level"`
	// Format is auto, text or json. Text is columns on a terminal and key=value
	// elsewhere. auto is text on a terminal and json elsewhere.
	Format string `apply:"runtime" yaml:"format"`
	// Access logs every request, call and WebSocket when it has ended.
	Access bool `apply:"runtime" yaml:"access"`
}

// profileEdge is the profile by which [mux.Edge] sets the defaults.
const profileEdge = "edge"

// formats are the values of Log.Format.
var formats = []string{humanlog.Auto, humanlog.Text, humanlog.JSON}

// Default returns the defaults.
func Default() *Settings {
	return &Settings{
		Mux:     mux.DefaultConfig(),
		Admin:   Admin{Address: defaultAdmin, Protect: ProtectWrites},
		Log:     Log{Level: slog.LevelInfo, Format: humanlog.Auto},
		read:    make(map[string][]byte),
		places:  make(map[string]int),
		origins: make(map[string]origin),
	}
}

// Warnings returns a sentence for each setting that is allowed but cannot work as
// intended.
func (s *Settings) Warnings() []string {
	return slices.Concat(s.passedOver, s.Mux.Drain.Warnings(), s.herd(runtime.GOMAXPROCS(0)))
}

// ConfigFile returns the name of the configuration file as given; empty if there is none.
func (s *Settings) ConfigFile() string { return s.file }

// Read returns the contents that the configuration file and the file of the token had, by
// their names as given. The caller does not change it.
func (s *Settings) Read() map[string][]byte { return s.read }

// IsBlank reports whether there is a configuration file without content, which stands for
// the defaults.
func (s *Settings) IsBlank() bool { return s.blank }

// Reload calls [LoadFull] again with the same flags, environment and file, or [Load] where
// the file was blank. It does not change s.
func (s *Settings) Reload() (*Settings, error) {
	in := s.inputs
	in.full = !s.blank
	return load(in)
}

// Key is one key of the configuration file.
type Key struct {
	// Path is the path of the key, such as listeners[].tls.mode.
	Path string
	// Type is the Go type of its values.
	Type reflect.Type
	// Apply is the apply tag of its field: "runtime" or "restart".
	Apply string
	// Struct and Field are its field in Go.
	Struct reflect.Type
	Field  string
	// Default is its default in the syntax of the file; empty where it depends on the
	// machine, and for a section.
	Default string
}

// secretKeys are the keys whose values appear neither in errors nor in the printed
// settings. A private key may be inline PEM text.
var secretKeys = []string{
	"admin.token", "listeners[].tls.key", "listeners[].tls.key_passphrase",
	"listeners[].tls.certificates[].key", "listeners[].tls.certificates[].key_passphrase",
}

// aboveSecrets reports whether a section or list has a secret key, at any depth. A text in
// its place may be one of them without its colon.
func aboveSecrets(path string) bool {
	above := withoutIndexes(path)
	return above == "" || slices.ContainsFunc(secretKeys, func(secret string) bool {
		return strings.HasPrefix(secret, above+".") || strings.HasPrefix(secret, above+"[]")
	})
}

// besideSecrets reports whether a key is no secret, and its section has one.
func besideSecrets(path string) bool {
	key := withoutIndexes(path)
	return !slices.Contains(secretKeys, key) &&
		slices.ContainsFunc(secretKeys, func(secret string) bool { return parent(secret) == parent(key) })
}

// Keys returns all keys that have a value, in the order of the printed settings.
func Keys() []Key { return slices.Clone(allKeys()) }

// Sections returns the keys that have keys below them, in the order of the printed
// settings. The path of the TLS section of a listener is listeners[].tls. The default of a
// list that has no elements is "[]".
func Sections() []Key {
	defaults := Default().values()
	var sections []Key
	walk(reflect.TypeFor[Settings](), "", func(f field, path string) {
		if isSection(f.Type) {
			k := f.key(path)
			k.Default = defaults[strings.ReplaceAll(path, "[]", "[0]")]
			sections = append(sections, k)
		}
	})
	return sections
}

var allKeys = sync.OnceValue(func() []Key {
	defaults := Default().values()
	var keys []Key
	walk(reflect.TypeFor[Settings](), "", func(f field, path string) {
		if isSection(f.Type) {
			return
		}
		k := f.key(path)
		if path != "limits.max_connections" { // Its default depends on the machine.
			k.Default = cmp.Or(defaults[strings.ReplaceAll(path, "[]", "[0]")], scalar(reflect.Zero(f.Type)))
		}
		keys = append(keys, k)
	})
	return keys
})

// walk visits every key below the section at path, each section before its keys.
func walk(t reflect.Type, path string, visit func(f field, path string)) {
	for _, f := range fieldsOf(t) {
		key := join(path, f.name)
		visit(f, key)
		switch kindOf(f.Type) {
		case kindSection:
			walk(f.Type, key, visit)
		case kindSections:
			walk(f.Type.Elem(), key+"[]", visit)
		}
	}
}

// isSection reports whether keys of type t have keys below them.
func isSection(t reflect.Type) bool { return kindOf(t) == kindSection || kindOf(t) == kindSections }

// key describes the key of a field.
func (f field) key(path string) Key {
	return Key{Path: path, Type: f.Type, Apply: f.Tag.Get("apply"), Struct: f.owner, Field: f.Name}
}

// join returns the path of a key of the section at path.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// element returns the path of an element of a list.
func element(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// withoutIndexes turns the path of a key in the settings into a [Key].Path.
func withoutIndexes(path string) string {
	var key strings.Builder
	for {
		before, rest, found := strings.Cut(path, "[")
		key.WriteString(before)
		if !found {
			return key.String()
		}
		key.WriteString("[]")
		_, path, _ = strings.Cut(rest, "]")
	}
}

// field is a field of a struct with its name in the file.
type field struct {
	reflect.StructField

	name string
	// owner is the struct that declares it: the inlined struct for a field of one.
	owner reflect.Type
	// path is its index for [reflect.Value.FieldByIndex].
	path []int
}

// fieldsOf returns the fields of a struct that have a name in the file, with those of
// inlined structs.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case options == "inline":
			for _, inner := range fieldsOf(f.Type) {
				inner.path = append([]int{i}, inner.path...)
				fields = append(fields, inner)
			}
		case name != "" && name != "-":
			fields = append(fields, field{StructField: f, name: name, owner: t, path: []int{i}})
		}
	}
	return fields
}

// The kinds of values in the file.
type kind int

const (
	kindText     kind = iota // any string type
	kindBool                 // true or false
	kindWhole                // an integer, signed or not
	kindNumber               // a floating-point number
	kindDuration             // a length of time such as 30s
	kindLevel                // a log level
	kindTexts                // a list of strings
	kindSection              // keys below it
	kindSections             // a list of elements with keys
)

// kindOf returns the kind of values of type t. It panics for a type that no key has yet,
// so that every test fails where such a key is added.
func kindOf(t reflect.Type) kind {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return kindDuration
	case reflect.TypeFor[slog.Level]():
		return kindLevel
	}
	switch t.Kind() {
	case reflect.String:
		return kindText
	case reflect.Bool:
		return kindBool
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint32, reflect.Uint64:
		return kindWhole
	case reflect.Float32, reflect.Float64:
		return kindNumber
	case reflect.Struct:
		return kindSection
	case reflect.Slice:
		switch t.Elem().Kind() {
		case reflect.String:
			return kindTexts
		case reflect.Struct:
			return kindSections
		}
	}
	panic(fmt.Sprintf("settings: no key can be of type %v", t))
}
