package mux

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"time"

	"github.com/muxserve/muxserve/protocols/sniff"
)

// tlsHandshakeTimeout bounds a TLS handshake.
const tlsHandshakeTimeout = 10 * time.Second

// The reasons under which failures are counted that are not the recogniser's.
const (
	failureTLS      = "tls_handshake"
	failureDraining = "draining" // Cut by a drain.
)

// startTLS brings the connection through its TLS handshake, when the listener
// is for TLS alone or the peer's first byte asks for it. It returns the verdict of
// a connection for which that failed.
func (c *conn) startTLS() (sniff.Verdict, bool) {
	var below net.Conn = &c.account
	if c.root.tlsOptional {
		first, v := c.firstBytes()
		if v.Failure != "" || first[0] != recordTypeHandshake {
			return v, v.Failure == ""
		}
		read := make([]byte, c.root.sniffs.Load().normal.MaxBytes)
		n, err := c.Read(read) // From the peek buffer, which it empties.
		if err != nil {
			return sniff.Verdict{Failure: failureTLS, Reason: err.Error()}, false
		}
		below = &replayConn{Conn: &c.account, rest: read[:n]}
	}
	layer := c.rare()
	brought := layer.tls != nil
	if !brought {
		layer.tls = tls.Server(below, c.root.tlsConfig)
	}
	started := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), tlsHandshakeTimeout)
	defer cancel()
	if err := layer.tls.HandshakeContext(ctx); err != nil {
		return sniff.Verdict{
			Reason:   c.explainTLS(err),
			Failure:  c.tlsFailure(err),
			Bytes:    int(c.account.Received()),
			Duration: time.Since(started),
		}, false
	}
	c.root.books.tlsTimes.Record(time.Since(started))
	state := layer.tls.ConnectionState()
	layer.state = &state
	if !brought {
		c.Init(layer.tls)
		c.SetPeek(&c.root.sniffs.Load().normal)
	}
	return sniff.Verdict{}, true
}

// replayConn gives back what was read to find out that the peer asks for TLS.
type replayConn struct {
	net.Conn
	rest []byte
}

// Read implements [net.Conn].
func (c *replayConn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// tlsFailure tells a probe that said nothing from a handshake that failed.
func (c *conn) tlsFailure(err error) string {
	if c.account.Received() == 0 && (c.root.tlsConfig != nil || errors.Is(err, io.EOF)) {
		return sniff.FailureSilent
	}
	return failureTLS
}

// recordTypeHandshake is the first byte of a TLS connection (RFC 8446 section 5.1).
const recordTypeHandshake = 22

// firstBytes looks at the first byte. A verdict with a failure means that there was none.
func (c *conn) firstBytes() (first [1]byte, v sniff.Verdict) {
	started := time.Now()
	if _, err := io.ReadFull(c.PeekReader(), first[:]); err != nil {
		v = sniff.Verdict{Failure: sniff.FailureSilent, Reason: "nothing was sent", Duration: time.Since(started)}
	}
	return first, v
}

// plaintextAnswer is what an HTTP client gets that speaks plaintext to a TLS port.
const plaintextAnswer = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\nThis port speaks TLS only.\n"

// explainTLS says why a handshake failed, and tells an HTTP client on a plaintext connection.
func (c *conn) explainTLS(err error) string {
	var notTLS tls.RecordHeaderError
	if errors.As(err, &notTLS) && notTLS.Conn != nil && looksLikeHTTP(notTLS.RecordHeader) {
		_, _ = io.WriteString(notTLS.Conn, plaintextAnswer)
		return "plaintext HTTP on a TLS port"
	}
	return err.Error()
}

// looksLikeHTTP reports whether the five bytes that were taken for a TLS record's header
// begin an HTTP/1 request: upper-case letters, and perhaps the space behind a short method.
func looksLikeHTTP(header [5]byte) bool {
	method, _, _ := strings.Cut(string(header[:]), " ")
	return method != "" && strings.Trim(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// handshakeFailure is a fatal alert of that name (RFC 8446 section 6), in a
// record that every version understands.
var handshakeFailure = []byte{21, 3, 1, 0, 2, 2, 40}
