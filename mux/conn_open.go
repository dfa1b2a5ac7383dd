package mux

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/sniff"
)

// prepare brings the connection to where its first bytes can be read: behind the PROXY
// header and the TLS handshake, where there are any. It reports false for a connection
// that has failed.
func (c *conn) prepare() (ok bool) {
	defer c.contain()
	if c.stage() == stageAccepted && c.verdict().Failure == "" {
		if c.root.tlsConfig != nil || c.layers().tls != nil {
			growStack[[12 << 10]byte]() // 16 KB, for ML-KEM alone 9: 2 % of tls-newconn.
		} else {
			growStack[[3 << 10]byte]() // 8 KB: 3 % of h1-newconn.
		}
		if failure, ok := c.open(); !ok {
			c.decide(failure)
			return false
		}
		c.advance(stageOpen)
		if c.root.running.isStopping() && !c.isLocal() || isDone(c.root.ending) {
			c.EndWait()
		}
	}
	return c.stage() < stageClosed && c.verdict().Failure == ""
}

// contain is deferred around what may call the embedder's code in cmux's goroutine: functions
// of its tls.Config, and methods of its listener's connections. Behind a panic contain closes
// the connection, as net/http does behind one of a handler.
func (c *conn) contain() {
	v := recover()
	if v == nil {
		return
	}
	c.logPanic(v)
	f := faultNoMatch
	if c.layers().tls != nil && c.stage() == stageAccepted {
		f = faultTLSPanic
	}
	failure := c.fail(f, fmt.Errorf("panic: %v", v))
	c.ensureRare().own = &failure
	_ = c.account.Close() // Or [Server.MatchAfter] would get it.
}

// open reads the PROXY header and makes the TLS handshake. It returns the verdict on a
// connection for which that failed.
func (c *conn) open() (failure sniff.Verdict, ok bool) {
	if !c.isPeerClient() {
		before := c.refused
		if err := c.identify(); err != nil {
			return c.fail(proxyFault(err), err), false
		}
		if c.refused != before && c.isCrowded() {
			return c.crowded(), false
		}
	}
	c.SetPeek(c.sniffConfig())
	if c.root.tlsConfig != nil || c.layers().tls != nil {
		return c.startTLS()
	}
	return sniff.Verdict{}, true
}

// identify takes note of the addresses where the socket is not bare: its listener may have to
// read a PROXY header to know them. The error is that of the header.
func (c *conn) identify() error {
	address := c.account.RemoteAddr()
	c.ensureRare().addrs.Store(&addresses{address, c.account.LocalAddr()})
	if err := headerError(c.account.NetConn()); err != nil {
		return err
	}
	if c.refused == notRefused {
		c.root.admission.room.beforeClient(address)
	}
	if reason := c.root.books.conns.Identify(&c.account, address); reason != "" {
		c.refused = refusalOf(reason)
	}
	return nil
}

// headerError waits for the PROXY header of a connection that begins with one, and returns
// its fault. TLS that the caller of Serve brought stands above it.
func headerError(raw net.Conn) error {
	for layer := range pool.Layers(raw) {
		if proxied, ok := layer.(interface{ HeaderError() error }); ok {
			return proxied.HeaderError()
		}
	}
	return nil
}

// openFault is a fault in the PROXY header or the TLS handshake.
type openFault struct {
	*fault
	err string // the beginning of the error, for the log
}

// fail takes note of such a fault, and returns the verdict on it. The words of a verdict
// outlive the connection, so they are the fault's: the error may repeat what the peer has sent.
func (c *conn) fail(f *fault, err error) sniff.Verdict {
	c.ensureRare().fault = &openFault{f, protocols.Shorten(err.Error(), protocols.MaxText)}
	return sniff.Verdict{Failure: f.reason, Reason: f.detail}
}

// The reasons under which failures are counted that are not the recogniser's.
const (
	failureProxyHeader = "proxy_header"  // missing, broken, too slow or not trusted
	failureTLS         = "tls_handshake" // failed
	failureDraining    = "draining"      // cut by a drain
)

// startTLS makes the TLS handshake, if the listener is for TLS alone or the client's first
// byte asks for it. It returns the verdict on a handshake that failed.
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
			return c.fail(faultTLSLeft, err), false
		}
		below = &replayConn{Conn: &c.account, rest: read[:n]}
	}
	layer := c.ensureLayers()
	brought := layer.tls != nil
	if !brought {
		layer.tls = tls.Server(below, c.root.tlsConfig)
	}
	started := time.Now()
	// A context with a timeout would cost a goroutine. The failure of a handshake is final,
	// so the deadline need not be taken back behind one.
	if bound := c.root.sniffs.Load().handshake; bound > 0 {
		_ = c.account.SetDeadline(started.Add(bound))
	}
	err := c.shakeHands(layer.tls)
	state := layer.tls.ConnectionState()
	if name, known := state.ServerName, c.root.endpoint.tls; !brought && name != "" && known != nil && !known.HasName(name) {
		c.root.books.unknownNames.Add(1)
	}
	if err != nil {
		answerPlaintext(err)
		failure := c.fail(c.tlsFault(err), err)
		failure.Bytes, failure.Duration = int(c.account.Received()), time.Since(started)
		return failure, false
	}
	_ = c.account.SetDeadline(time.Time{})
	c.root.books.tlsTimes.Record(time.Since(started))
	layer.state = &state
	c.idleAt.Store(uint32(c.account.Received()))
	if !brought {
		c.Init(layer.tls)
		c.SetPeek(c.sniffConfig())
	}
	return sniff.Verdict{}, true
}

// shakeHands makes the handshake of socket. One that has no method for it makes the handshake
// when it is first read.
func (c *conn) shakeHands(socket tlsConn) error {
	if shaker, ok := socket.(interface {
		HandshakeContext(ctx context.Context) error
	}); ok {
		return shaker.HandshakeContext(context.Background())
	}
	var first [1]byte
	bound := *c.sniffConfig()
	bound.SilentTimeout = 0
	c.SetPeek(&bound)
	defer c.SetPeek(c.sniffConfig())
	_, err := io.ReadFull(c.PeekReader(), first[:])
	return err
}

// sniffConfig returns how the connection is recognised.
func (c *conn) sniffConfig() *sniff.Config {
	sniffs := c.root.sniffs.Load()
	if c.refused != notRefused {
		return &sniffs.refused
	}
	return &sniffs.normal
}

// replayConn first reads the bytes that showed that the client asks for TLS.
type replayConn struct {
	net.Conn
	rest []byte
}

// NetConn returns the connection below.
func (c *replayConn) NetConn() net.Conn { return c.Conn }

// Read implements [net.Conn].
func (c *replayConn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.rest)
	if c.rest = c.rest[n:]; len(c.rest) == 0 {
		c.rest = nil // It would hold the memory as long as the connection.
	}
	return n, nil
}

// tlsFault tells a probe that sent nothing from a handshake that failed.
func (c *conn) tlsFault(err error) *fault {
	if c.account.Received() == 0 && (c.root.tlsConfig != nil || errors.Is(err, io.EOF)) {
		return faultSilent
	}
	return tlsFault(err, c.root.hasExpired)
}

// recordTypeHandshake is the first byte of a TLS connection (RFC 8446 section 5.1).
const recordTypeHandshake = 22

// firstBytes peeks at the first byte. A verdict with a failure means that none came.
func (c *conn) firstBytes() (first [1]byte, v sniff.Verdict) {
	started := time.Now()
	if _, err := io.ReadFull(c.PeekReader(), first[:]); err != nil {
		v = sniff.Verdict{Failure: sniff.FailureSilent, Reason: "nothing was sent", Duration: time.Since(started)}
	}
	return first, v
}

// plaintextAnswer is the answer to HTTP in plaintext on a TLS port.
const plaintextAnswer = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\nThis port speaks TLS only.\n"

// answerPlaintext answers a client that speaks plaintext HTTP, with which the handshake has
// failed.
func answerPlaintext(err error) {
	var notTLS tls.RecordHeaderError
	if errors.As(err, &notTLS) && notTLS.Conn != nil && looksLikeHTTP(notTLS.RecordHeader) {
		_, _ = io.WriteString(notTLS.Conn, plaintextAnswer)
	}
}

// looksLikeHTTP reports whether what was taken for the header of a TLS record begins an
// HTTP/1 request: upper-case letters, and perhaps the space behind a short method.
func looksLikeHTTP(header [5]byte) bool {
	method, _, _ := strings.Cut(string(header[:]), " ")
	return method != "" && strings.Trim(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// handshakeFailure is the fatal alert handshake_failure (RFC 8446 section 6), in a record
// that every version of TLS understands.
var handshakeFailure = []byte{21, 3, 1, 0, 2, 2, 40}
