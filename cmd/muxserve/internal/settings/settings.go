// Package settings is what muxserve can be told: its flags, their environment
// variables, its configuration file, and the configuration that comes of them.
package settings

import (
	"log/slog"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/humanlog"
	"github.com/muxserve/muxserve/mux"
)

// DefaultAdmin is where the admin listener is by default: on the loopback
// interface, because it shows who is connected and serves profiles.
const DefaultAdmin = "127.0.0.1:8081"

// Off is the admin address that stands for no admin listener.
const Off = "off"

// Settings is everything that muxserve can be told. The yaml tags are the names
// of the keys in the file, and an apply tag says whether a key takes effect
// while the server runs. Its exported fields may be read by any number of
// goroutines as long as nobody writes to them.
type Settings struct {
	// Mux configures the server on the service port.
	Mux mux.Config `yaml:",inline"`
	// Admin configures the admin listener.
	Admin Admin `yaml:"admin"`
	// Static is the directory that is served under /static/; none if empty.
	Static string `apply:"restart" yaml:"static"`
	// Watch says that this file, and the files of certificates, keys and ticket keys, are looked at every second,
	// and taken into use when they have changed.
	Watch bool `apply:"restart" yaml:"watch"`
	// Log configures what is logged and how.
	Log Log `yaml:"log"`

	// inputs is what the settings were loaded from.
	inputs inputs
	// file is the name of the configuration file; empty if there is none.
	file string
	// places says at which line of the file each key stands, sections and list elements included.
	places map[string]int
	// origins says, by path, what set a key; one that is missing has its default.
	origins map[string]origin
}

// Admin configures the admin listener.
type Admin struct {
	// Address is HOST:PORT, unix:PATH, or off for no admin listener.
	Address string `apply:"restart" yaml:"address"`
	// Token is what a request that changes something has to bring as a bearer token, unless it comes from the
	// loopback interface. Where it is empty, such requests are taken from the loopback interface alone.
	Token string `apply:"runtime" yaml:"token"`
}

// Log configures what is logged and how.
type Log struct {
	// Level is the least that is logged: debug, info, warn or error.
	Level slog.Level `apply:"runtime" yaml:"level"`
	// Format is auto, text or json. Text is made for people on a terminal, and key=value elsewhere; auto is text on a
	// terminal and json elsewhere.
	Format string `apply:"restart" yaml:"format"`
	// Access says that every request, call and WebSocket is logged when it has ended.
	Access bool `apply:"runtime" yaml:"access"`
}

// The values of Log.Format.
const (
	FormatAuto = humanlog.Auto
	FormatText = humanlog.Text
	FormatJSON = humanlog.JSON
)

var formats = []string{FormatAuto, FormatText, FormatJSON}

// Default returns the settings of a muxserve that was told nothing.
func Default() *Settings {
	return &Settings{
		Mux:     mux.DefaultConfig(),
		Admin:   Admin{Address: DefaultAdmin},
		Log:     Log{Level: slog.LevelInfo, Format: FormatAuto},
		places:  make(map[string]int),
		origins: make(map[string]origin),
	}
}

// Warnings returns what is allowed but cannot work as it is meant, each as a
// sentence.
func (s *Settings) Warnings() []string { return s.Mux.Drain.Warnings() }

// ConfigFile returns the name of the configuration file as it was given; empty
// if there is none.
func (s *Settings) ConfigFile() string { return s.file }

// Reload loads the settings again from the same flags, environment and file. It
// changes nothing in s, and returns what [Load] returns.
func (s *Settings) Reload() (*Settings, error) { return load(s.inputs) }
