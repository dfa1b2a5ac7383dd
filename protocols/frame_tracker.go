package protocols

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

// keptPayload is how much of a PING's payload a frameWalk keeps, all of it, and the least of a GOAWAY's: the last
// stream and the error code (RFC 9113, sections 6.7 and 6.8). Behind those it keeps keptDebug bytes of what is meant
// for people, in which grpc-go says why.
const (
	keptPayload = 8
	keptDebug   = 8
)

// windowUpdateLen is the length of a WINDOW_UPDATE's payload (RFC 9113, section 6.9).
const windowUpdateLen = 4

// A frameWalk follows the frames of one direction of an HTTP/2 connection,
// however its bytes are split. Of a frame it keeps the head: the header, and the
// beginning of the payload where that says something.
type frameWalk struct {
	head [frameHeaderLen + keptPayload + keptDebug]byte
	have uint8  // How much of the head is there; 0 between frames and in a payload.
	want uint8  // How long the head is, as far as is known.
	left uint32 // How much of the payload is to come behind the head.
}

// atBoundary reports whether the next byte begins a frame.
func (w *frameWalk) atBoundary() bool { return w.have == 0 && w.left == 0 }

// advance takes in the beginning of p, which is not empty, and returns how much:
// what is left of a payload, or a piece of a head. It reports whether the head
// has become complete with it.
func (w *frameWalk) advance(p []byte) (n int, complete bool) {
	if w.left > 0 {
		n = min(int(w.left), len(p))
		w.left -= uint32(n)
		return n, false
	}
	if w.have == 0 {
		w.want = frameHeaderLen
	}
	n = copy(w.head[w.have:w.want], p)
	w.have += uint8(n)
	if w.have < w.want {
		return n, false
	}
	h := w.frame()
	if kept := h.kept(); w.want == frameHeaderLen && kept > 0 {
		w.want += uint8(kept)
		return n, false
	}
	w.left = uint32(h.length) - uint32(w.want-frameHeaderLen)
	w.have = 0
	return n, true
}

// frame returns the header of the frame whose head was completed last.
func (w *frameWalk) frame() frameHeader { return parseFrameHeader(w.head[:]) }

// payload returns what was kept of that frame's payload.
func (w *frameWalk) payload() []byte { return w.head[frameHeaderLen:w.want] }

// kept returns how much of the frame's payload belongs to its head.
func (h frameHeader) kept() int {
	switch h.typ {
	case http2.FramePing:
		return min(h.length, keptPayload)
	case http2.FrameGoAway:
		return min(h.length, keptPayload+keptDebug)
	case http2.FrameWindowUpdate:
		return min(h.length, windowUpdateLen)
	default:
		return 0
	}
}

// A frameOutput is a frameWalk of what a server writes, which knows where another frame may stand.
type frameOutput struct {
	frameWalk

	wired uint8 // How much of an incomplete head is on the wire.
	owed  uint8 // How much of it was held back by earlier writes.
	begun bool  // The first SETTINGS is out, which nothing may precede (RFC 9113, section 3.4).
	block bool  // A header block is open, which nothing may interrupt (RFC 9113, section 4.3).
	drop  bool  // The current payload is taken out.

	data uint64 // The lengths of all DATA frames.
}

// mayInsert reports whether another frame may come next.
func (o *frameOutput) mayInsert() bool { return o.begun && !o.block && o.atBoundary() }

// note takes note of the frame whose head has become complete.
func (o *frameOutput) note(h frameHeader) {
	if h.typ == http2.FrameData {
		o.data += uint64(h.length)
	}
	o.wired, o.owed = 0, 0
	switch h.typ {
	case http2.FrameSettings:
		o.begun = true
	case http2.FrameHeaders, http2.FramePushPromise, http2.FrameContinuation:
		o.block = !h.flags.Has(http2.FlagHeadersEndHeaders) // All three use the same bit.
	}
}

// goAwayFields returns the last stream and the error code of a GOAWAY's payload
// of at least keptPayload bytes.
func goAwayFields(payload []byte) (last uint32, code http2.ErrCode) {
	return binary.BigEndian.Uint32(payload) &^ (1 << 31), http2.ErrCode(binary.BigEndian.Uint32(payload[4:]))
}

// appendGoAway appends a GOAWAY frame.
func appendGoAway(b []byte, last uint32, code http2.ErrCode, debug string) []byte {
	payload := binary.BigEndian.AppendUint32(make([]byte, 0, keptPayload+len(debug)), last)
	payload = binary.BigEndian.AppendUint32(payload, uint32(code))
	return appendFrame(b, http2.FrameGoAway, 0, append(payload, debug...))
}
