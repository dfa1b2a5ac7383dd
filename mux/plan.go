package mux

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/muxserve/muxserve/listeners"
)

// The values of [Change].Apply: how a key takes effect while the server runs. The tag apply
// of the key's field has it.
const (
	ApplyRuntime = "runtime" // at once, for open connections too where the key applies to them
	ApplyRestart = "restart" // new connections get a new listener or server; old ones end by themselves
)

// Change is one key that differs between two configurations.
type Change struct {
	// Path is the key, such as http1.max_age or listeners[0].tls.mode.
	Path string `json:"path"`
	// Old and New are the values. Old is empty for a new listener, New for one that is
	// removed. Secrets are hidden.
	Old string `json:"old"`
	New string `json:"new"`
	// Apply is ApplyRuntime or ApplyRestart, and How a sentence on its effect for this
	// key.
	Apply string `json:"apply"`
	How   string `json:"how"`
}

// MarshalJSON implements [json.Marshaler]. ApplyRestart is "new connections" in JSON: nothing
// restarts.
func (c Change) MarshalJSON() ([]byte, error) {
	type plain Change
	if c.Apply == ApplyRestart {
		c.Apply = "new connections"
	}
	return json.Marshal(plain(c))
}

// planOf returns the differences between two configurations.
func planOf(from, to *Config) []Change {
	p := new(planner)
	p.compareListeners(from.Listeners, to.Listeners)
	fv, tv := reflect.ValueOf(*from), reflect.ValueOf(*to)
	for i := range fv.NumField() {
		f := fv.Type().Field(i)
		if name := f.Tag.Get("yaml"); name != listenersKey && name != "-" {
			p.compare(name, "", fv.Field(i), tv.Field(i))
		}
	}
	return p.changes
}

const listenersKey = "listeners"

type planner struct{ changes []Change }

// compareListeners pairs listeners by address: a listener at another address is a new
// one.
func (p *planner) compareListeners(from, to []listeners.Config) {
	find := func(in []listeners.Config, address string) int {
		return slices.IndexFunc(in, func(c listeners.Config) bool { return c.Address == address })
	}
	for i, c := range to {
		path := fmt.Sprintf("%s[%d]", listenersKey, i)
		if old := find(from, c.Address); old >= 0 {
			p.compare(path, "", reflect.ValueOf(from[old].Shown()), reflect.ValueOf(c.Shown()))
			p.compareSecrets(path, from[old], c)
			continue
		}
		p.changes = append(p.changes, Change{Path: path + ".address", New: c.Address, Apply: ApplyRestart, How: "the address is bound before anything else changes"})
	}
	for i, c := range from {
		if find(to, c.Address) < 0 {
			p.changes = append(p.changes, Change{
				Path: fmt.Sprintf("%s[%d].address", listenersKey, i), Old: c.Address, Apply: ApplyRestart,
				How: "what the kernel has queued is served, the address is released, and its connections end by themselves",
			})
		}
	}
}

// compareSecrets finds changes of the values that Config.Shown hides.
func (p *planner) compareSecrets(path string, from, to listeners.Config) {
	for _, secret := range []struct{ key, apply, from, to string }{
		{"cert", ApplyRuntime, from.TLS.Cert, to.TLS.Cert},
		{"key", ApplyRuntime, from.TLS.Key, to.TLS.Key},
		{"key_passphrase", ApplyRuntime, from.TLS.KeyPassphrase, to.TLS.KeyPassphrase},
		{"client_ca", ApplyRestart, from.TLS.ClientCA, to.TLS.ClientCA},
		{"certificates", ApplyRuntime, fmt.Sprintf("%q", secretsOf(from.TLS)), fmt.Sprintf("%q", secretsOf(to.TLS))},
	} {
		path := path + ".tls." + secret.key
		known := slices.ContainsFunc(p.changes, func(c Change) bool { return c.Path == path })
		if secret.from != secret.to && !known {
			p.changes = append(p.changes, Change{path, "(hidden)", "(hidden)", secret.apply, how(path, secret.apply)})
		}
	}
}

// secretsOf returns what Config.Shown hides of a list of certificates.
func secretsOf(c listeners.TLSConfig) (all []string) {
	for _, one := range c.Certificates {
		all = append(all, one.Cert, one.Key, one.KeyPassphrase)
	}
	return all
}

// compare compares two values of a key or of a section.
func (p *planner) compare(path, apply string, from, to reflect.Value) {
	if from.Kind() != reflect.Struct {
		if !reflect.DeepEqual(from.Interface(), to.Interface()) {
			p.changes = append(p.changes, Change{path, text(from), text(to), apply, how(path, apply)})
		}
		return
	}
	for i := range from.NumField() {
		f := from.Type().Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case options == "inline":
			p.compare(path, "", from.Field(i), to.Field(i))
		case name != "" && name != "-":
			p.compare(path+"."+name, f.Tag.Get("apply"), from.Field(i), to.Field(i))
		}
	}
}

// text formats a value as in the configuration file.
func text(v reflect.Value) string {
	if m, ok := reflect.TypeAssert[encoding.TextMarshaler](v); ok {
		if b, err := m.MarshalText(); err == nil {
			return string(b)
		}
	}
	return fmt.Sprint(v.Interface())
}

// howRenewed is Change.How of certificates.
const howRenewed = "new handshakes meet what the files hold now"

// how returns Change.How.
func how(path, apply string) string {
	switch {
	case strings.HasPrefix(path, listenersKey) && apply == ApplyRuntime:
		return howRenewed
	case strings.HasPrefix(path, listenersKey):
		return "the socket stays; new connections are treated the new way, and the old ones are told to leave"
	case apply == ApplyRestart:
		return "a new server takes the new connections, and those of the old one are told to leave"
	default:
		return "takes effect at once"
	}
}

// needsBackend reports whether changes need new servers of the protocols.
func needsBackend(changes []Change) bool {
	return slices.ContainsFunc(changes, func(c Change) bool {
		return c.Apply == ApplyRestart && !strings.HasPrefix(c.Path, listenersKey)
	})
}
