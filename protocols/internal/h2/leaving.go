package h2

import (
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/protocols/moments"
)

// This file has what a connection does when its client is to leave: the GOAWAYs, the PINGs
// behind them, and the gate that refuses streams beyond the last.

// goAwayPing is the payload of the PING that follows the first GOAWAY. Neither
// net/http nor grpc-go looks at the answer to a PING that is not its own.
var goAwayPing = [PingLen]byte{'m', 'u', 'x', 's', 'e', 'r', 'v', 'e'}

// readPing begins the payload of a PING behind answers. What had been sent by then follows.
const readPing = "read"

// What is known about the connection, and mostly about its end.
const (
	markPinged   uint32 = 1 << iota // Our PING is on its way, so an answer to it counts.
	markTold                        // A GOAWAY is written.
	markSettled                     // GoneAway has nothing more to wait for.
	markIdle                        // The server has left because nothing was in flight.
	markAged                        // The server has left because of the connection's age.
	markAsked                       // A readPing is asked for, behind the last answer.
	markRead                        // And the client has answered it.
	markReleased                    // The channel serverAcked is closed.
	markEnded                       // The connection ends: no PING is to follow.
	markOpening                     // The header block of the highest stream is not whole yet.
	markTelling                     // A GOAWAY is on its way, so the client may know of it.
)

// GoAway sends a GOAWAY that refuses no stream, and a PING some time behind it. See GoAway of
// the package sniff.
func (t *Track) GoAway() { t.ask(askGoAway) }

// pingLater has the PING follow the first GOAWAY, which is written.
func (t *Track) pingLater() {
	t.pings().goAway.Store(time.AfterFunc(moments.PingAfter, func() {
		t.pending.Or(askPing)
		t.settle()
	}))
	if t.marks.Load()&markEnded != 0 { // pingNever may have seen no timer.
		t.pingNever()
	}
}

// pingNever ends the wait of pingLater for good.
func (t *Track) pingNever() {
	t.marks.Or(markEnded)
	if k := t.keepalive.Load(); k != nil {
		if timer := k.goAway.Load(); timer != nil {
			timer.Stop()
		}
	}
}

// FinalGoAway sends a GOAWAY that names the highest stream that the client has opened
// so far. It waits for a write that is under way, since its caller may close the
// connection behind it.
func (t *Track) FinalGoAway() { t.askNow(askFinal) }

// AskRead sends a PING behind the answers so far, for HasRead, unless one was sent for them.
func (t *Track) AskRead() {
	if t.marks.Or(markAsked)&markAsked == 0 {
		t.pending.Or(askRead)
		go t.settle() // In another goroutine, since the client may read nothing.
	}
}

// noteRead notes that the client has read what had been sent, by sentData's lower bits. Where
// the server has sent more since, or does so meanwhile, AskRead asks anew.
func (t *Track) noteRead(sent uint32) {
	now := t.sentData.Load()
	if unread := uint64(uint32(now) - sent); unread <= now {
		t.pings().reads(now - unread)
	}
	isAll := func() bool { return sent == uint32(t.sentData.Load()) }
	if isAll() {
		t.marks.Or(markRead)
	}
	if !isAll() {
		t.marks.And(^(markAsked | markRead))
	}
}

// HasRead reports whether the client has read all answers to their end, as far as AskRead has
// asked: the client answers a PING when it has read what comes before it.
func (t *Track) HasRead() bool { return t.marks.Load()&markRead != 0 || t.sentData.Load() == 0 }

// GoneAway reports whether a GOAWAY was written (told), and whether there is nothing
// more to wait for (acked).
func (t *Track) GoneAway() (told, acked bool) {
	marks := t.marks.Load()
	return marks&markTold != 0, marks&markSettled != 0
}

// ServerLeft reports what made the server leave by itself.
func (t *Track) ServerLeft(patience time.Duration) (idle, aged, mute bool) {
	marks, silence := t.marks.Load(), t.silence()
	mute = patience > 0 && silence >= patience
	return marks&markIdle != 0, marks&markAged != 0, mute
}

// nameLast returns the highest stream that the client has opened, which the caller tells it.
// Streams beyond that are not served from now on: the client opens them anew on another
// connection (RFC 9113, section 6.8), and a request must not be served twice.
func (t *Track) nameLast() uint32 {
	if g := t.gate(); g != nil {
		return g.shut()
	}
	return t.highest.Load()
}

// IsBeyondLast reports whether the client was told that a stream is not served.
func (t *Track) IsBeyondLast(stream uint32) bool {
	g := t.gate()
	return g != nil && g.isBeyond(stream)
}

// gate is nil where nothing is refused: on a native connection that is not watched.
func (t *Track) gate() *streamGate {
	switch {
	case t.calls != nil:
		return &t.calls.gate
	case t.pace != nil:
		return &t.pace.gate
	default:
		return nil
	}
}

// A streamGate decides which streams of the client are served, once and for all: those up to
// the last that the client is told of. The zero value is open. All methods may be called
// concurrently.
type streamGate struct {
	// word has the highest stream that has come, and above that, from namedShift on, one more
	// than the last that was named; 0 before that.
	word atomic.Uint64
}

const namedShift = 32

// pass reports whether a stream that comes is served.
func (g *streamGate) pass(stream uint32) bool {
	for {
		word := g.word.Load()
		switch {
		case word>>namedShift != 0:
			return !g.isBeyond(stream)
		case uint32(word) >= stream, g.word.CompareAndSwap(word, uint64(stream)):
			return true
		}
	}
}

// shut returns the last stream that is served. It is the same each time.
func (g *streamGate) shut() uint32 {
	for {
		word := g.word.Load()
		if named := uint32(word >> namedShift); named != 0 {
			return named - 1
		}
		if last := uint32(word); g.word.CompareAndSwap(word, uint64(last+1)<<namedShift|word) {
			return last
		}
	}
}

// lastServed returns the highest stream that is served, of those up to highest.
func (g *streamGate) lastServed(highest uint32) uint32 {
	if named := uint32(g.word.Load() >> namedShift); named != 0 {
		return min(highest, named-1)
	}
	return highest
}

// isBeyond reports whether a stream is not served.
func (g *streamGate) isBeyond(stream uint32) bool {
	named := uint32(g.word.Load() >> namedShift)
	return named != 0 && stream >= named
}
