package sniff

import (
	"bytes"

	"github.com/muxserve/muxserve/protocols"
)

// A requestLineScanner looks for an HTTP/1 request line (RFC 9112, section 3).
// Its zero value begins at the first byte.
type requestLineScanner struct {
	off    int // How many bytes were looked at.
	start  int // Where the line begins, behind any empty lines.
	method int // Length of the method; 0 until the space behind it was seen.
}

// scan looks at b, which must begin with the bytes of the previous call.
func (s *requestLineScanner) scan(b []byte) (answer, Verdict) {
	if s.method == 0 {
		if a := s.scanMethod(b); a != matched {
			return s.answer(a)
		}
	}
	end := bytes.IndexByte(b[s.off:], '\n')
	if end < 0 {
		s.off = len(b)
		return needMore, Verdict{}
	}
	s.off += end
	return s.endOfLine(b)
}

func (s *requestLineScanner) answer(a answer) (answer, Verdict) {
	if a == unmatched {
		return noMatch(reasonNotHTTP)
	}
	return a, Verdict{}
}

// scanMethod answers matched when the method and the space behind it are there. What begins
// like a method and is none is the server's to refuse, if a request line comes of it.
func (s *requestLineScanner) scanMethod(b []byte) answer {
	if !s.skipEmptyLines(b) {
		return needMore
	}
	for ; s.off < len(b); s.off++ {
		c := b[s.off]
		if c == ' ' && s.off > s.start {
			s.method = s.off - s.start
			s.off++
			return matched
		}
		if c <= ' ' || c == 0x7f || s.off == s.start && !isToken(c) {
			return unmatched
		}
	}
	return needMore
}

// skipEmptyLines moves behind the empty lines that RFC 9112, section 2.2, lets
// stand before a request line. It reports false in the middle of one.
func (s *requestLineScanner) skipEmptyLines(b []byte) bool {
	for s.off == s.start {
		switch rest := b[s.off:]; {
		case bytes.HasPrefix(rest, []byte("\n")):
			s.off++
		case bytes.HasPrefix(rest, []byte("\r\n")):
			s.off += 2
		default:
			return string(rest) != "\r"
		}
		s.start = s.off
	}
	return true
}

// endOfLine decides about the line that ends at s.off. What stands between the
// method and the version is the server's business: it answers 400 where the
// target is not one, and 505 to another major version.
func (s *requestLineScanner) endOfLine(b []byte) (answer, Verdict) {
	line := bytes.TrimRight(bytes.TrimSuffix(b[s.start:s.off], []byte{'\r'}), " \t")
	const version = " HTTP/1.1"
	if bytes.ContainsFunc(line, isForbiddenControl) && bytes.Contains(line, []byte(version[:6])) {
		return match(protocols.HTTP1, reasonRequestLine) // The server answers 400 to it.
	}
	if len(line) < len(version) {
		return noMatch(reasonNotHTTP)
	}
	v := line[len(line)-len(version):]
	if string(v[:6]) != version[:6] || !isDigit(v[6]) || v[7] != '.' || !isDigit(v[8]) {
		return noMatch(reasonNotHTTP)
	}
	// RFC 6455, section 4.1: the handshake is a GET of HTTP/1.1 or higher.
	isGET := string(line[:s.method]) == "GET"
	if isGET && string(v) == version && asksForWebSocket(b[s.off+1:]) {
		return match(protocols.WebSocket, reasonWebSocket)
	}
	return match(protocols.HTTP1, reasonRequestLine)
}

// asksForWebSocket reports whether head, the lines behind the request line, is
// complete and holds the two fields that ask for a WebSocket. Folded lines
// (RFC 9112, section 5.2, obsolete) are left to the server.
func asksForWebSocket(head []byte) bool {
	var upgrade, connection bool
	for {
		end := bytes.IndexByte(head, '\n')
		if end < 0 {
			return false
		}
		line := bytes.TrimSuffix(head[:end], []byte{'\r'})
		head = head[end+1:]
		if len(line) == 0 {
			return upgrade && connection
		}
		if line[0] == ' ' || line[0] == '\t' {
			return false
		}
		// Both names are told from most others by their length alone.
		colon := bytes.IndexByte(line, ':')
		switch {
		case colon == len("upgrade") && equalFold(line[:colon], "upgrade"):
			upgrade = upgrade || hasToken(line[colon+1:], "websocket")
		case colon == len("connection") && equalFold(line[:colon], "connection"):
			connection = connection || hasToken(line[colon+1:], "upgrade")
		}
	}
}

// hasToken reports whether the comma-separated list holds token, which must be
// in lower case.
func hasToken(list []byte, token string) bool {
	for more := true; more; {
		var item []byte
		item, list, more = bytes.Cut(list, []byte{','})
		if equalFold(bytes.Trim(item, " \t"), token) {
			return true
		}
	}
	return false
}

// equalFold reports whether b is lower but for the case of ASCII letters.
// bytes.EqualFold folds Unicode, where the Kelvin sign is a k.
func equalFold[T []byte | string](b T, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := range len(b) {
		c := b[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// isForbiddenControl reports a character that no request line holds, however
// lenient its reader: a control character other than the white space of
// RFC 9112, section 3.
func isForbiddenControl(c rune) bool {
	return c < '\t' || '\r' < c && c < ' ' || c == 0x7f
}

// isToken reports whether c may stand in a token (RFC 9110, section 5.6.2).
func isToken(c byte) bool { return tokenBytes[c] }

var tokenBytes = func() (t [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t[c] = true
	}
	return t
}()
