package settings

import (
	"strings"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
)

// envPrefix begins the name of every flag's environment variable.
const envPrefix = "MUXSERVE_"

// option is one flag with its environment variable and what it sets.
type option struct {
	name        string
	placeholder string
	help        string
	// key is the path of the setting that it sets, as [Settings.Write] shows it.
	key string
	// list is true for a flag that may be given more than once; its environment
	// variable separates the values by commas.
	list bool
	// set stores the value, or all values where list is true. Its error
	// says what the value is not, so that it reads well after the name and the value.
	set func(s *Settings, values []string) error
}

// options declares every flag. They are applied in this order: the TLS and PROXY options,
// and the protocols, bear on all the listeners that --listen made.
var options = []option{
	{
		name: "listen", placeholder: "ADDR", key: "listeners.address", list: true,
		help: "listen on HOST:PORT or unix:PATH; may be given more than once",
		set:  setListeners,
	},
	{
		name: "protocols", placeholder: "LIST", key: "listeners.protocols", list: true,
		help: "serve these alone, separated by commas: http1, http2, grpc, websocket",
		set:  setProtocols,
	},
	{
		name: "proxy-protocol", placeholder: "MODE", key: "listeners.proxy_protocol.mode",
		help: "off, optional or required: whether balancers begin connections with a PROXY header, version 1 or 2",
		set:  setProxyMode,
	},
	{
		name: "proxy-trusted", placeholder: "CIDR", key: "listeners.proxy_protocol.trusted", list: true,
		help: "network or address of balancers that may send a PROXY header, or unix; may be given more than once",
		set:  setProxyTrusted,
	},
	{
		name: "admin", placeholder: "ADDR", key: "admin.address",
		help: "serve the admin pages on HOST:PORT or unix:PATH; off for none",
		set:  setAdmin,
	},
	{
		name: "tls", placeholder: "MODE", key: "listeners.tls.mode",
		help: "off, self-signed, auto, manual or mutual; auto where a certificate is given",
		set:  setTLSMode,
	},
	{
		name: "tls-cert", placeholder: "PEM", key: "listeners.tls.cert",
		help: "certificate chain, a file or the PEM text itself",
		set:  setTLSCert,
	},
	{
		name: "tls-key", placeholder: "PEM", key: "listeners.tls.key",
		help: "private key of the certificate, a file or the PEM text itself",
		set:  setTLSKey,
	},
	{
		name: "tls-client-ca", placeholder: "PEM", key: "listeners.tls.client_ca",
		help: "what client certificates must lead to, a file or the PEM text itself; for --tls mutual",
		set:  setTLSClientCA,
	},
	{
		name: "tls-key-passphrase", placeholder: "TEXT", key: "listeners.tls.key_passphrase",
		help: "passphrase of an encrypted key; better given by its environment variable; for --tls manual and mutual",
		set:  setTLSKeyPassphrase,
	},
	{
		name: "tls-min-version", placeholder: "VERSION", key: "listeners.tls.min_version",
		help: "1.2 or 1.3; for --tls manual and mutual",
		set:  setTLSMinVersion,
	},
	{
		name: "tls-client-auth", placeholder: "POLICY", key: "listeners.tls.client_auth",
		help: "none, request, require, verify-if-given or require-and-verify; for --tls manual and mutual",
		set:  setTLSClientAuth,
	},
	{
		name: "tls-ticket-keys", placeholder: "FILE", key: "listeners.tls.ticket_keys",
		help: "session ticket keys that all replicas share, one a line, the first encrypts; for --tls manual and mutual",
		set:  setTLSTicketKeys,
	},
	{
		name: "tls-optional", key: "listeners.tls.optional",
		help: "serve plaintext on the same port as well; for --tls self-signed, manual and mutual",
		set:  setTLSOptional,
	},
	{
		name: "watch", key: "watch",
		help: "look every second whether certificates, keys or ticket keys have changed, and take the new ones into use",
		set:  setWatch,
	},
	{
		name: "http2-upgrade-h2c", key: "http2.upgrade_h2c",
		help: "let clients turn HTTP/1.1 connections without TLS into HTTP/2 ones by Upgrade: h2c, which RFC 9113 has given up",
		set:  setUpgradeH2C,
	},
	{
		name: "http2-websocket", key: "http2.websocket",
		help: "let clients open WebSockets on streams of an HTTP/2 connection (RFC 8441); restarts the process with GODEBUG set for it",
		set:  setHTTP2WebSocket,
	},
	{
		name: "ws-read-limit", placeholder: "BYTES", key: "websocket.read_limit",
		help: "close a WebSocket with 1009 when a message is longer; -1 for no limit",
		set:  setReadLimit,
	},
	{
		name: "grpc-transport", placeholder: "NAME", key: "grpc.transport",
		help: "auto, native or shared: which connections grpc-go serves by its own HTTP/2",
		set:  setGRPCTransport,
	},
	{
		name: "static", placeholder: "DIR", key: "static",
		help: "serve the files of a directory under /static/",
		set:  setStatic,
	},
	{
		name: "drain-delay", placeholder: "TIME", key: "drain.delay",
		help: "how long a balancer gets to notice a drain; new connections are served meanwhile",
		set:  setDrainDelay,
	},
	{
		name: "drain-timeout", placeholder: "TIME", key: "drain.timeout",
		help: "how long after its start a drain begins to cut connections",
		set:  setDrainTimeout,
	},
	{
		name: "log-format", placeholder: "FORMAT", key: "log.format",
		help: "text or json",
		set:  setLogFormat,
	},
	{
		name: "log-level", placeholder: "LEVEL", key: "log.level",
		help: "debug, info, warn or error",
		set:  setLogLevel,
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
	defaults := Default().values()
	flags := make([]cli.Flag, len(options))
	for i, o := range options {
		flags[i] = cli.Flag{Name: o.name, Value: o.placeholder, Help: o.help, Default: defaults[o.key]}
		if flags[i].Default == quote("") {
			flags[i].Default = ""
		}
		if o.list {
			flags[i].Default = strings.TrimSuffix(strings.TrimPrefix(flags[i].Default, "["), "]")
		}
	}
	return flags
}
