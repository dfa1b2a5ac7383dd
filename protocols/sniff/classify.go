package sniff

import (
	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols"
)

// The bytes that open a TLS connection: a record of type handshake with major
// version 3 (RFC 8446, section 5.1). Minor versions above 4 were never assigned.
const (
	tlsRecordHandshake = 0x16
	tlsMajorVersion    = 0x03
	tlsMaxMinorVersion = 0x04
)

// A scanner recognises a protocol in a prefix that grows from call to call.
// It remembers how far it came, so that a peer that sends byte by byte costs
// no more than one that sends all at once.
//
// An HTTP/1 request matches as soon as its request line is complete. It is
// WebSocket only where the whole head is there, too; an upgrade that comes
// later is found by the HTTP server's root handler. An HTTP/2 connection
// matches at the end of its first header block, or earlier where only the
// shared HTTP/2 server can give the right answer.
type scanner struct {
	notHTTP2 bool // The bytes deviate from the HTTP/2 preface.
	isHTTP2  bool // The preface is complete.
	alpn     string
	http1    requestLineScanner
	http2    frameScanner
}

func newScanner(t protocols.GRPCTransport, maxString int) scanner {
	return scanner{http2: frameScanner{transport: t, maxString: maxString, off: len(http2.ClientPreface), next: len(http2.ClientPreface)}}
}

// scan looks at b, which must begin with the bytes of the previous call.
func (s *scanner) scan(b []byte) (answer, Verdict) {
	switch {
	case len(b) == 0:
		return needMore, Verdict{}
	case s.isHTTP2:
		return s.http2.scan(b)
	case b[0] == tlsRecordHandshake:
		return scanTLS(b)
	}
	if !s.notHTTP2 {
		n := min(len(b), len(http2.ClientPreface))
		s.notHTTP2 = string(b[:n]) != http2.ClientPreface[:n]
		switch {
		case s.notHTTP2:
			// PRI is a token, so HTTP/1 rules say what becomes of the line.
			if s.alpn == alpnHTTP2 {
				return noMatch(reasonALPN)
			}
		case n < len(http2.ClientPreface):
			return needMore, Verdict{}
		case s.alpn == alpnHTTP1:
			return noMatch(reasonALPN)
		default:
			s.isHTTP2 = true
			return s.http2.scan(b)
		}
	}
	answer, v := s.http1.scan(b)
	if answer == unmatched && LooksLikeProxyHeader(b) {
		v.Reason = reasonProxyHeader
	}
	return answer, v
}

// LooksLikeProxyHeader reports whether b is the beginning, of at least five bytes, of a
// header of the PROXY protocol, version 1 or 2.
func LooksLikeProxyHeader(b []byte) bool {
	const least = 5
	for _, signature := range []string{"PROXY ", "\r\n\r\n\x00\r\nQUIT\n"} {
		n := min(len(b), len(signature))
		if n >= least && string(b[:n]) == signature[:n] {
			return true
		}
	}
	return false
}

// The names under which ALPN knows the versions of HTTP (RFC 7301, section 6).
const (
	alpnHTTP1 = "http/1.1"
	alpnHTTP2 = "h2"
)

func scanTLS(b []byte) (answer, Verdict) {
	switch {
	case len(b) > 1 && b[1] != tlsMajorVersion, len(b) > 2 && b[2] > tlsMaxMinorVersion:
		return noMatch(reasonNotTLS)
	case len(b) < 3:
		return needMore, Verdict{}
	}
	return match(protocols.TLS, reasonTLS)
}

func match(p protocols.Protocol, reason string) (answer, Verdict) {
	return matched, Verdict{Protocol: p, Reason: reason}
}

func noMatch(reason string) (answer, Verdict) {
	return unmatched, Verdict{Reason: reason, Failure: FailureNoMatch}
}
