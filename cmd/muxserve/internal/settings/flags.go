package settings

import (
	"strings"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
	"github.com/muxserve/muxserve/lifecycle"
)

// envPrefix begins the name of every flag's environment variable.
const envPrefix = "MUXSERVE_"

// The groups of the flags, in the order in which they are shown.
const (
	groupFiles   = "Files"
	groupListen  = "Listening"
	groupTLS     = "TLS"
	groupServing = "Serving"
	groupDrain   = "Drain"
	groupLog     = "Logging"
)

// listenOption is the flag that the platform's variables give way to.
const listenOption = "listen"

// option is one flag with its environment variable and what it sets.
type option struct {
	name        string
	group       string
	placeholder string
	help        string
	// choices are the values that there are; nil if there are too many to list.
	choices []string
	// files says which files a value may name, for completion.
	files cli.Files
	// key is the key of the file that it wins over, as [Key.Path] has it.
	key string
	// list is true for a flag that may be given more than once; its environment
	// variable separates the values by commas.
	list bool
	// set stores the value, or all values where list is true. Its error
	// says what the value is not, so that it reads well after the name and the value. It is nil for
	// [configOption], which says where the file is.
	set func(s *Settings, values []string) error
}

// configOption names the configuration file.
var configOption = option{
	name: "config", group: groupFiles, placeholder: "FILE", files: cli.AnyFile,
	help: "read the configuration from a YAML or JSON file; flags and their variables win over it",
}

// profileOption names what the drain's defaults are for.
var profileOption = option{
	name: "drain-profile", group: groupDrain, placeholder: "NAME", key: "drain.profile", choices: lifecycle.Profiles(),
	help: "k8s, haproxy or nlb: the balancer whose numbers are the drain's defaults",
	set:  setDrainProfile,
}

// options declares every flag. They are applied in this order: the TLS and PROXY options,
// and the protocols, bear on all the listeners that --listen made.
var options = []option{
	configOption,
	{
		name: "listen", group: groupListen, placeholder: "ADDR", key: "listeners[].address", list: true,
		help: "listen on HOST:PORT, unix:PATH, or fd:NAME for a socket of the service manager; may be given more than once. The first address replaces that of the file's first listener, and so on",
		set:  setListeners,
	},
	{
		name: "protocols", group: groupListen, placeholder: "LIST", key: "listeners[].protocols", list: true,
		help: "serve these alone, separated by commas: http1, http2, grpc, websocket",
		set:  setProtocols,
	},
	{
		name: "proxy-protocol", group: groupListen, placeholder: "MODE", key: "listeners[].proxy_protocol.mode",
		help:    "off, optional or required: whether balancers begin connections with a PROXY header, version 1 or 2",
		choices: proxyModes,
		set:     setProxyMode,
	},
	{
		name: "proxy-trusted", group: groupListen, placeholder: "CIDR", key: "listeners[].proxy_protocol.trusted", list: true,
		help: "network or address of balancers that may send a PROXY header, or unix; may be given more than once",
		set:  setProxyTrusted,
	},
	{
		name: "admin", group: groupListen, placeholder: "ADDR", key: "admin.address",
		help: "serve the admin pages on HOST:PORT or unix:PATH; off for none",
		set:  setAdmin,
	},
	{
		name: "admin-token", group: groupListen, placeholder: "TEXT", key: "admin.token",
		help: "bearer token of requests to the admin listener that change something and do not come from the loopback interface; better given by its environment variable",
		set:  setAdminToken,
	},
	{
		name: "tls", group: groupTLS, placeholder: "MODE", key: "listeners[].tls.mode",
		help: "off, self-signed, auto, manual or mutual; auto where a certificate is given", choices: tlsModes,
		set: setTLSMode,
	},
	{
		name: "tls-cert", group: groupTLS, placeholder: "PEM", files: cli.AnyFile, key: "listeners[].tls.cert",
		help: "certificate chain, a file or the PEM text itself",
		set:  setTLSCert,
	},
	{
		name: "tls-key", group: groupTLS, placeholder: "PEM", files: cli.AnyFile, key: "listeners[].tls.key",
		help: "private key of the certificate, a file or the PEM text itself",
		set:  setTLSKey,
	},
	{
		name: "tls-client-ca", group: groupTLS, placeholder: "PEM", files: cli.AnyFile, key: "listeners[].tls.client_ca",
		help: "what client certificates must lead to, a file or the PEM text itself; for --tls mutual",
		set:  setTLSClientCA,
	},
	{
		name: "tls-key-passphrase", group: groupTLS, placeholder: "TEXT", key: "listeners[].tls.key_passphrase",
		help: "passphrase of an encrypted key; better given by its environment variable; for --tls manual and mutual",
		set:  setTLSKeyPassphrase,
	},
	{
		name: "tls-min-version", group: groupTLS, placeholder: "VERSION", key: "listeners[].tls.min_version",
		help: "1.2 or 1.3; for --tls manual and mutual", choices: []string{"1.2", "1.3"},
		set: setTLSMinVersion,
	},
	{
		name: "tls-client-auth", group: groupTLS, placeholder: "POLICY", key: "listeners[].tls.client_auth",
		help:    "none, request, require, verify-if-given or require-and-verify; for --tls manual and mutual",
		choices: []string{"none", "request", "require", "verify-if-given", "require-and-verify"},
		set:     setTLSClientAuth,
	},
	{
		name: "tls-ticket-keys", group: groupTLS, placeholder: "FILE", files: cli.AnyFile, key: "listeners[].tls.ticket_keys",
		help: "session ticket keys that all replicas share, one a line, the first encrypts; for --tls manual and mutual",
		set:  setTLSTicketKeys,
	},
	{
		name: "tls-optional", group: groupTLS, key: "listeners[].tls.optional",
		help: "serve plaintext on the same port as well; for --tls self-signed, manual and mutual",
		set:  setTLSOptional,
	},
	{
		name: "watch", group: groupFiles, key: "watch",
		help: "look every second whether the configuration file, certificates, keys or ticket keys have changed, and take the new ones into use",
		set:  setWatch,
	},
	{
		name: "http2-upgrade-h2c", group: groupServing, key: "http2.upgrade_h2c",
		help: "let clients turn HTTP/1.1 connections without TLS into HTTP/2 ones by Upgrade: h2c, which RFC 9113 has given up",
		set:  setUpgradeH2C,
	},
	{
		name: "http2-websocket", group: groupServing, key: "http2.websocket",
		help: "let clients open WebSockets on streams of an HTTP/2 connection (RFC 8441); restarts the process with GODEBUG set for it",
		set:  setHTTP2WebSocket,
	},
	{
		name: "ws-read-limit", group: groupServing, placeholder: "BYTES", key: "websocket.read_limit",
		help: "close a WebSocket with 1009 when a message is longer; -1 for no limit",
		set:  setReadLimit,
	},
	{
		name: "grpc-transport", group: groupServing, placeholder: "NAME", key: "grpc.transport",
		help: "auto, native or shared: which connections grpc-go serves by its own HTTP/2", choices: transports,
		set: setGRPCTransport,
	},
	{
		name: "static", group: groupServing, placeholder: "DIR", files: cli.Directory, key: "static",
		help: "serve the files of a directory under /static/",
		set:  setStatic,
	},
	profileOption,
	{
		name: "drain-delay", group: groupDrain, placeholder: "TIME", key: "drain.delay",
		help: "how long a balancer gets to notice a drain; new connections are served meanwhile",
		set:  setDrainDelay,
	},
	{
		name: "drain-timeout", group: groupDrain, placeholder: "TIME", key: "drain.timeout",
		help: "how long after its start a drain begins to cut connections",
		set:  setDrainTimeout,
	},
	{
		name: "drain-spread", group: groupDrain, placeholder: "TIME", key: "drain.spread",
		help: "over which time clients are told to leave, so that they do not all come back in the same moment",
		set:  setDrainSpread,
	},
	{
		name: "log-format", group: groupLog, placeholder: "FORMAT", key: "log.format",
		help: "auto, text or json; auto is text on a terminal, and json elsewhere", choices: formats,
		set: setLogFormat,
	},
	{
		name: "log-level", group: groupLog, placeholder: "LEVEL", key: "log.level",
		help: "debug, info, warn or error", choices: levels,
		set: setLogLevel,
	},
	{
		name: "access-log", group: groupLog, key: "log.access",
		help: "log every request, call and WebSocket when it has ended",
		set:  setLogAccess,
	},
}

// flag returns the option's flag as a user writes it.
func (o option) flag() string { return "--" + o.name }

// env returns the name of the option's environment variable.
func (o option) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(o.name, "-", "_"))
}

// Flags returns the declarations of all flags, with their defaults.
func Flags() []cli.Flag {
	defaults := make(map[string]string)
	for _, k := range Keys() {
		defaults[k.Path] = k.Default
	}
	flags := make([]cli.Flag, len(options))
	for i, o := range options {
		f := cli.Flag{
			Name: o.name, Group: o.group, Value: o.placeholder, Help: o.help,
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

// Flag is a flag of [Flags] and the key of the file that it wins over; empty for
// --config, which is not in the file.
type Flag struct {
	cli.Flag

	Key string
}

// KeyedFlags returns all flags with their keys.
func KeyedFlags() []Flag {
	keyed := make([]Flag, len(options))
	for i, f := range Flags() {
		keyed[i] = Flag{Flag: f, Key: options[i].key}
	}
	return keyed
}
