package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/muxserve/muxserve/listeners"
)

// hint is a command that tries a protocol. It is printed for listeners that serve all
// protocols in needs.
type hint struct {
	protocol, command string
	needs             []string
	// plain says that the client cannot send a PROXY header.
	plain bool
}

// printAddress prints an address of the server, and with hints how to try each of its
// protocols there.
func printAddress(w io.Writer, addr net.Addr, c listeners.Config, withHints bool) {
	c = c.Shown()
	required := c.ProxyProtocol.Mode == listeners.ProxyRequired
	var all []hint
	var names []string
	for _, h := range hints(addr, c) {
		missing := func(protocol string) bool { return !slices.Contains(c.Protocols, protocol) }
		if slices.ContainsFunc(h.needs, missing) {
			continue
		}
		if !required || !h.plain && c.ProxyProtocol.Trusts(client(addr)) {
			all = append(all, h)
		}
		if len(h.needs) == 1 {
			names = append(names, h.protocol)
		}
	}
	fmt.Fprintf(w, "muxserve: %s on %s\n", list(names), shownAddress(addr, c.TLS.Mode))
	if !withHints {
		return
	}
	if required {
		fmt.Fprintln(w, "  Clients come through a balancer of proxy_protocol.trusted, which sends a PROXY header.")
	}
	const padding = 2
	table := tabwriter.NewWriter(w, 0, 0, padding, ' ', 0)
	for _, h := range all {
		fmt.Fprintf(table, "  %s\t%s\n", h.protocol, h.command)
	}
	_ = table.Flush() // The server serves even where stdout is closed.
}

// list joins names as in "a, b and c".
func list(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

// shownAddress returns the URL of an address, or unix:PATH.
func shownAddress(addr net.Addr, mode string) string {
	if addr.Network() == "unix" {
		return bound(addr)
	}
	return "http" + tlsSuffix(mode) + "://" + reachable(addr)
}

func tlsSuffix(mode string) string {
	if mode == listeners.ModeOff {
		return ""
	}
	return "s"
}

// reachable replaces an unspecified address, which clients cannot connect to on every
// system, by 127.0.0.1. A socket on [::] takes IPv4 too.
func reachable(addr net.Addr) string {
	bound, err := netip.ParseAddrPort(addr.String())
	if err != nil || !bound.Addr().IsUnspecified() {
		return addr.String()
	}
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(bound.Port()))
}

// client returns the address that a client of this machine has at a server's address: the
// one that it connects to.
func client(server net.Addr) net.Addr {
	if a, err := netip.ParseAddrPort(reachable(server)); err == nil {
		return net.TCPAddrFromAddrPort(a)
	}
	return server // A Unix socket.
}

// hints returns a command for each protocol. They suit the kind of address, the TLS mode and
// the PROXY mode. Those for TLS do not verify the certificate, which is for a name and
// perhaps of a private authority, and name a client certificate where the server wants one.
func hints(addr net.Addr, served listeners.Config) []hint {
	mode := served.TLS.Mode
	c := clientFlags(served.TLS)
	if served.ProxyProtocol.Mode == listeners.ProxyRequired {
		c.curl = words(c.curl, "--haproxy-protocol")
	}
	path := ""
	target := reachable(addr)
	if addr.Network() == "unix" {
		path, target = shellQuote(addr.String()), "localhost"
	}
	s := tlsSuffix(mode)
	curl := words("curl", c.curl)
	grpcurl := words("grpcurl", c.grpcurl, `-d '{"message": "hello"}'`)
	ws := words("npx wscat", c.wscat, "-c", shellQuote("ws"+s+"://"+target+"/ws"))
	grpcTarget := shellQuote(target)
	if path != "" {
		curl = words(curl, "--unix-socket", path)
		grpcurl = words(grpcurl, "-unix")
		grpcTarget = path
		ws = words("websocat", c.websocat, "--ws-c-uri=ws://localhost/ws - ws-c:"+c.websocatLayer+"unix:"+path)
	}
	http2 := "--http2-prior-knowledge"
	if s != "" {
		http2 = "--http2"
	}
	url := "http" + s + "://" + target
	all := []hint{
		{"HTTP/1.1", words(curl, "--http1.1", shellQuote(url+"/echo")), []string{"http1"}, false},
		{"HTTP/2", words(curl, http2, shellQuote(url+"/echo")), []string{"http2"}, false},
		{"gRPC", words(grpcurl, grpcTarget, "muxserve.demo.v1.Echo/Unary"), []string{"grpc"}, true},
		{"WebSocket", ws, []string{"websocket"}, true},
	}
	if path == "" {
		all = append(all, hint{"browser", url + "/", []string{"http1", "websocket"}, true})
	}
	return all
}

// flags are the flags of each client for one TLS configuration.
type flags struct{ curl, grpcurl, wscat, websocat, websocatLayer string }

func clientFlags(c listeners.TLSConfig) flags {
	if c.Mode == listeners.ModeOff {
		return flags{grpcurl: "-plaintext"}
	}
	f := flags{curl: "-k", grpcurl: "-insecure", wscat: "-n", websocat: "-k", websocatLayer: "tls:"}
	if c.ClientAuth == "require" || c.ClientAuth == "require-and-verify" || c.ClientAuth == "" && c.Mode == listeners.ModeMutual {
		f.curl += " --cert client.pem --key client.key"
		f.grpcurl += " -cert client.pem -key client.key"
		f.wscat += " --cert client.pem --key client.key"
		f.websocat += " --client-pkcs12-der client.p12"
	}
	return f
}

// words joins the parts that are not empty.
func words(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), " ")
}

// shellQuote quotes a word for a POSIX shell and zsh where it needs quotes, as brackets do.
func shellQuote(path string) string {
	ordinary := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-@:", r)
	}
	if strings.IndexFunc(path, func(r rune) bool { return !ordinary(r) }) < 0 {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
