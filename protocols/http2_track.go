package protocols

import (
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// goAwayPing is the payload of the PING that follows the first GOAWAY. Neither
// net/http nor grpc-go looks at the answer to a PING that is not its own.
var goAwayPing = [pingLen]byte{'m', 'u', 'x', 's', 'e', 'r', 'v', 'e'}

// The frames that an http2Track can be asked for. Each makes those before it needless.
const (
	askGoAway uint32 = 1 << iota // GOAWAY for the largest stream, and a PING.
	askFinal                     // GOAWAY for the highest stream that the client has opened.
	askCalm                      // The same with ENHANCE_YOUR_CALM, for a flood of resets.
)

// What is known about the end of the connection.
const (
	markPinged  uint32 = 1 << iota // Our PING is on its way, so an answer to it counts.
	markTold                       // A GOAWAY is written.
	markSettled                    // GoneAway has nothing more to wait for.
	markIdle                       // The server has left because nothing was in flight.
	markAged                       // The server has left because of the connection's age.
)

// An http2Track stands between a server and an HTTP/2 connection and follows the
// frames of both directions. It takes out frames that the client must not see from the
// server, and writes frames of its own between the server's.
//
// One goroutine reads, by admit and follow, and one at a time writes, by begin and
// finish; see [Conn.Write]. The other methods are safe at any time.
type http2Track struct {
	inner     net.Conn
	bare      bareConn // Is inner, or nil.
	conn      *Conn    // For onFlood.
	onFlood   func(*Conn)
	maxResets int32

	asked   atomic.Uint32 // The ask bits of all that was ever asked for.
	pending atomic.Uint32 // The ask bits of what is still to be written.
	marks   atomic.Uint32
	code    atomic.Uint32 // The error code of the final GOAWAY.
	highest atomic.Uint32 // The highest stream that the client has opened.

	sentData atomic.Uint64 // Length of all DATA frames written.
	// window is what the client may send on the connection beyond the standard
	// window (RFC 9113, section 6.9.2).
	window atomic.Int64
	// pinged is the wall clock's time of the server's first PING without an answer; 0
	// for none.
	pinged atomic.Int64
	resets atomic.Pointer[resetBound]

	// acked keeps what follows the client's first SETTINGS from the server until the
	// server has acknowledged it; nil where Sniff played no handshake. net/http answers
	// two SETTINGS frames by one ACK when the second comes before the first ACK is
	// written. The track takes that ACK out, and the client's second SETTINGS would get
	// none (RFC 9113, section 6.5.3).
	acked  chan struct{}
	opened atomic.Bool // acked is closed.

	// The reading goroutine owns these.
	before int // How many bytes may pass before acked is closed; -1 once it was.
	in     frameWalk

	mu  sync.Mutex // Guards out, and makes writers take turns.
	out http2Output
}

// newHTTP2Track returns a track for c. If played is set, Sniff has sent the
// server's SETTINGS and one ACK in its place.
func newHTTP2Track(c *Conn, config *SniffConfig, played bool) *http2Track {
	t := &http2Track{
		inner:     c.inner,
		bare:      bareOf(c.inner),
		conn:      c,
		onFlood:   config.OnFlood,
		maxResets: int32(min(config.MaxResetsPerMinute, math.MaxInt32)),
		in:        frameWalk{left: uint32(len(http2.ClientPreface))},
	}
	t.out.lastTold = noGoAway
	if played {
		t.out.begun, t.out.dropSettings, t.out.dropACKs = true, true, 1
	}
	return t
}

// holdBehind has reads wait behind the next n bytes for the server's ACK.
func (t *http2Track) holdBehind(n int) { t.acked, t.before = make(chan struct{}), n }

// openGate ends what holdBehind began.
func (t *http2Track) openGate() {
	if t.acked != nil && t.opened.CompareAndSwap(false, true) {
		close(t.acked)
	}
}

// isGated reports whether a read may have to wait for the server's ACK.
func (t *http2Track) isGated() bool { return t.acked != nil && !t.opened.Load() }

// admit returns as much of p as may be read into. It waits for the server's ACK
// where that is due.
func (t *http2Track) admit(p []byte) []byte {
	switch {
	case t.acked == nil || t.before < 0 || len(p) == 0:
		return p
	case t.before > 0:
		return p[:min(len(p), t.before)]
	}
	<-t.acked
	t.before = -1
	return p
}

// follow looks at what the server has read.
func (t *http2Track) follow(p []byte) {
	if t.before > 0 {
		t.before -= len(p)
	}
	for len(p) > 0 {
		n, complete := t.in.advance(p)
		p = p[n:]
		if complete {
			t.received(t.in.frame())
		}
	}
}

// received takes note of a frame of the client's.
func (t *http2Track) received(h frameHeader) {
	switch h.typ {
	case http2.FrameData:
		t.window.Add(-int64(h.length))
	case http2.FrameHeaders:
		if last := t.highest.Load(); h.stream > last && h.stream%2 == 1 {
			if r := t.resets.Load(); r != nil {
				r.opened(last, h.stream)
			}
			t.highest.Store(h.stream)
		}
	case http2.FrameRSTStream:
		t.reset(h.stream)
	case http2.FramePing:
		if !h.isAck() {
			return
		}
		t.pinged.Store(0)
		if string(t.in.payload()) == string(goAwayPing[:]) && t.marks.Load()&markPinged != 0 {
			t.marks.Or(markSettled)
		}
	}
}

// GoAway tells the client of an HTTP/2 connection to open no more streams. It sends
// a GOAWAY that refuses no stream and a PING behind it (RFC 9113, section 6.8), so
// streams that the client sends before it has read them are served. When
// [Conn.GoneAway] says that the PING has come back, [Conn.FinalGoAway] can name the
// last stream.
//
// The frames are written between two frames of the server. If a Write is under way,
// it takes them along, and GoAway does not wait for it. Otherwise GoAway waits until
// they are written, for a second at most. If the client reads nothing, they are then
// still to be written, and the server's next Write waits for them.
//
// Only the first call has an effect. It has none on a connection that was not
// recognised as HTTP2 or GRPC, after a GOAWAY of the server, after FinalGoAway, and
// after Close.
//
// After a GOAWAY of ours, one of the server is taken out if it has no error code and
// names no lower stream, because the number must not grow.
func (c *Conn) GoAway() { c.ask(askGoAway) }

// FinalGoAway sends a GOAWAY with code that names the highest stream that the
// client has opened so far. The server still serves what comes later. GoAway need
// not precede it, and what is said there of writing holds here.
func (c *Conn) FinalGoAway(code http2.ErrCode) {
	if t := c.h2.Load(); t != nil && t.asked.Load()&askFinal == 0 {
		t.code.Store(uint32(code))
	}
	c.ask(askFinal)
}

func (c *Conn) ask(what uint32) {
	if t := c.h2.Load(); t != nil {
		t.ask(what)
	}
}

// GoneAway reports whether a GOAWAY was written (told), and whether there is nothing
// more to wait for (acked): the PING of [Conn.GoAway] has come back, so that no
// stream is on its way, or another GOAWAY was written, by FinalGoAway, for a
// flood of resets, or by the server.
func (c *Conn) GoneAway() (told, acked bool) {
	t := c.h2.Load()
	if t == nil {
		return false, false
	}
	marks := t.marks.Load()
	return marks&markTold != 0, marks&markSettled != 0
}

// ServerLeft reports what made the server of an HTTP/2 connection leave by itself:
// the connection was idle, or too old, or the client has not answered a PING for
// longer than patience. A server that is shut down looks like one whose
// connection is idle.
func (c *Conn) ServerLeft(patience time.Duration) (idle, aged, mute bool) {
	t := c.h2.Load()
	if t == nil {
		return false, false, false
	}
	marks, since := t.marks.Load(), t.pinged.Load()
	mute = since != 0 && patience > 0 && time.Since(time.Unix(0, since)) >= patience
	return marks&markIdle != 0, marks&markAged != 0, mute
}

// SentData returns the length in bytes of all DATA frames that the server has begun
// to write on an HTTP/2 connection, and 0 elsewhere. A PING does not move it.
func (c *Conn) SentData() uint64 {
	if t := c.h2.Load(); t != nil {
		return t.sentData.Load()
	}
	return 0
}

// WindowShut reports whether the server of an HTTP/2 connection has left the client
// too little room for another whole frame of DATA.
func (c *Conn) WindowShut() bool {
	t := c.h2.Load()
	return t != nil && t.window.Load() < maxFrameSize-defaultStreamWindow
}
