package protocols

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// maxStreamID is the largest stream there can be (RFC 9113, section 5.1.1). A
// GOAWAY that names it refuses no stream that is on its way (section 6.8).
const maxStreamID = 1<<31 - 1

// noGoAway is more than any GOAWAY can name.
const noGoAway = 1 << 31

// goAwayPing is the PING that follows the first GOAWAY. Neither net/http nor grpc-go
// cares for the answer to a PING that is not its own.
var goAwayPing = [keptPayload]byte{'m', 'u', 'x', 's', 'e', 'r', 'v', 'e'}

// What an http2Track can be asked to write. Each makes those before it needless.
const (
	askGoAway uint32 = 1 << iota
	askFinal
	askCalm
)

// What is known of a client's being told, as GoAway and the reading side mark it.
const (
	markPinged  uint32 = 1 << iota // The PING is on its way out, so an answer to it counts.
	markTold                       // A GOAWAY is out.
	markSettled                    // There is nothing more to wait for.
)

// An http2Track stands between a server and an HTTP/2 connection. It follows the
// frames of both directions, so that a frame of its own can come between two of the server's.
//
// A frame is asked for by a bit in pending, and written by whoever has mu then: the
// server's Write at its next chance, or who asked, where no Write is under way.
type http2Track struct {
	conn      *Conn
	maxResets int
	onFlood   func(*Conn)

	pending atomic.Uint32 // The ask bits of what is to be written.
	asked   atomic.Uint32 // The ask bits of all that was ever asked for.
	marks   atomic.Uint32
	code    atomic.Uint32 // The error code of the final GOAWAY.
	highest atomic.Uint32 // The highest stream that the client has opened.
	resets  atomic.Pointer[resetBound]

	in frameWalk // Owned by the reading side.

	mu     sync.Mutex // Guards the next two, and makes writers take turns.
	wire   wireState
	broken bool // Half a frame is out, or will be: nothing can be inserted any more.

	deadlines sync.Mutex // Guards the next two.
	deadline  time.Time  // The server's write deadline.
	lent      bool       // Another one is set meanwhile.
}

// A wireState is what is known of the bytes that are on the wire.
type wireState struct {
	out  frameOutput
	away goneAway
}

// A goneAway is what the client was told by GOAWAY frames.
type goneAway struct {
	last   uint32 // The least stream that one of them named, or noGoAway.
	ours   bool   // One of them was ours, so the server's are looked at.
	server bool   // One of them was the server's.
	final  bool   // FinalGoAway's is among them, or one for resets.
}

// newHTTP2Track returns a track for c, which has just been recognised.
func newHTTP2Track(c *Conn, config *SniffConfig) *http2Track {
	return &http2Track{
		conn:      c,
		maxResets: config.MaxResetsPerMinute,
		onFlood:   config.OnFlood,
		in:        frameWalk{left: uint32(len(http2.ClientPreface))},
		wire: wireState{
			out:  frameOutput{begun: c.filter != nil}, // Then Sniff has sent the SETTINGS.
			away: goneAway{last: noGoAway},
		},
	}
}

// GoAway tells the client of an HTTP/2 connection to make no new streams, by a
// GOAWAY that refuses none, and sends a PING behind it (RFC 9113, section 6.8).
// Streams that the client sends before it has read that are served. When
// [Conn.GoneAway] says that the PING has come back, [Conn.FinalGoAway] can say
// which stream was the last.
//
// The frames are written between two frames of the server, which may be later:
// GoAway does not wait for a Write that is under way. It may itself take up to a
// second where the client reads nothing. Only the first call has an effect, and
// that has none where the connection was not recognised as HTTP2 or GRPC, where
// the server has written a GOAWAY of its own, or after FinalGoAway and Close.
//
// Behind a GOAWAY of ours, one that the server writes is taken out where it has
// no error code and names no lower stream, because the number must not grow.
func (c *Conn) GoAway() { c.ask(askGoAway) }

// FinalGoAway sends a GOAWAY with code that names the highest stream that the
// client has opened so far. The server goes on serving whatever comes. In all
// else it is like [Conn.GoAway], which need not precede it.
func (c *Conn) FinalGoAway(code http2.ErrCode) {
	if t := c.h2.Load(); t != nil && t.asked.Load()&askFinal == 0 {
		t.code.Store(uint32(code))
	}
	c.ask(askFinal)
}

// GoneAway reports whether a GOAWAY has been written, and whether there is
// nothing more to wait for: the PING of [Conn.GoAway] has come back, so that no
// stream is on its way any more, or another GOAWAY has been written, be it by
// FinalGoAway, for a flood of resets or by the server itself.
func (c *Conn) GoneAway() (told, acked bool) {
	t := c.h2.Load()
	if t == nil {
		return false, false
	}
	marks := t.marks.Load()
	return marks&markTold != 0, marks&markSettled != 0
}

func (c *Conn) ask(what uint32) {
	if t := c.h2.Load(); t != nil {
		t.ask(what)
	}
}

// ask has a frame written, once.
func (t *http2Track) ask(what uint32) {
	if t.asked.Or(what) >= what {
		return // It was asked for before, or what makes it needless was.
	}
	t.pending.Or(what)
	t.settle(true)
}

// follow looks at what the server reads.
func (t *http2Track) follow(p []byte) {
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
		if h.isAck() && string(t.in.payload()) == string(goAwayPing[:]) && t.marks.Load()&markPinged != 0 {
			t.marks.Or(markSettled)
		}
	}
}
