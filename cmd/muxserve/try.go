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

// unixPrefix marks the path of a Unix-domain socket in an address.
const unixPrefix = "unix:"

// hint is a command that tries a protocol. It is printed for listeners that serve all
// protocols in needs.
type hint struct {
	protocol, command string
	needs             []string
}

// announce prints an address of the server and how to try each of its protocols there.
func announce(w io.Writer, addr net.Addr, c listeners.Config) {
	c = c.Shown()
	mode, served := c.TLS.Mode, c.Protocols
	var all []hint
	var names []string
	for _, h := range hints(addr, mode) {
		missing := func(protocol string) bool { return !slices.Contains(served, protocol) }
		if slices.ContainsFunc(h.needs, missing) {
			continue
		}
		all = append(all, h)
		if len(h.needs) == 1 {
			names = append(names, h.protocol)
		}
	}
	fmt.Fprintf(w, "muxserve: %s on %s\n", list(names), shownAddress(addr, mode))
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
		return unixPrefix + addr.String()
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
// system, by the loopback address.
func reachable(addr net.Addr) string {
	bound, err := netip.ParseAddrPort(addr.String())
	if err != nil || !bound.Addr().IsUnspecified() {
		return addr.String()
	}
	loopback := "127.0.0.1"
	if bound.Addr().Is6() {
		loopback = "::1"
	}
	return net.JoinHostPort(loopback, fmt.Sprint(bound.Port()))
}

// hints returns a command for each protocol. They suit the kind of address and the TLS
// mode: for a self-signed certificate they do not verify, and for mutual TLS they name a
// client certificate.
func hints(addr net.Addr, mode string) []hint {
	c := clientFlags(mode)
	path := ""
	target := reachable(addr)
	if addr.Network() == "unix" {
		path, target = shellQuote(addr.String()), "localhost"
	}
	s := tlsSuffix(mode)
	curl := words("curl", c.curl)
	grpcurl := words("grpcurl", c.grpcurl, `-d '{"message": "hello"}'`)
	ws := words("npx wscat", c.wscat, "-c", "ws"+s+"://"+target+"/ws")
	grpcTarget := target
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
		{"HTTP/1.1", words(curl, "--http1.1", url+"/echo"), []string{"http1"}},
		{"HTTP/2", words(curl, http2, url+"/echo"), []string{"http2"}},
		{"gRPC", words(grpcurl, grpcTarget, "muxserve.demo.v1.Echo/Unary"), []string{"grpc"}},
		{"WebSocket", ws, []string{"websocket"}},
	}
	if path == "" {
		all = append(all, hint{"browser", url + "/", []string{"http1", "websocket"}})
	}
	return all
}

// flags are the flags of each client for one TLS mode.
type flags struct{ curl, grpcurl, wscat, websocat, websocatLayer string }

func clientFlags(mode string) flags {
	switch mode {
	case listeners.ModeOff:
		return flags{grpcurl: "-plaintext"}
	case listeners.ModeSelfSigned:
		return flags{curl: "-k", grpcurl: "-insecure", wscat: "-n", websocat: "-k", websocatLayer: "tls:"}
	case listeners.ModeMutual:
		return flags{
			curl:          "--cert client.pem --key client.key",
			grpcurl:       "-cert client.pem -key client.key",
			wscat:         "--cert client.pem --key client.key",
			websocat:      "--client-pkcs12-der client.p12",
			websocatLayer: "tls:",
		}
	default:
		return flags{websocatLayer: "tls:"}
	}
}

// words joins the parts that are not empty.
func words(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), " ")
}

// shellQuote quotes a path for a POSIX shell where it needs quotes.
func shellQuote(path string) string {
	ordinary := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-@", r)
	}
	if strings.IndexFunc(path, func(r rune) bool { return !ordinary(r) }) < 0 {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
