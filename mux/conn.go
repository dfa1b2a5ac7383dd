package mux

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

// conn is one accepted connection in all its layers, in one allocation. Bytes go
// through the account to the socket; where there is TLS it stands between the
// account and the recogniser:
//
//	server -> protocols.Conn -> [tls.Conn] -> account -> socket
//
// It has no method ConnectionState: net/http would take it for a TLS
// connection that speaks HTTP/1.1 only.
type conn struct {
	protocols.Conn

	account pool.Conn
	root    *root
	remote  net.Addr
	tls     *tls.Conn

	// These belong to the goroutine that recognises the connection, until it
	// sets classified; after that they do not change.
	prepared   bool
	decided    bool
	verdict    protocols.Verdict
	state      *tls.ConnectionState
	classified atomic.Bool
	// sniffing is set when EndWait may be called.
	sniffing atomic.Bool
	// settled is set when the connection has been dispatched or closed.
	settled atomic.Bool
}

var (
	_ net.Conn          = (*conn)(nil)
	_ io.ReaderFrom     = (*conn)(nil)
	_ protocols.TLSConn = (*conn)(nil)
)

// RemoteAddr returns the peer's address: the same value each time, so that it can
// stand for the connection.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// TLSState returns the outcome of the TLS handshake, or nil for a connection without TLS.
func (c *conn) TLSState() *tls.ConnectionState {
	if !c.classified.Load() {
		return nil
	}
	return c.state
}

// Close closes the connection through all of its layers.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.settle()
	return err
}

// settle takes the connection off the list of those that its root still has to
// dispatch. The first caller counts.
func (c *conn) settle() {
	if !c.settled.CompareAndSwap(false, true) {
		return
	}
	if v := c.verdict; v.Failure != "" {
		c.reject(v.Failure)
	}
	c.logVerdict()
	c.classified.Store(true)
	c.root.unsettled.Done()
}

func (c *conn) logVerdict() {
	logger := c.root.server.logger
	if !logger.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	v := c.verdict
	logger.Debug("connection recognised",
		keyConnID, c.account.ID(), keyRemoteAddr, c.remote.String(), keyLocalAddr, c.LocalAddr().String(),
		keyProtocol, string(v.Protocol), keyVerdict, v.Reason, keyReason, v.Failure,
		keyBytesRead, v.Bytes, keyDuration, v.Duration)
}

// reject counts the connection as refused.
func (c *conn) reject(reason string) {
	s := c.root.server
	s.conns.Reject(s.conns.Tag(&c.account), reason)
}

// classify recognises the connection the first time it is asked and answers
// from memory after that. It blocks as long as the peer may take to speak. It
// is called by the goroutine that cmux has for the connection, and by no other.
func (c *conn) classify() protocols.Protocol {
	if c.prepare() && !c.decided {
		c.decide(c.recognise())
	}
	return c.verdict.Protocol
}

// decide records the verdict. A custom matcher may have the last word on a
// connection that nothing else matched.
func (c *conn) decide(v protocols.Verdict) { c.verdict, c.decided = v, true }

// prepare brings the connection to where its first bytes can be read, through
// the TLS handshake where there is one. It reports false for a connection that failed.
func (c *conn) prepare() bool {
	if !c.prepared {
		c.prepared = true
		if c.root.tlsConfig != nil || c.tls != nil {
			if v, ok := c.startTLS(); !ok {
				c.decide(v)
			}
		}
	}
	return c.verdict.Failure == ""
}

func (c *conn) recognise() protocols.Verdict {
	c.sniffing.Store(true)
	if c.root.server.stopping.Load() {
		c.EndWait()
	}
	v := c.Sniff(&c.root.server.sniff)
	if v.Protocol == protocols.TLS {
		// The first bytes ask for TLS, which this listener does not have, or
		// which was already taken off once.
		c.refuseTLS()
		v.Protocol, v.Failure = protocols.Unknown, protocols.FailureNoMatch
	}
	return v
}

// tlsHandshakeTimeout bounds a TLS handshake.
const tlsHandshakeTimeout = 10 * time.Second

// failureTLS is the reason under which a failed handshake is counted.
const failureTLS = "tls_handshake"

// startTLS brings the connection through its TLS handshake, when the listener
// is for TLS alone or the peer's first byte asks for it. It returns the verdict of
// a connection for which that failed.
func (c *conn) startTLS() (protocols.Verdict, bool) {
	var below net.Conn = &c.account
	if c.root.tlsOptional {
		raw := new(protocols.Conn)
		raw.Init(&c.account)
		if v, isTLS := c.asksForTLS(raw); !isTLS {
			c.Init(raw)
			return v, v.Failure == ""
		}
		below = raw
	}
	if c.tls == nil {
		c.tls = tls.Server(below, c.root.tlsConfig)
	}
	started := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), tlsHandshakeTimeout)
	defer cancel()
	if err := c.tls.HandshakeContext(ctx); err != nil {
		return protocols.Verdict{
			Reason:   c.explainTLS(err),
			Failure:  c.tlsFailure(),
			Bytes:    int(c.account.Received()),
			Duration: time.Since(started),
		}, false
	}
	state := c.tls.ConnectionState()
	c.state = &state
	c.Init(c.tls)
	return protocols.Verdict{}, true
}

// tlsFailure tells a probe that said nothing from a handshake that failed.
func (c *conn) tlsFailure() string {
	if c.account.Received() == 0 {
		return protocols.FailureSilent
	}
	return failureTLS
}

// recordTypeHandshake is the first byte of a TLS connection (RFC 8446 section 5.1).
const recordTypeHandshake = 22

// asksForTLS looks at the first byte. A verdict with a failure means that there was none.
func (c *conn) asksForTLS(raw *protocols.Conn) (protocols.Verdict, bool) {
	s := c.root.server
	var first [1]byte
	started := time.Now()
	raw.SetPeek(&s.sniff)
	if _, err := io.ReadFull(raw.PeekReader(), first[:]); err != nil {
		return protocols.Verdict{
			Failure:  protocols.FailureSilent,
			Reason:   "nothing was sent",
			Duration: time.Since(started),
		}, false
	}
	return protocols.Verdict{}, first[0] == recordTypeHandshake
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

func (c *conn) refuseTLS() { _, _ = c.account.Write(handshakeFailure) }

// info returns the connection's account with what is known of its verdict and TLS.
func (c *conn) info() pool.Info {
	info := c.root.server.conns.Info(&c.account)
	info.RemoteAddr = c.remote.String()
	if !c.classified.Load() {
		return info
	}
	info.Verdict = c.verdict.Reason
	info.VerdictBytes = c.verdict.Bytes
	info.VerdictMicros = float64(c.verdict.Duration.Nanoseconds()) / 1e3
	if c.state != nil {
		info.TLS = tlsInfo(c.state)
	}
	return info
}

func tlsInfo(state *tls.ConnectionState) *pool.TLSInfo {
	info := &pool.TLSInfo{
		Version:    tls.VersionName(state.Version),
		Cipher:     tls.CipherSuiteName(state.CipherSuite),
		ALPN:       state.NegotiatedProtocol,
		ServerName: state.ServerName,
	}
	if len(state.PeerCertificates) > 0 {
		info.ClientSubject = state.PeerCertificates[0].Subject.String()
	}
	return info
}
