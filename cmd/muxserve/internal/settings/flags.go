package settings

import (
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/protocols"
)

// envPrefix begins the name of every flag's environment variable.
const envPrefix = "MUXSERVE_"

// The groups of the flags, in the order in which the help shows them.
const (
	groupFiles   = "Files"
	groupListen  = "Listening"
	groupTLS     = "TLS"
	groupServing = "Serving"
	groupDrain   = "Drain"
	groupLog     = "Logging"
)

// option is a flag with its environment variable. Its key in the file decides what the
// flag sets and how its value is read. --config has no key.
type option struct {
	name        string
	group       string
	placeholder string
	key         string // as [Key.Path]; a flag with a key of listeners[] sets it in every listener
	help        string
	// choices are the possible values; nil where there are too many to list. With lenient
	// they only complete the command line, and validation judges the value.
	choices []string
	lenient bool
	files   cli.Files // for completion
	// list is true for a flag that may be given more than once. Its environment variable
	// separates the values by commas.
	list bool
	// check reports what is wrong with values that are well-formed; nil: nothing.
	check func(values []string) error
}

var configOption = option{
	name: "config", group: groupFiles, placeholder: "FILE", files: cli.AnyFile,
	help: "read the configuration from a YAML or JSON file; flags and their variables win over it",
}

// listenOption wins over the variables of hosting platforms.
var listenOption = option{
	name: "listen", group: groupListen, placeholder: "ADDR", key: listenersKey + ".address", list: true,
	help: "listen on HOST:PORT, unix:PATH, or fd:NAME for a socket of the service manager; may be given more than once. The first address replaces that of the file's first listener, and so on",
}

// profileOption chooses the defaults of the other keys of the drain.
var profileOption = option{
	name: "drain-profile", group: groupDrain, placeholder: "NAME", key: "drain.profile", choices: lifecycle.Profiles(),
	help: "k8s, haproxy or nlb: the balancer whose numbers are the drain's defaults",
}

// options are all flags. They are applied in this order, so that the flags of listeners
// set every listener that --listen has made.
var options = []option{
	configOption,
	listenOption,
	{name: "protocols", group: groupListen, placeholder: "LIST", key: listenersKey + ".protocols", list: true, check: checkProtocols,
		help: "serve only these, separated by commas: http1, http2, grpc, websocket"},
	{name: "proxy-protocol", group: groupListen, placeholder: "MODE", key: listenersKey + ".proxy_protocol.mode",
		choices: []string{listeners.ProxyOff, listeners.ProxyOptional, listeners.ProxyRequired},
		help:    "off, optional or required: whether balancers begin connections with a PROXY header, version 1 or 2"},
	{name: "proxy-trusted", group: groupListen, placeholder: "CIDR", key: listenersKey + ".proxy_protocol.trusted", list: true,
		help: "network or address of balancers that may send a PROXY header, or unix; may be given more than once"},
	{name: "admin", group: groupListen, placeholder: "ADDR", key: "admin.address", check: func(v []string) error { return checkAdmin(v[0]) },
		help: "serve the admin pages on HOST:PORT or unix:PATH; off for none"},
	{name: "admin-token", group: groupListen, placeholder: "TEXT", key: "admin.token",
		help: "bearer token of requests to the admin listener that change something and do not come from the loopback interface; better given by its environment variable"},
	{name: "tls", group: groupTLS, placeholder: "MODE", key: listenersKey + ".tls.mode",
		choices: []string{listeners.ModeOff, listeners.ModeSelfSigned, listeners.ModeAuto, listeners.ModeManual, listeners.ModeMutual},
		help:    "off, self-signed, auto, manual or mutual; auto where a certificate is given"},
	{name: "tls-cert", group: groupTLS, placeholder: "PEM", key: listenersKey + ".tls.cert", files: cli.AnyFile,
		help: "certificate chain, a file or the PEM text itself"},
	{name: "tls-key", group: groupTLS, placeholder: "PEM", key: listenersKey + ".tls.key", files: cli.AnyFile,
		help: "private key of the certificate, a file or the PEM text itself"},
	{name: "tls-client-ca", group: groupTLS, placeholder: "PEM", key: listenersKey + ".tls.client_ca", files: cli.AnyFile,
		help: "certificates that client certificates must lead to, a file or the PEM text itself; for --tls mutual"},
	{name: "tls-key-passphrase", group: groupTLS, placeholder: "TEXT", key: listenersKey + ".tls.key_passphrase",
		help: "passphrase of an encrypted key; better given by its environment variable; for --tls manual and mutual"},
	{name: "tls-min-version", group: groupTLS, placeholder: "VERSION", key: listenersKey + ".tls.min_version", lenient: true,
		choices: []string{"1.2", "1.3"},
		help:    "1.2 or 1.3; for --tls manual and mutual"},
	{name: "tls-client-auth", group: groupTLS, placeholder: "POLICY", key: listenersKey + ".tls.client_auth", lenient: true,
		choices: []string{"none", "request", "require", "verify-if-given", "require-and-verify"},
		help:    "none, request, require, verify-if-given or require-and-verify; for --tls manual and mutual"},
	{name: "tls-ticket-keys", group: groupTLS, placeholder: "FILE", key: listenersKey + ".tls.ticket_keys", files: cli.AnyFile,
		help: "session ticket keys that all replicas share, one a line, the first encrypts; for --tls manual and mutual"},
	{name: "tls-optional", group: groupTLS, key: listenersKey + ".tls.optional",
		help: "serve plaintext on the same port as well; for --tls self-signed, manual and mutual"},
	{name: "watch", group: groupFiles, key: "watch",
		help: "check every second whether the configuration file, certificates, keys or ticket keys have changed, and reload them"},
	{name: "http2-upgrade-h2c", group: groupServing, key: "http2.upgrade_h2c",
		help: "let clients turn HTTP/1.1 connections without TLS into HTTP/2 ones by Upgrade: h2c, which RFC 9113 has removed"},
	{name: "http2-websocket", group: groupServing, key: "http2.websocket",
		help: "let clients open WebSockets on streams of an HTTP/2 connection (RFC 8441); restarts the process with GODEBUG set for it"},
	{name: "ws-read-limit", group: groupServing, placeholder: "BYTES", key: "websocket.read_limit", check: checkReadLimit,
		help: "close a WebSocket with 1009 when a message is longer; -1 for no limit"},
	{name: "grpc-transport", group: groupServing, placeholder: "NAME", key: "grpc.transport",
		choices: []string{string(protocols.TransportAuto), string(protocols.TransportNative), string(protocols.TransportShared)},
		help:    "auto, native or shared: which connections grpc-go serves by its own HTTP/2"},
	{name: "static", group: groupServing, placeholder: "DIR", key: "static", files: cli.Directory, check: func(v []string) error { return checkDirectory(v[0]) },
		help: "serve the files of a directory under /static/"},
	profileOption,
	{name: "drain-delay", group: groupDrain, placeholder: "TIME", key: "drain.delay",
		help: "how long a balancer gets to notice a drain; new connections are served meanwhile"},
	{name: "drain-timeout", group: groupDrain, placeholder: "TIME", key: "drain.timeout",
		help: "how long after its start a drain begins to cut connections"},
	{name: "drain-spread", group: groupDrain, placeholder: "TIME", key: "drain.spread",
		help: "time over which clients are told to leave, so that they do not all reconnect at once"},
	{name: "log-format", group: groupLog, placeholder: "FORMAT", key: "log.format", choices: formats,
		help: "auto, text or json; auto is text on a terminal, and json elsewhere"},
	{name: "log-level", group: groupLog, placeholder: "LEVEL", key: "log.level", choices: levels,
		help: "debug, info, warn or error"},
	{name: "access-log", group: groupLog, key: "log.access",
		help: "log every request, call and WebSocket when it has ended"},
}

// flag returns the option's flag as a user writes it.
func (o option) flag() string { return "--" + o.name }

// env returns the name of the option's environment variable.
func (o option) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(o.name, "-", "_"))
}

// apply stores the values of a flag. Its error reads well after the flag's name; what is
// wrong is stored as a zero.
func (o option) apply(s *Settings, values []string) error {
	if o.name == listenOption.name {
		return setListeners(s, values)
	}
	at := slices.IndexFunc(allKeys(), func(k Key) bool { return k.Path == o.key })
	parsed := reflect.New(allKeys()[at].Type).Elem()
	err := o.parse(parsed, values)
	for _, path := range s.paths(o.key) {
		s.field(path).Set(parsed)
	}
	if err == nil && o.check != nil {
		err = o.check(values)
	}
	return err
}

// parse stores values in v.
func (o option) parse(v reflect.Value, values []string) error {
	text, choices := values[0], o.choices
	switch kindOf(v.Type()) {
	case kindTexts:
		v.Set(reflect.ValueOf(splitList(values)))
		return nil
	case kindBool:
		choices = []string{"true", "false"}
		v.SetBool(text == "true")
	case kindLevel:
		text = strings.ToLower(text)
	case kindDuration:
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			return fmt.Errorf("%q is not a length of time such as 500ms, 30s or 1m30s", text)
		}
		v.SetInt(int64(d))
	}
	if choices != nil && !o.lenient {
		if err := oneOf(text, choices); err != nil {
			return err
		}
	}
	switch p := v.Addr().Interface().(type) {
	case *slog.Level:
		return p.UnmarshalText([]byte(text))
	case *int64:
		*p, _ = strconv.ParseInt(text, 10, 64) // Its check reports an error.
	default:
		if v.Kind() == reflect.String {
			v.SetString(text)
		}
	}
	return nil
}

// field returns the value of the key at a path, which must exist.
func (s *Settings) field(path string) reflect.Value {
	v := reflect.ValueOf(s).Elem()
	for name := range strings.SplitSeq(path, ".") {
		name, index, listed := strings.Cut(strings.TrimSuffix(name, "]"), "[")
		fields := fieldsOf(v.Type())
		at := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
		v = v.FieldByIndex(fields[at].path)
		if listed {
			i, _ := strconv.Atoi(index)
			v = v.Index(i)
		}
	}
	return v
}

// splitList splits the values at commas and drops empty elements.
func splitList(values []string) []string {
	var elements []string
	for element := range strings.SplitSeq(strings.Join(values, ","), ",") {
		if element = strings.TrimSpace(element); element != "" {
			elements = append(elements, element)
		}
	}
	return elements
}

func oneOf(value string, allowed []string) error {
	if !slices.Contains(allowed, value) {
		return fmt.Errorf("%q is not one of %s", value, strings.Join(allowed, ", "))
	}
	return nil
}

// Flags returns the declarations of all flags, with their defaults.
func Flags() []cli.Flag {
	defaults := make(map[string]string)
	for _, k := range allKeys() {
		defaults[k.Path] = k.Default
	}
	flags := make([]cli.Flag, len(options))
	for i, o := range options {
		f := cli.Flag{
			Name: o.name, Group: o.group, Value: o.placeholder, Help: o.help, Key: o.key,
			Default: defaults[o.key], Env: o.env(), Choices: o.choices, Files: o.files,
		}
		if f.Default == quote("") {
			f.Default = ""
		}
		if o.list {
			f.Default = strings.TrimSuffix(strings.TrimPrefix(f.Default, "["), "]")
		}
		flags[i] = f
	}
	return flags
}
