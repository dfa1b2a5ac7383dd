package mux

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/sniff"
)

// conn is one accepted connection in all its layers, in one allocation. Bytes go through
// the account to the socket. Where there is TLS, it stands between the account and the
// recogniser:
//
//	server -> sniff.Conn -> [tls.Conn] -> account -> socket
//
// It has no method ConnectionState: net/http would take it for a TLS connection that
// speaks HTTP/1.1 only.
type conn struct {
	sniff.Conn

	account pool.Conn // Its Close closes the socket alone, without a goodbye of TLS.
	root    *root
	more    atomic.Pointer[layers] // nil before it is needed; see ensureLayers
	// due is when the connection reaches its age, counted from clockStart; 0 for never.
	// An upgrade to h2c sets it again, while the sweep reads it.
	due atomic.Int64
	// idleAt is how many bytes had been received when the TLS handshake was over, or the
	// HTTP/1.1 connection became idle, by the lower bits.
	idleAt atomic.Uint32
	life
	grown atomic.Bool // the stack of the server's goroutine; see growServerStack
	// refused is why a limit keeps the connection out. It belongs to the goroutines that
	// accept, recognise and dispatch, one after the other.
	refused refusal
	// closingIdle is set while closeIdle's read deadline is. Guarded by departures.idle.
	closingIdle bool
}

// layers is what not every connection needs: those with TLS do, and those with any of rarely.
type layers struct {
	// These belong to the goroutine that recognises the connection, until stageServing.
	tls   tlsConn
	state *tls.ConnectionState // of the handshake; see TLSState

	rare atomic.Pointer[rarely] // nil before it is needed; see ensureRare
}

// tlsConn is what ends TLS on a connection: a *tls.Conn, or what a listener that the caller of
// Serve brought wraps around one. net/http knows the latter by this method as well.
type tlsConn interface {
	net.Conn
	ConnectionState() tls.ConnectionState
}

// ensureLayers returns the layers, for writing; it makes them if there are none.
func (c *conn) ensureLayers() *layers {
	if l := c.more.Load(); l != nil {
		return l
	}
	c.more.CompareAndSwap(nil, new(layers))
	return c.more.Load()
}

// layers returns the same for reading, and makes nothing.
func (c *conn) layers() *layers {
	if l := c.more.Load(); l != nil {
		return l
	}
	return &noLayers
}

// noLayers is what connections have that never needed any of it.
var noLayers layers

// rarely is what most HTTP/1.1 and gRPC connections without TLS do not need.
type rarely struct {
	addrs atomic.Pointer[addresses] // nil: the account knows them; see identify
	// own is a verdict that the recogniser did not give: a custom protocol's, or that on
	// a connection which failed before it was recognised.
	own *sniff.Verdict
	// fault is what was wrong with the PROXY header or the TLS handshake; nil for nothing.
	fault *openFault
	// values are for native calls; nil without [WithBaseContext] and [WithConnContext].
	values context.Context //nolint:containedctx // It is the connection's.

	byAddr atomic.Bool // grpcConns has the connection
	denied atomic.Bool // a request was refused because of its protocol
	// h2cPlace is set while the pool of HTTP/2 keeps a place for an upgrade to h2c.
	h2cPlace atomic.Bool
	h2       http2State
	body     bodyWatch1
	// ownWrites is set while a handler that has set a write deadline serves an HTTP/1.1
	// request.
	ownWrites atomic.Bool
	// halfClosed is set where the client of an HTTP/1.1 request that is under way has ended
	// its half of the connection; see [sweep.hasLeft].
	halfClosed atomic.Bool
	leave      farewell
	// head is when the sweep has seen the head of a request, and which one; see noteHead.
	head   atomic.Uint64
	notice atomic.Pointer[notice]     // nil before its context is asked for
	probe  atomic.Pointer[probePlace] // nil unless the connection is served for a probe alone
}

// ensureRare returns what few connections need, for writing; it makes it if there is none.
func (c *conn) ensureRare() *rarely {
	l := c.ensureLayers()
	if l.rare.Load() == nil {
		l.rare.CompareAndSwap(nil, new(rarely)) // Unless another goroutine was faster.
	}
	return l.rare.Load()
}

// noneRare is what connections have that never needed any of it.
var noneRare rarely

// rare returns the same for reading, and makes nothing.
func (c *conn) rare() *rarely {
	if m := c.layers().rare.Load(); m != nil {
		return m
	}
	return &noneRare
}

var (
	_ net.Conn          = (*conn)(nil)
	_ io.ReaderFrom     = (*conn)(nil)
	_ protocols.TLSConn = (*conn)(nil)
)

// RemoteAddr returns the peer's address. It is the first that net/http asks of a connection
// in the goroutine in which it serves it. Without nosplit, RemoteAddr would grow the stack
// once more, for itself.
//
//go:nosplit
func (c *conn) RemoteAddr() net.Addr {
	c.growServerStack()
	if found := c.rare().addrs.Load(); found != nil {
		return found.remote
	}
	return c.account.RemoteAddr()
}

// SetDeadline implements [net.Conn]. It is the first that grpc-go asks of a connection in
// the goroutine in which it serves it.
//
//go:nosplit
func (c *conn) SetDeadline(t time.Time) error {
	c.growServerStack()
	return c.Conn.SetDeadline(t)
}

// growServerStack makes room on the stack of the goroutine in which a server has begun to
// serve the connection.
//
//go:nosplit
func (c *conn) growServerStack() {
	if c.stage() != stageServing || c.grown.Load() {
		return
	}
	c.grown.Store(true)
	if c.verdict().Protocol == protocols.WebSocket {
		growStack[[9 << 10]byte]() // 16 KB: 9 % of ws-newconn.
	} else {
		growStack[[3 << 10]byte]() // 8 KB: 3 % of h1-newconn and grpc-newconn.
	}
}

// isPeerClient reports whether the socket itself knows the peer's address.
func (c *conn) isPeerClient() bool { return pool.IsPeerClient(c.account.NetConn()) }

// addresses are those of both ends of a connection.
type addresses struct{ remote, local net.Addr }

// known returns the addresses, zero before they are known. Unlike RemoteAddr and LocalAddr,
// which may wait for a PROXY header where the socket is not bare, it never waits.
func (c *conn) known() addresses {
	if found := c.rare().addrs.Load(); found != nil {
		return *found
	}
	if !c.isPeerClient() {
		return addresses{}
	}
	return addresses{c.account.RemoteAddr(), c.account.LocalAddr()}
}

// knownAddr returns the peer's address, nil before it is known. It never waits.
func (c *conn) knownAddr() net.Addr { return c.known().remote }

// remoteAddr is knownAddr for people.
func (c *conn) remoteAddr() string { return addrText(c.knownAddr()) }

// socketPeer returns the address of the peer that has opened the socket, which is the
// balancer's where that sends a PROXY header. It is empty where no layer shows the socket:
// another connection may wait for the header when it is asked. So it never waits.
func (c *conn) socketPeer() string {
	var socket net.Conn
	for layer := range pool.Layers(c.account.NetConn()) {
		socket = layer
	}
	if !pool.IsPeerClient(socket) {
		return ""
	}
	return addrText(socket.RemoteAddr())
}

// TLSState returns the outcome of the TLS handshake, or nil for a connection without TLS.
func (c *conn) TLSState() *tls.ConnectionState {
	if c.stage() < stageServing {
		return nil
	}
	return c.layers().state
}

// Read implements [net.Conn]. A deadline that runs out while net/http waits for a request
// is its own, or closeIdle's.
func (c *conn) Read(p []byte) (int, error) {
	if c.layers().tls != nil {
		// net/http reads in a new goroutine behind each request, for which 2 KB are not enough.
		growStack[[3 << 9]byte]() // 4 KB: 10 % of tls-h1-keepalive.
	}
	n, err := c.Conn.Read(p)
	if err == nil || n > 0 || !c.awaitsRequest() || !errors.Is(err, os.ErrDeadlineExceeded) {
		return n, err
	}
	if c.comesBack() {
		return c.Conn.Read(p)
	}
	c.noteTimeout()
	return n, err
}

// Close closes the connection through all of its layers.
func (c *conn) Close() error {
	if c.stage() < stageServing && c.verdict().Protocol == protocols.TLS && c.layers().tls == nil {
		// The peer asks for TLS on a port without it, and no custom protocol matched.
		_, _ = c.account.Write(handshakeFailure)
	}
	c.noteWhy()
	served := c.stage() >= stageServing
	c.markClosing()
	err := c.Conn.Close()
	c.advance(stageClosed)
	if served { // Otherwise settle does it, with the verdict.
		c.root.books.closed.add(c, true)
	}
	if m := c.layers().rare.Load(); m != nil {
		if m.byAddr.Load() {
			grpcConns.Delete(c.RemoteAddr())
		}
		m.notice.Load().end(net.ErrClosed)
		m.endProbe()
	}
	return err
}

// noteWhy records why the connection is being closed, where the account cannot know it: the
// connection was not recognised, or a timeout of its HTTP/2 server has run out.
func (c *conn) noteWhy() {
	if c.stage() < stageServing {
		switch c.verdict().Failure {
		case sniff.FailureTimeout:
			c.account.SetCloseReason(reasonSniff)
		case failureTLS:
			c.account.SetCloseReason(reasonTLS)
		}
		return
	}
	if c.account.CloseReason() != "" {
		return
	}
	_, patience := c.root.backend.pingTimeouts(c.verdict().Protocol)
	switch idle, aged, mute := c.ServerLeft(patience * 9 / 10); {
	case mute:
		c.account.SetCloseReason(reasonPing)
	case aged:
		c.account.SetCloseReason(reasonAge)
	case idle && !c.root.departures.telling.Load():
		c.account.SetCloseReason(reasonIdle)
	}
}

// File returns a copy of the socket, as [net.TCPConn.File] does, for owners of a hijacked
// connection. It fails with TLS, for a connection that is no socket, and while bytes that
// were read ahead are still to be read.
func (c *conn) File() (*os.File, error) {
	socket, ok := c.account.NetConn().(interface{ File() (*os.File, error) })
	if !ok || c.Direct() != &c.account {
		return nil, fmt.Errorf("mux: file of a %T: %w", c.account.NetConn(), errors.ErrUnsupported)
	}
	return socket.File()
}

// stateLeaving is shown of a connection whose client was told to leave.
const stateLeaving = "leaving"

// info returns the connection's account with what is known of its verdict and TLS.
func (c *conn) info() pool.Info {
	info := c.account.Info()
	known := c.known()
	info.RemoteAddr, info.LocalAddr = addrText(known.remote), addrText(known.local)
	if info.Protocol == string(protocols.GRPC) && info.InFlight == 0 && !c.HasOpenStreams() {
		info.State = pool.StateIdle.String() // grpc-go does not say it.
	}
	if c.stage() < stageServing {
		return info
	}
	if c.isTold() && info.State != pool.StateClosing.String() {
		info.State = stateLeaving
	}
	v := c.verdict()
	info.Verdict = v.Reason
	info.VerdictBytes = v.Bytes
	info.VerdictMicros = float64(v.Duration.Nanoseconds()) / 1e3
	if info.TLS = pool.NewTLSInfo(c.layers().state); info.TLS != nil { // The client chooses its names.
		info.TLS.ServerName = protocols.Shorten(info.TLS.ServerName, protocols.MaxText)
		info.TLS.ClientSubject = protocols.Shorten(info.TLS.ClientSubject, protocols.MaxText)
	}
	return info
}

// trackState is the http.Server hook that keeps the account's state.
func trackState(nc net.Conn, state http.ConnState) {
	if c, ok := nc.(*conn); ok {
		c.track(state)
	}
}

// track keeps the account's state by what net/http says of the connection.
func (c *conn) track(state http.ConnState) {
	if c.account.State() == pool.StateUpgraded { // It has become HTTP/2; see H2CUpgrades.
		var since int64
		if state == http.StateIdle {
			since = int64(sinceStart())
		}
		c.http2().idleSince.Store(since)
		return
	}
	switch state {
	case http.StateActive:
		c.account.SetState(pool.StateActive)
		c.begin()
		if c.isTold() {
			c.undoCloseIdle()
		}
	case http.StateIdle:
		if m := c.layers().rare.Load(); m != nil {
			m.body.finish()
			m.ownWrites.Store(false)
		}
		c.idleAt.Store(uint32(c.account.Received()))
		if c.isShared() {
			c.http2().idleSince.Store(int64(sinceStart()))
		}
		c.account.SetState(pool.StateIdle)
	case http.StateHijacked:
		c.account.SetState(pool.StateUpgraded)
	case http.StateNew, http.StateClosed:
	}
}

// closeFor closes the connection through all of its layers, for a reason.
func (c *conn) closeFor(reason string) {
	c.account.SetCloseReason(reason)
	_ = c.Close()
}

// abort is closeFor for a connection on which something is not complete. The client gets a
// reset, which it cannot take for the end of a response, and no goodbye of TLS.
func (c *conn) abort(reason string) {
	c.account.SetCloseReason(reason)
	_ = c.account.Abort()
	_ = c.Close()
}
