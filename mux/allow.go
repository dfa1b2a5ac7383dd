package mux

import (
	"net/http"
	"slices"
	"strings"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/sniff"
	"github.com/muxserve/muxserve/protocols/websocket"
)

// allow is which of the built-in protocols a listener serves. Custom ones are
// served wherever they are matched.
type allow struct{ http1, http2, grpc, webSocket bool }

var allowAll = allow{http1: true, http2: true, grpc: true, webSocket: true}

// allowOf returns what a listener's configuration names; nothing stands for everything.
func allowOf(names []string) allow {
	if len(names) == 0 {
		return allowAll
	}
	has := func(p protocols.Protocol) bool { return slices.Contains(names, string(p)) }
	return allow{
		http1:     has(protocols.HTTP1),
		http2:     has(protocols.HTTP2),
		grpc:      has(protocols.GRPC),
		webSocket: has(protocols.WebSocket),
	}
}

// serves reports whether the listener serves a built-in protocol.
func (a allow) serves(p protocols.Protocol) bool {
	switch p {
	case protocols.HTTP1:
		return a.http1
	case protocols.HTTP2:
		return a.http2
	case protocols.GRPC:
		return a.grpc
	case protocols.WebSocket:
		return a.webSocket
	default:
		return false
	}
}

// String names the protocols, for people.
func (a allow) String() string {
	var names []string
	for _, p := range []struct {
		served bool
		name   string
	}{{a.http1, "HTTP/1.1"}, {a.http2, "HTTP/2"}, {a.grpc, "gRPC"}, {a.webSocket, "WebSocket"}} {
		if p.served {
			names = append(names, p.name)
		}
	}
	return strings.Join(names, ", ")
}

// versions reports which versions of HTTP carry what is served: calls go over
// HTTP/2, and WebSockets begin as HTTP/1.1.
func (a allow) versions() (one, two bool) { return a.http1 || a.webSocket, a.http2 || a.grpc }

// nextProtos returns the ALPN names (RFC 7301) of what is served.
func (a allow) nextProtos(names []string) []string {
	one, two := a.versions()
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return name == alpnHTTP1 && !one || name == alpnHTTP2 && !two
	})
}

// The names under which ALPN knows the versions of HTTP.
const (
	alpnHTTP1 = "http/1.1"
	alpnHTTP2 = "h2"
)

// transport returns how connections are divided between grpc-go and the HTTP/2 server.
func (a allow) transport(configured protocols.GRPCTransport) protocols.GRPCTransport {
	switch {
	case !a.grpc:
		// The preface decides, and nothing is written to find out more.
		return protocols.TransportShared
	case !a.http2 && configured == protocols.TransportShared:
		return protocols.TransportAuto // There is nothing to share a connection with.
	default:
		return configured
	}
}

// refuses reports whether the listener does not serve what a connection was recognised as.
func (a allow) refuses(v sniff.Verdict) bool {
	one, two := a.versions()
	switch v.Protocol {
	case protocols.HTTP1, protocols.WebSocket:
		return !one
	case protocols.GRPC:
		return !a.grpc
	case protocols.HTTP2:
		// A client that has not sent its first request may be a gRPC client. Its requests
		// are looked at when they come.
		return !two || !a.http2 && v.BeginsRequest() && !v.IsCall()
	default:
		return false
	}
}

// allowed is safe on the nil conn of a request that came in some other way.
func (c *conn) allowed() allow {
	if c == nil {
		return allowAll
	}
	return c.root.allow
}

// denial returns a handler for a request that c's listener does not serve, nil otherwise.
// Connections that the listener does not serve at all do not get here.
func (c *conn) denial(r *http.Request) http.HandlerFunc {
	a := c.allowed()
	switch {
	case a == allowAll:
		return nil
	case r.ProtoMajor == 2 && !a.http2 && (!a.grpc || !isGRPC(r)):
		return c.deny(http.StatusHTTPVersionNotSupported, "This port serves "+a.String()+".")
	case websocket.IsExtendedConnect(r) && !a.webSocket:
		return c.deny(http.StatusNotImplemented, "This port does not serve WebSocket.")
	case r.ProtoMajor == 2:
		return nil
	case websocket.IsUpgrade(r):
		if !a.webSocket {
			// RFC 6455 section 4.2.2 suggests the status for a handshake that is not wanted.
			return c.deny(http.StatusForbidden, "This port does not serve WebSocket.")
		}
		return nil
	case !a.http1:
		return c.deny(http.StatusUpgradeRequired, "This port serves "+a.String()+".")
	}
	return nil
}

// deny counts the connection, once, and returns a handler that answers with status.
func (c *conn) deny(status int, text string) http.HandlerFunc {
	if c.ensureRare().denied.CompareAndSwap(false, true) {
		c.noteRefusal(faultNotServed)
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		if status == http.StatusUpgradeRequired {
			upgradeRequired(w, text, false)
			return
		}
		http.Error(w, text, status)
	}
}

// upgradeRequired answers that only a WebSocket is served.
func upgradeRequired(w http.ResponseWriter, text string, closes bool) {
	// Both fields must be there (RFC 9110 sections 15.5.22 and 7.8).
	w.Header().Set("Upgrade", "websocket")
	w.Header().Add("Connection", "Upgrade")
	if closes {
		w.Header().Add("Connection", "close")
	}
	http.Error(w, text, http.StatusUpgradeRequired)
}

// isGRPC reports whether an HTTP/2 request is a gRPC call.
func isGRPC(r *http.Request) bool {
	return r.Method == http.MethodPost && protocols.IsGRPCContentType(r.Header.Get("Content-Type"))
}
