// Package settings is what muxserve can be told: its flags, their environment
// variables, and the configuration that comes of them.
package settings

import (
	"log/slog"

	"github.com/muxserve/muxserve/mux"
)

// DefaultAdmin is where the admin listener is by default: on the loopback
// interface, because it shows who is connected and serves profiles.
const DefaultAdmin = "127.0.0.1:8081"

// Off is the admin address that stands for no admin listener.
const Off = "off"

// Settings is everything that muxserve can be told. The yaml tags are the names
// under which it is shown.
type Settings struct {
	// Mux configures the server on the service port.
	Mux mux.Config `yaml:",inline"`
	// Admin configures the admin listener.
	Admin Admin `yaml:"admin"`
	// Static is the directory that is served under /static/; none if empty.
	Static string `yaml:"static"`
	// Watch says that the files of certificates and keys are looked at for changes.
	Watch bool `yaml:"watch"`
	Log   Log  `yaml:"log"`

	// sources says, by key, what set it; a key that is missing has its default.
	sources map[string]string
}

// Admin configures the admin listener.
type Admin struct {
	// Address is HOST:PORT, unix:PATH or [Off].
	Address string `yaml:"address"`
}

// Log configures what is logged and how.
type Log struct {
	Level slog.Level `yaml:"level"`
	// Format is [FormatText] or [FormatJSON].
	Format string `yaml:"format"`
}

// The values of Log.Format.
const (
	FormatText = "text"
	FormatJSON = "json"
)

// Default returns the settings of a muxserve that was told nothing.
func Default() *Settings {
	return &Settings{
		Mux:     mux.DefaultConfig(),
		Admin:   Admin{Address: DefaultAdmin},
		Log:     Log{Level: slog.LevelInfo, Format: FormatText},
		sources: make(map[string]string),
	}
}

// Warnings returns what is allowed but cannot work as it is meant, each as a
// sentence.
func (s *Settings) Warnings() []string { return s.Mux.Drain.Warnings() }
