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
// flag sets and how its value is read; a key of listeners[] is set in every listener.
// --config has no key.
type option struct {
	cli.Flag

	// lenient says that Choices only complete the command line, and validation judges the
	// value.
	lenient bool
	// list is true for a flag that may be given more than once. Its environment variable
	// separates the values by commas.
	list bool
	// check reports what is wrong with values that are well-formed; nil: nothing.
	check func(values []string) error
}

var configOption = option{Flag: cli.Flag{
	Name: "config", Group: groupFiles, Value: "FILE", Files: cli.AnyFile,
	Help: "read the configuration from a YAML or JSON file; flags and their variables win over it",
}}

// listenOption wins over the variables of hosting platforms.
var listenOption = option{Flag: cli.Flag{
	Name: "listen", Group: groupListen, Value: "ADDR", Key: listenersKey + ".address",
	Help: "listen on HOST:PORT, unix:PATH, or fd:NAME for the service manager's sockets of that name; 0.0.0.0 is IPv4 alone; may be given more than once. The first address replaces that of the file's first listener, and so on",
}, list: true}

// profileOption chooses the defaults of the bounds.
var profileOption = option{Flag: cli.Flag{
	Name: "profile", Group: groupServing, Value: "NAME", Key: "profile", Choices: []string{profileEdge},
	Help: "edge: stricter bounds, for a port that strangers reach",
}}

// drainProfileOption chooses the defaults of the other keys of the drain.
var drainProfileOption = option{Flag: cli.Flag{
	Name: "drain-profile", Group: groupDrain, Value: "NAME", Key: "drain.profile", Choices: lifecycle.Profiles(),
	Help: "k8s, haproxy, nlb or none: the balancer whose numbers are the drain's defaults",
}}

// options are all flags. They are applied in this order, so that the flags of listeners
// set every listener that --listen has made.
var options = []option{
	configOption,
	listenOption,
	{Flag: cli.Flag{Name: "protocols", Group: groupListen, Value: "LIST", Key: listenersKey + ".protocols",
		Help: "serve only these, separated by commas: http1, http2, grpc, websocket"}, list: true, check: checkProtocols},
	{Flag: cli.Flag{Name: "proxy-protocol", Group: groupListen, Value: "MODE", Key: listenersKey + ".proxy_protocol.mode",
		Choices: []string{listeners.ProxyOff, listeners.ProxyOptional, listeners.ProxyRequired},
		Help:    "off, optional or required: whether balancers begin connections with a PROXY header, version 1 or 2"}},
	{Flag: cli.Flag{Name: "proxy-trusted", Group: groupListen, Value: "CIDR", Key: listenersKey + ".proxy_protocol.trusted",
		Help: "network or address of balancers that may send a PROXY header, or unix; may be given more than once"}, list: true},
	{Flag: cli.Flag{Name: "admin", Group: groupListen, Value: "ADDR", Key: "admin.address",
		Help: "serve the admin pages on HOST:PORT or unix:PATH; off for none"}, check: func(v []string) error { return checkAdmin(v[0]) }},
	{Flag: cli.Flag{Name: "admin-token", Group: groupListen, Value: "TEXT", Key: "admin.token",
		Help: "bearer token that a request to the admin listener needs to change something; better given by its environment variable"}},
	{Flag: cli.Flag{Name: "admin-token-file", Group: groupListen, Value: "FILE", Key: "admin.token_file", Files: cli.AnyFile, Rare: true,
		Help: "file with that token; a reload reads it again"}},
	{Flag: cli.Flag{Name: "admin-protect", Group: groupListen, Value: "WHAT", Key: "admin.protect", Choices: protections, Rare: true,
		Help: "writes or all: what that token is for; with all, for everything but /livez, /readyz and the page itself"}},
	{Flag: cli.Flag{Name: "admin-hosts", Group: groupListen, Value: "NAMES", Key: "admin.hosts", Rare: true,
		Help: "more names by which the admin listener may be asked for, separated by commas"}, list: true},
	{Flag: cli.Flag{Name: "tls", Group: groupTLS, Value: "MODE", Key: listenersKey + ".tls.mode",
		Choices: []string{listeners.ModeOff, listeners.ModeSelfSigned, listeners.ModeAuto, listeners.ModeManual, listeners.ModeMutual},
		Help:    "off, self-signed, auto, manual or mutual; auto where a certificate is given"}},
	{Flag: cli.Flag{Name: "tls-cert", Group: groupTLS, Value: "PEM", Key: listenersKey + ".tls.cert", Files: cli.AnyFile,
		Help: "certificate chain, a file or the PEM text itself"}},
	{Flag: cli.Flag{Name: "tls-key", Group: groupTLS, Value: "PEM", Key: listenersKey + ".tls.key", Files: cli.AnyFile,
		Help: "private key of the certificate, a file or the PEM text itself"}},
	{Flag: cli.Flag{Name: "tls-client-ca", Group: groupTLS, Value: "PEM", Key: listenersKey + ".tls.client_ca", Files: cli.AnyFile,
		Help: "certificates that client certificates must lead to, a file or the PEM text itself; for --tls mutual"}},
	{Flag: cli.Flag{Name: "tls-key-passphrase", Group: groupTLS, Value: "TEXT", Rare: true, Key: listenersKey + ".tls.key_passphrase",
		Help: "passphrase of an encrypted key; better given by its environment variable; for --tls manual and mutual"}},
	{Flag: cli.Flag{Name: "tls-key-passphrase-file", Group: groupTLS, Value: "FILE", Key: listenersKey + ".tls.key_passphrase_file", Files: cli.AnyFile, Rare: true,
		Help: "file with that passphrase; a reload reads it again"}},
	{Flag: cli.Flag{Name: "tls-min-version", Group: groupTLS, Value: "VERSION", Key: listenersKey + ".tls.min_version",
		Choices: []string{"1.2", "1.3"},
		Help:    "1.2 or 1.3; for --tls manual and mutual"}, lenient: true},
	{Flag: cli.Flag{Name: "tls-client-auth", Group: groupTLS, Value: "POLICY", Key: listenersKey + ".tls.client_auth",
		Choices: []string{"none", "request", "require", "verify-if-given", "require-and-verify"},
		Help:    "none, request, require, verify-if-given or require-and-verify; for --tls manual and mutual"}, lenient: true},
	{Flag: cli.Flag{Name: "tls-ticket-keys", Group: groupTLS, Value: "FILE", Rare: true, Key: listenersKey + ".tls.ticket_keys", Files: cli.AnyFile,
		Help: "session ticket keys that all replicas share, one a line, the first encrypts; for --tls manual and mutual"}},
	{Flag: cli.Flag{Name: "tls-optional", Group: groupTLS, Key: listenersKey + ".tls.optional",
		Help: "serve plaintext on the same port as well; for --tls self-signed, manual and mutual"}},
	{Flag: cli.Flag{Name: "watch", Group: groupFiles, Key: "watch",
		Help: "check every second whether the configuration file, certificates, keys or ticket keys have changed, and reload them"}},
	profileOption,
	{Flag: cli.Flag{Name: "http2-upgrade-h2c", Group: groupServing, Key: "http2.upgrade_h2c", Rare: true,
		Help: "let clients turn HTTP/1.1 connections without TLS into HTTP/2 ones by Upgrade: h2c, which RFC 9113 has removed"}},
	{Flag: cli.Flag{Name: "http2-websocket", Group: groupServing, Key: "http2.websocket",
		Help: "let clients open WebSockets on streams of an HTTP/2 connection (RFC 8441); restarts the process with GODEBUG set for it"}},
	{Flag: cli.Flag{Name: "ws-read-limit", Group: groupServing, Value: "BYTES", Key: "websocket.read_limit",
		Help: "close a WebSocket with 1009 when a message is longer; -1 for no limit"}, check: checkReadLimit},
	{Flag: cli.Flag{Name: "ws-idle-timeout", Group: groupServing, Value: "TIME", Key: "websocket.idle_timeout",
		Help: "close a WebSocket with 1001 when it has exchanged no message for so long; 0 for no limit"}},
	{Flag: cli.Flag{Name: "grpc-transport", Group: groupServing, Value: "NAME", Key: "grpc.transport",
		Choices: []string{string(protocols.TransportAuto), string(protocols.TransportNative), string(protocols.TransportShared)},
		Help:    "auto, native or shared: which connections grpc-go serves by its own HTTP/2"}},
	{Flag: cli.Flag{Name: "static", Group: groupServing, Value: "DIR", Key: "static", Files: cli.Directory,
		Help: "serve the files of a directory under /static/"}, check: func(v []string) error { return checkDirectory(v[0]) }},
	{Flag: cli.Flag{Name: "static-listings", Group: groupServing, Key: "static_listings", Rare: true,
		Help: "show the names in directories of --static that have no index.html"}},
	{Flag: cli.Flag{Name: "static-dot-files", Group: groupServing, Key: "static_dot_files", Rare: true,
		Help: "serve files of --static whose name or directory begins with a dot, too"}},
	drainProfileOption,
	{Flag: cli.Flag{Name: "drain-delay", Group: groupDrain, Value: "TIME", Key: "drain.delay",
		Help: "how long a balancer gets to notice a drain; new connections are served meanwhile"}},
	{Flag: cli.Flag{Name: "drain-timeout", Group: groupDrain, Value: "TIME", Key: "drain.timeout",
		Help: "how long after its start a drain begins to cut connections"}},
	{Flag: cli.Flag{Name: "drain-spread", Group: groupDrain, Value: "TIME", Key: "drain.spread",
		Help: "time over which clients are told to leave, so that they do not all reconnect at once"}},
	{Flag: cli.Flag{Name: "log-format", Group: groupLog, Value: "FORMAT", Key: "log.format", Choices: formats,
		Help: "auto, text or json; auto is text on a terminal, and json elsewhere"}},
	{Flag: cli.Flag{Name: "log-level", Group: groupLog, Value: "LEVEL", Key: "log.level", Choices: levels,
		Help: "debug, info, warn or error"}},
	{Flag: cli.Flag{Name: "access-log", Group: groupLog, Key: "log.access",
		Help: "log every request, call and WebSocket when it has ended"}},
}

// flag returns the option's flag as a user writes it.
func (o option) flag() string { return "--" + o.Name }

// env returns the name of the option's environment variable.
func (o option) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(o.Name, "-", "_"))
}

// apply stores the values of a flag. Its error reads well after the flag's name; what is
// wrong is stored as a zero.
func (o option) apply(s *Settings, values []string) error {
	if o.Name == listenOption.Name {
		return setListeners(s, values)
	}
	at := slices.IndexFunc(allKeys(), func(k Key) bool { return k.Path == o.Key })
	parsed := reflect.New(allKeys()[at].Type).Elem()
	err := o.parse(parsed, values)
	for _, path := range s.paths(o.Key) {
		s.field(path).Set(parsed)
	}
	if err == nil && o.check != nil {
		err = o.check(values)
	}
	return err
}

// parse stores values in v.
func (o option) parse(v reflect.Value, values []string) error {
	text, choices := values[0], o.Choices
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
	flags := make([]cli.Flag, len(options))
	for i, o := range options {
		f := o.Flag
		f.Env = o.env()
		if at := slices.IndexFunc(allKeys(), func(k Key) bool { return k.Path == o.Key }); at >= 0 {
			f.Default = allKeys()[at].Default
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
