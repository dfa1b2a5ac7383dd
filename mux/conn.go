package mux

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/mem"

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
	remote  atomic.Pointer[net.Addr] // nil until it is known; see identify
	tls     *tls.Conn
	state   *tls.ConnectionState // of the handshake; see TLSState
	// own is a verdict that is not the recogniser's: a custom protocol's, or that on a
	// connection which never got as far. It belongs to the goroutine that recognises the connection, until flagClassified is set.
	own *protocols.Verdict
	// ends is when the connection has reached its age, counted from clockStart; 0 for never.
	ends  atomic.Int64
	h2    atomic.Pointer[http2State] // nil before the first request in HTTP/2
	flags atomic.Uint32              // see flag
	// reading is set while somebody waits for more than net/http's look for the end of the connection, which is one byte long.
	reading atomic.Bool
	// refused is why a limit keeps the connection out. These belong to the
	// goroutines that accept and recognise, one after the other; reads to the one that reads.
	refused           refusal
	prepared, decided bool
	reads             uint8 // by ReadOnReady, up to the second

	departure
}

// flag is something that becomes true of a connection, most of them once and for all.
type flag uint32

const (
	flagClassified flag = 1 << iota // recognised, so own and state do not change any more
	flagSniffing                    // EndWait may be called
	flagCut                         // the drain closes it before it is recognised
	flagSettled                     // dispatched or closed
	flagShown                       // grpcConns has it
	flagDenied                      // a request was refused whose protocol the listener does not serve
	flagAsked                       // an HTTP/2 or gRPC request has come to its server
	flagTold                        // its client is to leave
	flagLeaving                     // closeIdle's deadline is set; guarded by departure.mu
	flagFinalTold                   // its client was told its last stream
	flagNoticed                     // somebody has a context that ends with it
	flagNotified                    // that context is to end
	flagReserved                    // a place in the pool of WebSockets is kept for it
	flagNoGrace                     // it is to leave for no fault of its own, and takes the time it needs
	flagBody                        // the last HTTP/1.1 request has a body, and is not answered
	flagDeclared                    // the length of that body was declared
)

func (c *conn) has(f flag) bool { return c.flags.Load()&uint32(f) != 0 }
func (c *conn) set(f flag)      { c.flags.Or(uint32(f)) }
func (c *conn) unset(f flag)    { c.flags.And(^uint32(f)) }

// claim sets a flag, and reports whether it was not set before.
func (c *conn) claim(f flag) bool { return c.flags.Or(uint32(f))&uint32(f) == 0 }

// http2State is what only a connection with requests in HTTP/2 needs.
type http2State struct {
	exchanges exchanges
	running   atomic.Int32 // requests whose handlers have not returned, calls included
	calls     callSlots
}

func (c *conn) http2() *http2State {
	if h := c.h2.Load(); h != nil {
		return h
	}
	c.h2.CompareAndSwap(nil, new(http2State))
	return c.h2.Load()
}

// refusal is the reason for which a connection is kept out.
type refusal uint8

const (
	notRefused refusal = iota
	refusedLimit
	refusedAddress
	refusedNoMatch
)

var refusalReasons = [...]string{"", pool.ReasonLimit, pool.ReasonAddressLimit, protocols.FailureNoMatch}

func (r refusal) String() string { return refusalReasons[r] }

// refusalOf returns the refusal for a reason that a limit has given.
func refusalOf(reason string) refusal {
	return refusal(max(0, slices.Index(refusalReasons[:], reason)))
}

var (
	_ net.Conn          = (*conn)(nil)
	_ io.ReaderFrom     = (*conn)(nil)
	_ protocols.TLSConn = (*conn)(nil)
)

// RemoteAddr returns the peer's address.
func (c *conn) RemoteAddr() net.Addr {
	if known := c.remote.Load(); known != nil {
		return *known
	}
	return c.account.RemoteAddr()
}

// remoteAddr returns the peer's address for people, empty before it is known. Unlike RemoteAddr it never waits.
func (c *conn) remoteAddr() string {
	if known := c.remote.Load(); known != nil {
		return (*known).String()
	}
	return ""
}

// identify takes note of the peer's address. A listener may have to read a
// header to know it, so this belongs to the goroutine that recognises the
// connection, unless its type is known to answer at once. The error is that of the header.
func (c *conn) identify() error {
	if c.remote.Load() != nil {
		return nil
	}
	address := c.account.RemoteAddr()
	c.remote.Store(&address)
	if err := headerError(c.account.NetConn()); err != nil {
		return err
	}
	if reason := c.root.server.conns.Identify(&c.account, address); reason != "" {
		c.refused = refusalOf(reason)
	}
	return nil
}

// TLSState returns the outcome of the TLS handshake, or nil for a connection without TLS.
func (c *conn) TLSState() *tls.ConnectionState {
	if !c.has(flagClassified) {
		return nil
	}
	return c.state
}

// hasServed reports whether the connection is to be left after this request, because
// of its age or because it has had all its requests but this one.
func (c *conn) hasServed(maxRequests uint64) bool {
	return c != nil && (maxRequests > 0 && c.account.Requests()+1 >= maxRequests || c.overAge() >= 0)
}

// isTold reports whether the client has been told to leave.
func (c *conn) isTold() bool { return c != nil && c.has(flagTold) }

// Read implements [net.Conn].
func (c *conn) Read(p []byte) (int, error) {
	if len(p) == 1 {
		return c.Conn.Read(p)
	}
	c.reading.Store(true)
	n, err := c.Conn.Read(p)
	if err != nil && n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		if c.comesBack() {
			n, err = c.Conn.Read(p)
		} else {
			c.noteTimeout()
		}
	}
	c.reading.Store(false)
	return n, err
}

// ReadOnReady is what grpc-go reads by. Its second read comes when it has taken the
// connection on, and what was in the first, the first request among it.
func (c *conn) ReadOnReady(size int, buffers mem.BufferPool) (*[]byte, int, error) {
	if c.reads < 2 {
		if c.reads++; c.reads == 2 {
			c.set(flagAsked)
		}
	}
	return c.Conn.ReadOnReady(size, buffers)
}

// Close closes the connection through all of its layers.
func (c *conn) Close() error {
	if !c.has(flagSettled) && c.verdict().Protocol == protocols.TLS && c.tls == nil {
		// Nobody wanted the TLS that the peer asks for on a port without it.
		_, _ = c.account.Write(handshakeFailure)
	}
	c.noteWhy()
	err := c.Conn.Close()
	c.settle()
	if c.has(flagShown) {
		grpcConns.Delete(c.RemoteAddr())
	}
	if c.has(flagNoticed) {
		c.root.server.notices.forget(c)
	}
	return err
}

// noteWhy records why the connection is being closed, where the account cannot know it: it was not recognised, or one
// of an HTTP/2 server's times has run out.
func (c *conn) noteWhy() {
	if !c.has(flagSettled) {
		switch c.verdict().Failure {
		case protocols.FailureTimeout:
			c.account.SetCloseReason(pool.ReasonSniff)
		case failureTLS:
			c.account.SetCloseReason(pool.ReasonTLS)
		}
		return
	}
	if c.has(flagTold) || c.account.CloseReason() != "" {
		return
	}
	b := c.root.backend.config
	patience := b.HTTP2.PingTimeout
	if protocols.Protocol(c.root.server.conns.Tag(&c.account)) == protocols.GRPC {
		patience = b.GRPC.PingTimeout
	}
	switch idle, aged, mute := c.ServerLeft(patience * 9 / 10); {
	case mute:
		c.account.SetCloseReason(pool.ReasonPing)
	case aged:
		c.account.SetCloseReason(pool.ReasonAge)
	case idle && !c.root.server.telling.Load():
		c.account.SetCloseReason(pool.ReasonIdle)
	}
}

// settle takes the connection off the list of those that its root still has to
// dispatch. The first caller counts.
func (c *conn) settle() {
	if !c.claim(flagSettled) {
		return
	}
	switch v := c.verdict(); {
	case c.has(flagCut):
		c.reject(protocols.FailureDraining)
	case v.Failure != "" && !v.IsIdle():
		c.reject(v.Failure)
	case v.Protocol == protocols.TLS:
		c.reject(protocols.FailureNoMatch)
	}
	if c.has(flagSniffing) {
		c.root.server.sniffTimes.Record(c.verdict().Duration)
	}
	c.logVerdict()
	c.set(flagClassified)
	c.root.unsettled.Done()
}

func (c *conn) logVerdict() {
	logger := c.root.server.logger
	if !logger.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	v := c.verdict()
	logger.Debug("connection recognised",
		keyConnID, c.account.ID(), keyRemoteAddr, c.remoteAddr(), keyLocalAddr, c.LocalAddr().String(),
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
		c.recognise()
		c.decided = true
	}
	return c.verdict().Protocol
}

// verdict returns what the connection was recognised as, and the zero Verdict before.
func (c *conn) verdict() protocols.Verdict {
	if c.own != nil {
		return *c.own
	}
	return c.Verdict()
}

// decide records the verdict. A custom matcher may have the last word on a
// connection that nothing else matched.
func (c *conn) decide(v protocols.Verdict) { c.own, c.decided = &v, true }

// prepare brings the connection to where its first bytes can be read, through
// the TLS handshake where there is one. It reports false for a connection that failed.
func (c *conn) prepare() bool {
	if !c.prepared {
		c.prepared = true
		if err := c.identify(); err != nil {
			c.decide(headerVerdict(err))
			return false
		}
		c.SetPeek(&c.root.sniffs.Load().normal)
		if c.root.tlsConfig != nil || c.tls != nil {
			if v, ok := c.startTLS(); !ok {
				c.decide(v)
			}
		}
	}
	return c.verdict().Failure == ""
}

// recognise asks the first bytes. Where they ask for TLS, which this listener
// does not have or has already taken off, the verdict says so and no built-in protocol matches.
func (c *conn) recognise() {
	s := c.root.server
	c.set(flagSniffing)
	if s.stopping.Load() || c.root.ending.Load() {
		c.EndWait()
	}
	if c.refused != notRefused {
		c.Sniff(&c.root.sniffs.Load().refused)
		return
	}
	c.Sniff(&c.root.sniffs.Load().normal)
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
		first, v := c.firstBytes()
		if v.Failure != "" || first[0] != recordTypeHandshake {
			return v, v.Failure == ""
		}
		read := make([]byte, c.root.sniffs.Load().normal.MaxBytes)
		n, err := c.Read(read) // From the peek buffer, which it empties.
		if err != nil {
			return protocols.Verdict{Failure: failureTLS, Reason: err.Error()}, false
		}
		below = &replayConn{Conn: &c.account, rest: read[:n]}
	}
	brought := c.tls != nil
	if !brought {
		c.tls = tls.Server(below, c.root.tlsConfig)
	}
	started := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), tlsHandshakeTimeout)
	defer cancel()
	if err := c.tls.HandshakeContext(ctx); err != nil {
		return protocols.Verdict{
			Reason:   c.explainTLS(err),
			Failure:  c.tlsFailure(err),
			Bytes:    int(c.account.Received()),
			Duration: time.Since(started),
		}, false
	}
	c.root.server.tlsTimes.Record(time.Since(started))
	state := c.tls.ConnectionState()
	c.state = &state
	if !brought {
		c.Init(c.tls)
		c.SetPeek(&c.root.sniffs.Load().normal)
	}
	return protocols.Verdict{}, true
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
		return protocols.FailureSilent
	}
	return failureTLS
}

// recordTypeHandshake is the first byte of a TLS connection (RFC 8446 section 5.1).
const recordTypeHandshake = 22

// firstBytes looks at the first byte. A verdict with a failure means that there was none.
func (c *conn) firstBytes() (first [1]byte, v protocols.Verdict) {
	started := time.Now()
	if _, err := io.ReadFull(c.PeekReader(), first[:]); err != nil {
		v = protocols.Verdict{Failure: protocols.FailureSilent, Reason: "nothing was sent", Duration: time.Since(started)}
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

// info returns the connection's account with what is known of its verdict and TLS.
func (c *conn) info() pool.Info {
	info := c.root.server.conns.Info(&c.account)
	info.RemoteAddr = c.remoteAddr()
	if info.Protocol == string(protocols.GRPC) && info.InFlight == 0 {
		info.State = pool.StateIdle.String() // grpc-go does not say it; the calls do.
	}
	if !c.has(flagClassified) {
		return info
	}
	v := c.verdict()
	info.Verdict = v.Reason
	info.VerdictBytes = v.Bytes
	info.VerdictMicros = float64(v.Duration.Nanoseconds()) / 1e3
	info.TLS = pool.NewTLSInfo(c.state)
	return info
}
