package h2

import (
	"crypto/rand"
	"sync/atomic"

	"golang.org/x/net/http2"
)

// maxBehind is how many frames of the client lie between two markers of a pace. Each may
// make the server owe the client a frame: the answer to a PING or SETTINGS, RST_STREAM or
// WINDOW_UPDATE.
const maxBehind = 256

// A pace bounds how many frames the server owes the client: net/http would keep 10,000 of
// them in memory for a client that does not read. After each maxBehind frames of the
// client, the server reads a PING that the client has not sent, the marker. Its answer is
// taken out of the server's output, and shows that all that was owed before it is written:
// net/http writes such frames in the order in which they became due. While two markers are
// not answered, nothing more is read.
type pace struct {
	// The reading goroutine owns these.
	frames int    // since the last marker
	block  bool   // a header block is open, which nothing may interrupt
	rest   []byte // what the server reads next: of the marker, or of what was held
	held   []byte // of a header, what the server gets when it is whole; see hideStray
	sent   uint32 // markers
	table  encoderTable

	// The writing goroutine owns this: what the server has reset, nil before the first.
	reset *resetStreams

	kept atomic.Pointer[keptWindows] // nil before it is needed
	// connRoom is what the client may send on the connection beyond the standard window (RFC
	// 9113, section 6.9.2).
	connRoom atomic.Int64

	unacked  atomic.Int32 // SETTINGS of the server that the client has not acknowledged
	answered atomic.Uint32
	gate     streamGate
	wake     chan struct{} // has an element when answered has moved, or the connection has ended
	ended    atomic.Bool
}

// marker is the PING that paces. It never leaves this process, so that no client knows it.
var marker = func() []byte {
	var data [PingLen]byte
	_, _ = rand.Read(data[:]) // It never fails.
	return AppendFrame(nil, http2.FramePing, 0, data[:])
}()

// ReadMarker reads from the marker into p, where that is next, or what Follow has left over.
// Before the marker it waits for the answer to an earlier one, where it has to. It returns 0
// where the client's bytes are next.
func (t *Track) ReadMarker(p []byte) int {
	c := t.pace
	if c == nil || len(c.rest) == 0 && (c.frames < maxBehind || c.block || !t.in.atBoundary()) {
		return 0
	}
	if len(c.rest) == 0 {
		for c.sent-c.answered.Load() > 1 && !c.ended.Load() {
			<-c.wake
		}
		c.frames, c.rest = 0, marker
		c.sent++
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n
}

// follow takes note of a frame of the client's.
func (c *pace) follow(h Header) {
	c.frames++
	if h.Type == http2.FrameHeaders || h.Type == http2.FrameContinuation {
		c.block = !h.Flags.Has(http2.FlagHeadersEndHeaders) // The same bit for both.
	}
}

// isAnswer reports whether a PING's answer is the marker's. It is called for each once.
func (c *pace) isAnswer(payload []byte) bool {
	if c == nil || string(payload) != string(marker[HeaderLen:]) {
		return false
	}
	c.answered.Add(1)
	c.signal()
	return true
}

// end ends the wait of ReadMarker for good.
func (c *pace) end() {
	if c != nil {
		c.ended.Store(true)
		c.signal()
	}
}

func (c *pace) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}
