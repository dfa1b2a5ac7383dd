package protocols

import (
	"encoding/binary"
	"math"
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
	markIdle                       // The server has left because nothing was in flight.
	markAged                       // The server has left because of the connection's age.
)

// What grpc-go's first GOAWAY says to people.
const (
	debugIdle = "max_idle"
	debugAge  = "max_age"
)

// noteAway takes note of why the server leaves. net/http says nothing, and leaves by itself only when it is idle.
func (t *http2Track) noteAway(payload []byte) {
	_, code := goAwayFields(payload)
	switch debug := string(payload[keptPayload:]); {
	case code != http2.ErrCodeNo || t.marks.Load()&markTold != 0:
	case debug == debugAge:
		t.marks.Or(markAged)
	case debug == debugIdle || debug == "":
		t.marks.Or(markIdle)
	}
}

// ServerLeft reports what made the server of an HTTP/2 connection leave by itself: its GOAWAY, or a PING that
// the client has not answered for longer than patience. A server that is being shut down looks like one whose connection is idle.
func (c *Conn) ServerLeft(patience time.Duration) (idle, aged, mute bool) {
	t := c.h2.Load()
	if t == nil {
		return false, false, false
	}
	marks, since := t.marks.Load(), t.pinged.Load()
	mute = since != 0 && patience > 0 && time.Since(time.Unix(0, since)) >= patience
	return marks&markIdle != 0, marks&markAged != 0, mute
}

// An http2Track stands between a server and an HTTP/2 connection. It follows the
// frames of both directions, so that a frame of its own can come between two of the server's.
//
// A frame is asked for by a bit in pending, and written by whoever has mu then: the
// server's Write at its next chance, or who asked, where no Write is under way.
type http2Track struct {
	conn    *Conn
	onFlood func(*Conn)

	pending atomic.Uint32 // The ask bits of what is to be written.
	asked   atomic.Uint32 // The ask bits of all that was ever asked for.
	marks   atomic.Uint32
	code    atomic.Uint32 // The error code of the final GOAWAY.
	highest atomic.Uint32 // The highest stream that the client has opened.

	maxResets int32

	data   atomic.Uint64 // The length of all DATA frames that are out.
	window atomic.Int64  // What the client may send on the connection, beyond the standard window (RFC 9113, section 6.9.2).
	pinged atomic.Int64  // Since when, by the wall clock, an answer to a PING of the server is awaited; 0 for not.
	resets atomic.Pointer[resetBound]
	gate   atomic.Pointer[ackGate] // Nil where Sniff played no handshake.

	in     frameWalk       // Owned by the reading side, as is the next.
	ahead  *readAhead      // Nil before the first read behind the peek buffer; see the method.
	filter *settingsFilter // Owned by the writing side; nil most of the time.

	mu    sync.Mutex // Guards wire, plain and broken, and makes writers take turns.
	wire  wireState
	plain []byte // What is being written as it is.

	deadlines sync.Mutex // Guards the next two.
	deadline  deadline   // The server's write deadline.
	lent      bool       // Another one is set meanwhile.

	broken bool // Half a frame is out, or will be: nothing can be inserted any more. It stands here because it fits in.
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

// newHTTP2Track returns a track for c, which has just been recognised. The filter is not nil where Sniff has sent the SETTINGS.
func newHTTP2Track(c *Conn, config *SniffConfig, filter *settingsFilter) *http2Track {
	return &http2Track{
		conn:      c,
		maxResets: int32(min(config.MaxResetsPerMinute, math.MaxInt32)),
		onFlood:   config.OnFlood,
		in:        frameWalk{left: uint32(len(http2.ClientPreface))},
		filter:    filter,
		wire: wireState{
			out:  frameOutput{begun: filter != nil},
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

// SentData returns how many bytes of DATA frames the server has begun to write on an HTTP/2 connection: unlike
// the bytes of the connection, no PING moves it. It is 0 elsewhere.
func (c *Conn) SentData() uint64 {
	if t := c.h2.Load(); t != nil {
		return t.data.Load()
	}
	return 0
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

// increment returns what a WINDOW_UPDATE's payload adds to a window.
func increment(payload []byte) uint64 { return uint64(binary.BigEndian.Uint32(payload) &^ (1 << 31)) }

// notePing takes note that the server has sent a PING. The time is that of the first which is not answered.
func (t *http2Track) notePing() {
	if t.pinged.Load() == 0 {
		t.pinged.CompareAndSwap(0, time.Now().UnixNano())
	}
}

// WindowShut reports whether the client of an HTTP/2 connection may not send another whole frame of DATA at the moment,
// because the server has not made room for more.
func (c *Conn) WindowShut() bool {
	t := c.h2.Load()
	return t != nil && t.window.Load() < maxFrameSize-defaultStreamWindow
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
		if h.isAck() {
			t.pinged.Store(0)
		}
		if h.isAck() && string(t.in.payload()) == string(goAwayPing[:]) && t.marks.Load()&markPinged != 0 {
			t.marks.Or(markSettled)
		}
	}
}
