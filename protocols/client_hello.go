package protocols

import (
	"encoding/binary"
	"slices"
)

const (
	tlsRecordHeaderLen    = 5 // RFC 8446, section 5.1.
	tlsHandshakeHeaderLen = 4 // RFC 8446, section 4.
	tlsClientHello        = 1

	tlsExtensionServerName = 0  // RFC 6066, section 3.
	tlsExtensionALPN       = 16 // RFC 7301, section 3.1.

	// maxTLSRecord is the longest plaintext record (RFC 8446, section 5.1).
	maxTLSRecord = 1 << 14
	// maxClientHello is the longest handshake message that crypto/tls reads.
	// Hellos with post-quantum key shares have about 2 KiB.
	maxClientHello = 1 << 16
)

// A ClientHello is what a TLS client says in the clear about where it wants to go.
type ClientHello struct {
	ServerName string   // The host name of SNI, empty if there is none.
	ALPN       []string // The protocols offered, in the client's order.
}

// ParseClientHello parses the TLS ClientHello that begins with prefix. It
// answers NeedMore while the message is incomplete, which may span several
// records, and NoMatch where the bytes are no well-formed ClientHello. It is
// pure and keeps nothing of prefix.
//
// The extensions other than server name and ALPN are skipped unread, so a
// Match does not mean that the handshake will succeed.
func ParseClientHello(prefix []byte) (Answer, ClientHello) {
	message, answer := joinRecords(prefix)
	if answer != Match {
		return answer, ClientHello{}
	}
	hello, ok := parseHello(message)
	if !ok {
		return NoMatch, ClientHello{}
	}
	return Match, hello
}

// joinRecords returns the body of the ClientHello, taken out of its records.
// It copies only where there is more than one.
func joinRecords(b []byte) ([]byte, Answer) {
	var joined []byte
	for {
		payload, rest, answer := cutRecord(b)
		if answer == NoMatch {
			return nil, NoMatch
		}
		// An incomplete record is looked at, too: what it holds may show that
		// no ClientHello comes.
		if joined == nil {
			joined = slices.Clip(payload)
		} else {
			joined = append(joined, payload...)
		}
		body, messageAnswer := cutHandshake(joined)
		if messageAnswer != NeedMore || answer == NeedMore {
			return body, messageAnswer
		}
		b = rest
	}
}

// cutRecord returns the payload of the handshake record at the start of b, or
// as much of it as is there with NeedMore.
func cutRecord(b []byte) (payload, rest []byte, answer Answer) {
	if len(b) == 0 {
		return nil, nil, NeedMore
	}
	if b[0] != tlsRecordHandshake {
		return nil, nil, NoMatch
	}
	if answer, _ := scanTLS(b); answer == NoMatch {
		return nil, nil, NoMatch
	}
	if len(b) < tlsRecordHeaderLen {
		return nil, nil, NeedMore
	}
	n := int(binary.BigEndian.Uint16(b[3:]))
	b = b[tlsRecordHeaderLen:]
	switch {
	case n == 0 || n > maxTLSRecord:
		return nil, nil, NoMatch
	case len(b) < n:
		return b, nil, NeedMore
	}
	return b[:n], b[n:], Match
}

// cutHandshake returns the body of the ClientHello at the start of b. What
// follows it in the same record is ignored.
func cutHandshake(b []byte) ([]byte, Answer) {
	if len(b) > 0 && b[0] != tlsClientHello {
		return nil, NoMatch
	}
	if len(b) < tlsHandshakeHeaderLen {
		return nil, NeedMore
	}
	n := int(b[1])<<16 | int(b[2])<<8 | int(b[3])
	b = b[tlsHandshakeHeaderLen:]
	switch {
	case n > maxClientHello:
		return nil, NoMatch
	case len(b) < n:
		return nil, NeedMore
	}
	return b[:n], Match
}

// parseHello parses the body of a ClientHello (RFC 8446, section 4.1.2).
func parseHello(body []byte) (hello ClientHello, ok bool) {
	const versionAndRandom = 2 + 32
	s := tlsReader(body)
	if !s.skip(versionAndRandom) || !s.skipVector8() || !s.skipVector16() || !s.skipVector8() {
		return ClientHello{}, false
	}
	if len(s) == 0 {
		return ClientHello{}, true // TLS 1.2 lets the extensions be absent.
	}
	extensions, ok := s.vector16()
	if !ok || len(s) != 0 {
		return ClientHello{}, false
	}
	var hasName, hasALPN bool
	for len(extensions) > 0 {
		typ, ok1 := extensions.uint16()
		data, ok2 := extensions.vector16()
		switch {
		case !ok1 || !ok2:
			return ClientHello{}, false
		case typ == tlsExtensionServerName:
			if hello.ServerName, ok = parseServerName(data); !ok || hasName {
				return ClientHello{}, false
			}
			hasName = true
		case typ == tlsExtensionALPN:
			if hello.ALPN, ok = parseALPN(data); !ok || hasALPN {
				return ClientHello{}, false
			}
			hasALPN = true
		}
	}
	return hello, true
}

// parseServerName parses the extension of RFC 6066, section 3. A name with a
// trailing dot is malformed there.
func parseServerName(data tlsReader) (name string, ok bool) {
	list, ok := data.vector16()
	if !ok || len(data) != 0 || len(list) == 0 {
		return "", false
	}
	for len(list) > 0 {
		typ, ok1 := list.uint8()
		value, ok2 := list.vector16()
		if !ok1 || !ok2 || len(value) == 0 {
			return "", false
		}
		if typ != 0 { // Only host names are assigned.
			continue
		}
		if name != "" || value[len(value)-1] == '.' {
			return "", false
		}
		name = string(value)
	}
	return name, true
}

// parseALPN parses the extension of RFC 7301, section 3.1.
func parseALPN(data tlsReader) (protocols []string, ok bool) {
	list, ok := data.vector16()
	if !ok || len(data) != 0 || len(list) == 0 {
		return nil, false
	}
	for len(list) > 0 {
		p, ok := list.vector8()
		if !ok || len(p) == 0 {
			return nil, false
		}
		protocols = append(protocols, string(p))
	}
	return protocols, true
}

// A tlsReader consumes the presentation language of RFC 8446, section 3, from
// its front. Its methods report false where too little is left.
type tlsReader []byte

func (r *tlsReader) bytes(n int) (tlsReader, bool) {
	if len(*r) < n {
		return nil, false
	}
	b := (*r)[:n]
	*r = (*r)[n:]
	return b, true
}

func (r *tlsReader) uint8() (int, bool) {
	b, ok := r.bytes(1)
	if !ok {
		return 0, false
	}
	return int(b[0]), true
}

func (r *tlsReader) uint16() (int, bool) {
	b, ok := r.bytes(2)
	if !ok {
		return 0, false
	}
	return int(binary.BigEndian.Uint16(b)), true
}

func (r *tlsReader) vector8() (tlsReader, bool) {
	n, ok := r.uint8()
	if !ok {
		return nil, false
	}
	return r.bytes(n)
}

func (r *tlsReader) vector16() (tlsReader, bool) {
	n, ok := r.uint16()
	if !ok {
		return nil, false
	}
	return r.bytes(n)
}

func (r *tlsReader) skip(n int) bool {
	_, ok := r.bytes(n)
	return ok
}

func (r *tlsReader) skipVector8() bool {
	_, ok := r.vector8()
	return ok
}

func (r *tlsReader) skipVector16() bool {
	_, ok := r.vector16()
	return ok
}
