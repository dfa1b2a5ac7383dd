package mux

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/sniff"
)

// admission takes connections into the books, gives each its place with its server, and
// refuses those that a limit keeps out.
type admission struct {
	books   *books
	running *running
	live    *reloader
	room    *room
	// contexts makes the context of a native gRPC connection.
	contexts *contexts
	// turn has an element while a connection waits for room, so that no two take the same
	// place.
	turn chan struct{}

	probes probes
}

// add accounts for a connection. Where the server is told to wait at the limit, it waits
// for room first, and so does what comes behind c in the kernel's queue. When the server
// stops, what is queued is taken in all the same. In-process connections take no place.
func (a *admission) add(c *conn, raw net.Conn) (refuse string) {
	if c.isLocal() {
		_ = a.books.conns.Add(&c.account, raw, c)
		a.books.conns.ExemptInner(&c.account)
		return ""
	}
	defer a.takeTurn(c)()
	limits := &a.live.Load().Limits
	for ; ; limits = &a.live.Load().Limits { // A reload may change them meanwhile.
		a.room.beforeAccept(limits.MaxConnections)
		if !a.waits(c) || a.waitRoom() {
			break
		}
	}
	if limits.PerAddress > 0 && pool.IsPeerClient(raw) {
		a.room.beforeClient(raw.RemoteAddr())
	}
	return a.books.conns.Add(&c.account, raw, c)
}

// waits reports whether a new connection is to wait for a place. Where the server stops, or a
// reload has replaced the listener, what was queued is taken in without one: clients are told
// to leave when nothing more comes.
func (a *admission) waits(c *conn) bool {
	return a.live.queues() && !a.running.isStopping() && !c.root.endpoint.isReplaced()
}

// takeTurn waits until no other connection waits for room, or until this one is not to wait.
// The result ends its turn.
func (a *admission) takeTurn(c *conn) (end func()) {
	for a.waits(c) {
		look := time.NewTimer(mutePatience)
		select {
		case a.turn <- struct{}{}:
			look.Stop()
			return func() { <-a.turn }
		case <-look.C:
		case <-a.running.accepting.Done():
			look.Stop()
		}
	}
	return func() {}
}

// waitRoom waits until there is a place. It reports false where a connection may have become
// one that can make room meanwhile.
func (a *admission) waitRoom() bool {
	ctx, cancel := context.WithTimeout(a.running.accepting, mutePatience)
	defer cancel()
	return a.books.conns.WaitRoom(ctx) == nil
}

// dispatch books a recognised connection in its pool, as it goes to its server. It reports
// false for a connection that is refused, or was closed meanwhile.
func (a *admission) dispatch(c *conn, tag pool.Tag) bool {
	switch {
	case c.refused != notRefused:
	case c.root.allow.refuses(c.verdict()):
		c.refused = refusedNoMatch
	case c.isHTTP2() && !isAdequate(c.layers().state):
		c.refused = refusedInsecure
	}
	if tag == webSocketTag && !c.root.allow.webSocket {
		tag = pool.Tag(protocols.HTTP1) // Its handshake will be refused.
	}
	if c.refused == notRefused {
		var moved, full bool
		if c.isLocal() {
			moved = a.books.conns.Move(&c.account, tag)
		} else {
			a.room.beforeMove(tag)
			moved, full = a.books.conns.MoveWithin(&c.account, tag)
		}
		if !full {
			if !moved {
				_ = c.Close() // The drain has closed the account; the layers above it go too.
				return false
			}
			c.account.SetState(pool.StateActive) // Its first request is on the way.
			if tag == pool.Tag(protocols.GRPC) {
				a.contexts.ofNative(c)
				if c.layers().state != nil {
					c.showByAddr()
				}
			}
			c.setDue(protocols.AgeLimit(c.account.Opened(), a.maxAge(tag)))
			served := c.advance(stageServing)
			c.root.departures.greet(c)
			if c.account.CloseReason() == reasonRoom { // Its first request came as it was given up.
				a.room.departures.leave(c, reasonRoom, 0)
			}
			return served
		}
		c.refused = refusedPool
	}
	if a.probes.admit(c, tag) {
		return a.serveProbe(c, tag)
	}
	a.refuse(c, tag)
	return false
}

// maxAge returns the age limit of connections with a tag. WebSockets have theirs from their own
// server, and native gRPC connections where the sweep does not end them.
func (a *admission) maxAge(tag pool.Tag) time.Duration {
	switch protocols.Protocol(tag) {
	case protocols.HTTP1, protocols.WebSocket:
		return a.live.Load().HTTP1.MaxAge
	case protocols.HTTP2:
		return a.live.Load().HTTP2.MaxAge
	case protocols.GRPC:
		if config := a.live.Load(); config.sweepsCalls() {
			return config.GRPC.MaxAge
		}
	}
	return 0
}

// refusal is the reason for which a connection is kept out.
type refusal uint8

const (
	notRefused refusal = iota
	refusedLimit
	refusedAddress
	refusedNoMatch
	refusedInsecure
	refusedPool
)

// refusalFaults are what was wrong, by refusal; nil for notRefused.
var refusalFaults = [...]*fault{nil, faultLimit, faultAddressLimit, faultNotServed, faultWeakTLS, faultPoolLimit}

// failureInsecure is the reason under which HTTP/2 connections are counted whose TLS is
// too weak for it.
const failureInsecure = "inadequate_security"

// isAdequate reports whether HTTP/2 may be spoken over TLS with the parameters in state,
// or without TLS where it is nil. RFC 9113 section 9.2.2 and its appendix A leave these
// cipher suites of crypto/tls for TLS 1.2. Every cipher suite of TLS 1.3 is adequate.
func isAdequate(state *tls.ConnectionState) bool {
	if state == nil || state.Version >= tls.VersionTLS13 {
		return true
	}
	switch state.CipherSuite {
	case tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256:
		return state.Version == tls.VersionTLS12
	default:
		return false
	}
}

// String returns the reason, empty for notRefused.
func (r refusal) String() string {
	if r == notRefused {
		return ""
	}
	return refusalFaults[r].reason
}

// refusalOf returns the refusal for a reason that a limit has given.
func refusalOf(reason string) refusal {
	switch reason {
	case "":
		return notRefused
	case pool.ReasonAddressLimit:
		return refusedAddress
	default:
		return refusedLimit
	}
}

// refusedTag is the pool of connections that are being refused. Each is there for about a
// second, and no longer than refusedTime.
const refusedTag pool.Tag = "refused"

const (
	// refusedTime is how long an HTTP/2 connection that a limit keeps out lasts at most, until
	// the sweep ends it. Its client may not open its windows for the answers.
	refusedTime = 3 * time.Second
	// maxRefusals bounds how many connections are refused politely at a time. What comes
	// above that, in a flood, is closed without a word. Where there are few descriptors it
	// is a third of [pool.Set.Spare], as maxLeaving is.
	maxRefusals = 256
	// maxAddressRefusals bounds how many connections of one address are kept until they are
	// refused, so that it leaves some for others. It is an eighth of the others' bound where
	// there are few descriptors.
	maxAddressRefusals = 32
)

// mostPolite returns how many connections may be refused politely at a time.
func (a *admission) mostPolite() int { return max(1, min(maxRefusals, a.books.conns.Spare()/3)) }

// tooManyRefusals reports whether one more connection cannot be refused politely.
func (a *admission) tooManyRefusals() bool {
	most := a.mostPolite()
	return a.books.conns.Len(refusedTag) >= most || a.keptOut() > 2*most
}

// keptOut returns how many connections are open that a limit keeps out. Those that leave, to
// make room, have a bound of their own.
func (a *admission) keptOut() int { return a.books.conns.Above() - a.books.conns.Yielded() }

// isCrowded reports whether a limit keeps the connection out, beside too many others for it
// to be read from, to see whether it is a probe. Of those that are read from, the oldest
// goes first: a probe is sent as soon as its client has connected.
func (c *conn) isCrowded() bool {
	if c.refused == notRefused {
		return false
	}
	a := c.root.admission
	most := a.mostPolite()
	return a.keptOut() > 2*most && !a.room.beforeRefusal(c) || a.books.conns.RefusedOf(&c.account) > max(1, min(maxAddressRefusals, most/4))
}

// crowded is the verdict on such a connection, which is closed without a word.
func (c *conn) crowded() sniff.Verdict {
	return sniff.Verdict{Failure: c.refused.String(), Reason: "too many connections"}
}

// refuse ends a connection that a limit keeps out, in the words of its protocol: HTTP/1.1
// gets a 503, HTTP/2 and gRPC an answer to each request for a second. A connection whose
// protocol is not served here gets 505 or GOAWAY, and so does HTTP/2 over weak TLS.
//
// An HTTP/2 client that has not sent a request is not greeted. To it the attempt to
// connect has failed, and it backs off as it does from a server that is down.
func (a *admission) refuse(c *conn, tag pool.Tag) {
	conns, background := &a.books.conns, &a.running.background
	a.books.noteRefusal(c, tag, refusalFaults[c.refused])
	conns.Exempt(&c.account)
	c.account.SetCloseReason(reasonRefused)
	polite := !a.tooManyRefusals() && !c.verdict().IsUndecided() && conns.Move(&c.account, refusedTag)
	c.ServeByNetHTTP()
	c.advance(stageServing)
	if polite {
		unserved := c.refused == refusedNoMatch || c.refused == refusedInsecure
		switch p := c.verdict().Protocol; {
		case (p == protocols.HTTP1 || p == protocols.WebSocket) && unserved:
			text := "This port serves " + c.root.allow.String() + ".\n"
			polite = background.run(func() { a.books.refuseHTTP1(c, http.StatusHTTPVersionNotSupported, text) })
		case p == protocols.HTTP1, p == protocols.WebSocket:
			polite = background.run(func() { a.books.refuseHTTP1(c, http.StatusServiceUnavailable, protocols.TooManyConnections) })
		case unserved:
			polite = background.run(func() { denyHTTP2(c) })
		case p == protocols.HTTP2, p == protocols.GRPC:
			polite = c.root.backend.toRefuse.Deliver(a.running.accepting, c) == nil
		default:
			polite = false
		}
	}
	if !polite {
		_ = c.account.CloseBelow() // TLS's last word would wait where nothing is taken.
		_ = c.Close()
	}
}

// connAge returns how old the connection of a request is.
func connAge(r *http.Request) time.Duration {
	if c, ok := connOf(r.Context()); ok {
		return time.Since(c.account.Opened())
	}
	return 0
}

// How long, and for how many bytes, a client whose protocol is not served may go on
// sending, so that it sees the answer and no reset (RFC 9112 section 9.6).
const (
	deniedTime  = time.Second
	deniedBytes = 256 << 10
)

// denyHTTP2 tells an HTTP/2 client that it is not served here, and closes the connection.
// For HTTP/1.1 that is status 505, by which a response says which protocols the port serves
// instead (RFC 9110 section 15.6.6).
func denyHTTP2(c *conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(deniedTime))
	answer := denialHTTP2(http2.ErrCodeHTTP11Required, "this port serves "+c.root.allow.String())
	if c.refused == refusedInsecure {
		answer = denialHTTP2(http2.ErrCodeInadequateSecurity, tls.CipherSuiteName(c.layers().state.CipherSuite))
	}
	if _, err := c.Write(answer); err != nil {
		return
	}
	if c.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(struct{ io.Reader }{c.NetConn()}, deniedBytes))
	}
}

// denialHTTP2 is the server's preface, which must come first (RFC 9113 section 3.4), and
// an error. HTTP_1_1_REQUIRED sends the client to HTTP/1.1 (section 7). No stream was
// processed.
func denialHTTP2(code http2.ErrCode, why string) []byte {
	var out bytes.Buffer
	framer := http2.NewFramer(&out, nil)
	// Neither can fail: the buffer takes everything, and the text is short.
	_ = framer.WriteSettings()
	_ = framer.WriteGoAway(0, code, []byte(why))
	return out.Bytes()
}
