package protocols

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
	"sync"

	"golang.org/x/net/http/httpguts"
)

// peeked is a [Conn], or what one is embedded in, of which first bytes are in its buffer.
type peeked interface {
	net.Conn
	unread() []byte
	discard(n int)
	await() (ended bool)
}

// unread returns what is in the peek buffer. It is valid until the next read, and belongs to the goroutine that reads.
func (c *Conn) unread() []byte {
	if e := c.recognition.Load(); e != nil {
		return e.peek.unread()
	}
	return nil
}

// discard drops the first n of those bytes.
func (c *Conn) discard(n int) {
	if e := c.recognition.Load(); e != nil {
		e.peek.consume(n)
		c.endRecognition(e)
	}
}

// below returns the connection that c reads from and writes to, if that is all that it does.
func (c *Conn) below() net.Conn {
	if c.recognition.Load() != nil || c.h2.Load() != nil {
		return nil
	}
	return c.inner
}

// plainHandshake returns the head of the request with which b begins, or nil for one that is not all there, is
// longer than most, or has a field that asks net/http for more than to hand it to a handler: a body, an answer before the answer,
// or HTTP/2. What a field has to look like is not looked at.
func plainHandshake(b []byte, most int) []byte {
	hosts, rest := 0, b
	for first := true; ; first = false {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			return nil
		}
		line := bytes.TrimSuffix(rest[:end], []byte{'\r'})
		rest = rest[end+1:]
		switch {
		case first:
			if !bytes.HasPrefix(line, []byte("GET /")) {
				return nil
			}
			continue
		case len(line) == 0:
			if head := b[:len(b)-len(rest)]; hosts == 1 && len(head) <= most {
				return head
			}
			return nil
		}
		name, _, _ := bytes.Cut(line, []byte{':'})
		if equalFold(name, "host") {
			hosts++
		}
		for _, special := range specialFields {
			if equalFold(name, special) {
				return nil
			}
		}
	}
}

// specialFields are those that net/http acts upon by itself, and that of RFC 7540 section 3.2.1.
var specialFields = [...]string{"content-length", "transfer-encoding", "expect", "trailer", "http2-settings"}

// A headReader is what net/http reads a request from.
type headReader struct {
	bytes bytes.Reader
	buf   *bufio.Reader
}

var headReaders = sync.Pool{New: func() any {
	r := new(headReader)
	r.buf = bufio.NewReader(&r.bytes)
	return r
}}

// parseHandshake returns the request of a plain head, or nil for one that net/http's server would refuse.
func parseHandshake(head []byte) *http.Request {
	hr := headReaders.Get().(*headReader)
	defer headReaders.Put(hr)
	hr.bytes.Reset(head)
	hr.buf.Reset(&hr.bytes)
	r, err := http.ReadRequest(hr.buf)
	hr.bytes.Reset(nil)
	if err != nil || r.ProtoMajor != 1 || r.ProtoMinor != 1 || r.Body != http.NoBody || r.ContentLength != 0 || !httpguts.ValidHostHeader(r.Host) {
		return nil
	}
	for name, values := range r.Header {
		if !httpguts.ValidHeaderFieldName(name) {
			return nil
		}
		for _, value := range values {
			if !httpguts.ValidHeaderFieldValue(value) {
				return nil
			}
		}
	}
	return r
}
