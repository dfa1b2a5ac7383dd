package mux

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync/atomic"

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
	more    atomic.Pointer[rarely] // nil before it is needed; see rare
	// ends is when the connection has reached its age, counted from clockStart; 0 for never.
	ends  atomic.Int64
	flags atomic.Uint32 // see flag
	// refused is why a limit keeps the connection out. It belongs to the
	// goroutines that accept and recognise, one after the other; reads to the one that reads.
	refused refusal
	reads   uint8 // by ReadOnReady, up to the second
}

// rarely is what an HTTP/1.1 or gRPC connection without TLS does not need.
type rarely struct {
	remote atomic.Pointer[net.Addr] // nil: the account knows it; see identify
	// These belong to the goroutine that recognises the connection, until flagClassified is set.
	tls   *tls.Conn
	state *tls.ConnectionState // of the handshake; see TLSState
	// own is a verdict that is not the recogniser's: a custom protocol's, or that on a
	// connection which never got as far.
	own *protocols.Verdict
	h2  http2State
	// idleSince is how many bytes had been received when a connection with TLS became idle; see isFed.
	idleSince atomic.Uint64
}

// rare returns what few connections need, for writing.
func (c *conn) rare() *rarely {
	if m := c.more.Load(); m != nil {
		return m
	}
	c.more.CompareAndSwap(nil, new(rarely))
	return c.more.Load()
}

// noneRare is what connections have that never needed any of it.
var noneRare rarely

// seldom is rare for reading, which makes nothing.
func (c *conn) seldom() *rarely {
	if m := c.more.Load(); m != nil {
		return m
	}
	return &noneRare
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
	flagLeaving                     // closeIdle's deadline is set; guarded by root.departures
	flagFinalTold                   // its client was told its last stream
	flagNoticed                     // somebody has a context that ends with it
	flagNotified                    // that context is to end
	flagNoGrace                     // it is to leave for no fault of its own, and takes the time it needs
	flagBody                        // the last HTTP/1.1 request has a body, and is not answered
	flagDeclared                    // the length of that body was declared
	flagReading                     // somebody waits for more of that body than net/http's look for the end of the connection, which is one byte long
	flagFed                         // bytes have come since the last HTTP/1.1 request was answered: the beginning of the next
	flagIdentified                  // the peer's address is known
	flagPrepared                    // prepare was called
	flagDecided                     // the verdict stands
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

func (c *conn) http2() *http2State { return &c.rare().h2 }

var (
	_ net.Conn          = (*conn)(nil)
	_ io.ReaderFrom     = (*conn)(nil)
	_ protocols.TLSConn = (*conn)(nil)
)

// RemoteAddr returns the peer's address.
func (c *conn) RemoteAddr() net.Addr {
	if known := c.seldom().remote.Load(); known != nil {
		return *known
	}
	return c.account.RemoteAddr()
}

// remoteAddr returns the peer's address for people, empty before it is known. Unlike RemoteAddr it never waits.
func (c *conn) remoteAddr() string {
	if !c.has(flagIdentified) {
		return ""
	}
	return c.RemoteAddr().String()
}

// identify takes note of the peer's address. A listener may have to read a
// header to know it, so this belongs to the goroutine that recognises the
// connection, unless its type is known to answer at once. The error is that of the header.
func (c *conn) identify() error {
	if c.has(flagIdentified) {
		return nil
	}
	address := c.account.RemoteAddr()
	switch c.account.NetConn().(type) {
	case *net.TCPConn, *net.UnixConn: // They keep it themselves.
	default:
		c.rare().remote.Store(&address)
	}
	c.set(flagIdentified)
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
	return c.seldom().state
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
		n, err := c.Conn.Read(p)
		c.noteFed(n)
		return n, err
	}
	if c.has(flagBody) {
		c.set(flagReading)
		defer c.unset(flagReading)
	}
	n, err := c.Conn.Read(p)
	if err != nil && n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		if c.comesBack() {
			n, err = c.Conn.Read(p)
		} else {
			c.noteTimeout()
		}
	}
	c.noteFed(n)
	return n, err
}

// noteFed takes note of n bytes that were read.
func (c *conn) noteFed(n int) {
	if n > 0 && !c.has(flagFed) {
		c.set(flagFed)
	}
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
	if !c.has(flagSettled) && c.verdict().Protocol == protocols.TLS && c.seldom().tls == nil {
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
	if !c.has(flagPrepared) {
		growStack()
	}
	if c.prepare() && c.claim(flagDecided) {
		c.recognise()
	}
	return c.verdict().Protocol
}

// verdict returns what the connection was recognised as, and the zero Verdict before.
func (c *conn) verdict() protocols.Verdict {
	if own := c.seldom().own; own != nil {
		return *own
	}
	return c.Verdict()
}

// decide records the verdict. A custom matcher may have the last word on a
// connection that nothing else matched.
func (c *conn) decide(v protocols.Verdict) {
	c.rare().own = &v
	c.set(flagDecided)
}

// prepare brings the connection to where its first bytes can be read, through
// the TLS handshake where there is one. It reports false for a connection that failed.
func (c *conn) prepare() bool {
	if c.claim(flagPrepared) {
		if err := c.identify(); err != nil {
			c.decide(headerVerdict(err))
			return false
		}
		c.SetPeek(&c.root.sniffs.Load().normal)
		if c.root.tlsConfig != nil || c.seldom().tls != nil {
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
	info.TLS = pool.NewTLSInfo(c.seldom().state)
	return info
}
