package sniff

import (
	"bytes"
	"errors"
	"io"
)

const (
	recordHandshake       = 22      // RFC 8446, section 5.1.
	recordMajorVersion    = 3       // Of all versions of TLS, and SSL 3.0.
	recordMaxMinorVersion = 4       // Versions above it were never assigned.
	maxRecordPayload      = 1 << 14 // RFC 8446, section 5.1.

	messageClientHello = 1 // RFC 8446, section 4.
	// maxClientHello is the longest handshake message that crypto/tls reads.
	// Hellos with post-quantum key shares have about 2 KiB.
	maxClientHello = 1 << 16

	extensionServerName = 0 // RFC 6066, section 3.
)

// errNotClientHello is the error of [ReadServerName] where r begins with something
// else than a well-formed ClientHello.
var errNotClientHello = errors.New("sniff: not a TLS ClientHello")

// ReadServerName reads the TLS ClientHello that r begins with and returns its server
// name, or "" where it has none. The message may span several records; nothing behind
// it is read. Where r ends first, the error is r's: [io.EOF] or [io.ErrUnexpectedEOF]
// for an io.EOF.
//
// Extensions other than the server name are skipped unread, so the handshake may fail
// all the same. A hello costs at most 64 KiB of memory, as its bytes come in.
func ReadServerName(r io.Reader) (string, error) {
	records := &recordReader{r: r}
	var head [4]byte
	// The type is checked before more is waited for.
	if _, err := io.ReadFull(records, head[:1]); err != nil {
		return "", err
	}
	if head[0] != messageClientHello {
		return "", errNotClientHello
	}
	if _, err := io.ReadFull(records, head[1:]); err != nil {
		return "", err
	}
	length := int64(head[1])<<16 | int64(head[2])<<8 | int64(head[3])
	if length > maxClientHello {
		return "", errNotClientHello
	}
	var body bytes.Buffer
	if _, err := io.CopyN(&body, records, length); err != nil {
		return "", err
	}
	name, ok := parseHello(body.Bytes())
	if !ok {
		return "", errNotClientHello
	}
	return name, nil
}

// A recordReader reads the payload of TLS handshake records. Any other record is an
// errNotClientHello.
type recordReader struct {
	r    io.Reader
	left int // of the record's payload
}

// Read implements [io.Reader].
func (r *recordReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n, err := r.r.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}

// next reads the header of a record. It checks each byte before it waits for another,
// because the client of another protocol may be waiting for its answer.
func (r *recordReader) next() error {
	var header [5]byte
	for i := range header {
		if _, err := io.ReadFull(r.r, header[i:i+1]); err != nil {
			return err
		}
		if header[0] != recordHandshake || i > 0 && header[1] != recordMajorVersion || header[2] > recordMaxMinorVersion {
			return errNotClientHello
		}
	}
	r.left = int(header[3])<<8 | int(header[4])
	if r.left == 0 || r.left > maxRecordPayload {
		return errNotClientHello
	}
	return nil
}

// parseHello returns the server name in the body of a ClientHello (RFC 8446, section
// 4.1.2).
func parseHello(body []byte) (name string, ok bool) {
	const versionAndRandom = 2 + 32
	s := tlsReader(body)
	_, ok1 := s.take(versionAndRandom)
	_, ok2 := s.vector(1) // session id
	_, ok3 := s.vector(2) // cipher suites
	_, ok4 := s.vector(1) // compression methods
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return "", false
	}
	if len(s) == 0 {
		return "", true // TLS 1.2 lets the extensions be absent.
	}
	extensions, ok := s.vector(2)
	if !ok || len(s) != 0 {
		return "", false
	}
	for named := false; len(extensions) > 0; {
		typ, ok1 := extensions.number(2)
		data, ok2 := extensions.vector(2)
		if !ok1 || !ok2 {
			return "", false
		}
		if typ == extensionServerName {
			if name, ok = parseServerName(data); !ok || named {
				return "", false
			}
			named = true
		}
	}
	return name, true
}

// parseServerName parses the extension of RFC 6066, section 3, which forbids a name
// with a trailing dot.
func parseServerName(data tlsReader) (name string, ok bool) {
	list, ok := data.vector(2)
	if !ok || len(data) != 0 || len(list) == 0 {
		return "", false
	}
	for len(list) > 0 {
		typ, ok1 := list.number(1)
		value, ok2 := list.vector(2)
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

// A tlsReader consumes the presentation language of RFC 8446, section 3, from its
// front. Its methods report false where too little is left.
type tlsReader []byte

func (r *tlsReader) take(n int) (tlsReader, bool) {
	if len(*r) < n {
		return nil, false
	}
	b := (*r)[:n]
	*r = (*r)[n:]
	return b, true
}

// number takes a number of size bytes.
func (r *tlsReader) number(size int) (n int, ok bool) {
	b, ok := r.take(size)
	for _, digit := range b {
		n = n<<8 | int(digit)
	}
	return n, ok
}

// vector takes the bytes behind their length, which is a number of size bytes.
func (r *tlsReader) vector(size int) (tlsReader, bool) {
	n, ok := r.number(size)
	if !ok {
		return nil, false
	}
	return r.take(n)
}
