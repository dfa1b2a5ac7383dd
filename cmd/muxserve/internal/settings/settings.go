// Package settings reads muxserve's flags, their environment variables and its
// configuration file, and makes one configuration of them.
package settings

import (
	"log/slog"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/humanlog"
	"github.com/muxserve/muxserve/mux"
)

// DefaultAdmin is the default address of the admin listener. It is on the loopback
// interface, because the admin pages show clients and serve profiles.
const DefaultAdmin = "127.0.0.1:8081"

// Off is the admin address for no admin listener.
const Off = "off"

// Settings is the whole configuration of muxserve. The yaml tags are the names of the
// keys in the file, and the apply tags say how a key takes effect while the server runs.
// Any number of goroutines may read the exported fields while none writes to them.
type Settings struct {
	// Mux configures the server on the service port.
	Mux mux.Config `yaml:",inline"`
	// Admin configures the admin listener.
	Admin Admin `yaml:"admin"`
	// Static is the directory whose files are served under /static/; none if empty.
	Static string `apply:"restart" yaml:"static"`
	// Watch checks every second whether this file or a file of certificates, keys or
	// ticket keys has changed, and reloads them then.
	Watch bool `apply:"restart" yaml:"watch"`
	// Log configures the log.
	Log Log `yaml:"log"`

	inputs inputs
	// file is the name of the configuration file; empty if there is none.
	file string
	// places has the line of each key, section and list element of the file.
	places map[string]int
	// origins has the source of each key by its path. A key that is missing has its
	// default.
	origins map[string]origin
}

// Admin configures the admin listener.
type Admin struct {
	// Address is HOST:PORT, unix:PATH, or off for no admin listener.
	Address string `apply:"restart" yaml:"address"`
	// Token is the bearer token that a request needs in order to change something, unless
	// it comes from the loopback interface. Where it is empty, only requests from there
	// may.
	Token string `apply:"runtime" yaml:"token"`
}

// Log configures the log.
type Log struct {
	// Level is the lowest level that is logged: debug, info, warn or error.
	Level slog.Level `apply:"runtime" yaml:"level"`
	// Format is auto, text or json. Text is columns on a terminal and key=value
	// elsewhere. auto is text on a terminal and json elsewhere.
	Format string `apply:"restart" yaml:"format"`
	// Access logs every request, call and WebSocket when it has ended.
	Access bool `apply:"runtime" yaml:"access"`
}

// The values of Log.Format.
const (
	FormatAuto = humanlog.Auto
	FormatText = humanlog.Text
	FormatJSON = humanlog.JSON
)

var formats = []string{FormatAuto, FormatText, FormatJSON}

// Default returns the defaults.
func Default() *Settings {
	return &Settings{
		Mux:     mux.DefaultConfig(),
		Admin:   Admin{Address: DefaultAdmin},
		Log:     Log{Level: slog.LevelInfo, Format: FormatAuto},
		places:  make(map[string]int),
		origins: make(map[string]origin),
	}
}

// Warnings returns a sentence for each setting that is allowed but cannot work as
// intended.
func (s *Settings) Warnings() []string { return s.Mux.Drain.Warnings() }

// ConfigFile returns the name of the configuration file as given; empty if there is none.
func (s *Settings) ConfigFile() string { return s.file }

// Reload calls [Load] again with the same flags, environment and file. It does not change
// s.
func (s *Settings) Reload() (*Settings, error) { return load(s.inputs) }
