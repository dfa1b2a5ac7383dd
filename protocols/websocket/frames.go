package websocket

import (
	"encoding/binary"
	"io"
	"sync"
)

// The layout of a WebSocket frame's header (RFC 6455 section 5.2).
const (
	minFrameHead = 2                          // every header has so many bytes
	maxFrameHead = minFrameHead + 8 + maskLen // with the long length and a masking key
	maskLen      = 4

	closeFrame = finBit | 0x8 // the first byte of a close frame
	pingFrame  = finBit | 0x9
	pongFrame  = finBit | 0xA
	finBit     = 0x80 // in the first byte: the last frame of its message
	controlBit = 0x08 // in the first byte: close, ping or pong, which are no messages
	maskBit    = 0x80 // in the second byte
	lengthBits = 0x7F // in the second byte

	length16 = 126 // the length is in the next 2 bytes
	length64 = 127 // the length is in the next 8 bytes
)

// A messageCounter counts the messages in one direction of a WebSocket. It follows the
// headers of the frames, however the bytes are split, and counts a message when the header
// of its last frame is complete. It does not check the frames; coder/websocket does.
//
// The zero value stands before the first frame. It is not safe for concurrent use.
type messageCounter struct {
	payload uint64 // how much of the current frame's payload is missing
	have    uint8  // how many bytes of header are there
	open    bool   // a message has begun, and its last frame has not
	ponged  bool   // a pong has come; for the caller to take back
	header  [maxFrameHead]byte
}

// count returns how many messages p completes. The bytes of p follow those of the last
// call.
func (c *messageCounter) count(p []byte) (messages int) {
	// Nearly every p is one short frame, and complete.
	for c.payload == 0 && c.have == 0 && len(p) >= minFrameHead {
		whole := frameHeadLen(p[1]) + int(p[1]&lengthBits)
		if p[1]&lengthBits >= length16 || whole > len(p) {
			break
		}
		c.header[0] = p[0]
		messages += c.begin()
		p = p[whole:]
	}
	for {
		if uint64(len(p)) <= c.payload {
			c.payload -= uint64(len(p))
			return messages
		}
		p = p[c.payload:]
		c.payload = 0
		n, complete := c.takeHeader(p)
		p = p[n:]
		if !complete {
			return messages
		}
		messages += c.begin()
	}
}

// begin notes that a frame begins. It returns 1 if that is the last one of a message.
func (c *messageCounter) begin() (messages int) {
	if c.header[0]&controlBit != 0 {
		c.ponged = c.ponged || c.header[0] == pongFrame
		return 0
	}
	if c.open = c.header[0]&finBit == 0; c.open {
		return 0
	}
	return 1
}

// isBetweenFrames reports whether the bytes end with a frame. The zero value does.
func (c *messageCounter) isBetweenFrames() bool { return c.payload == 0 && c.have == 0 }

// isInMessage reports whether a message has begun and not ended.
func (c *messageCounter) isInMessage() bool {
	return c.open || !c.isBetweenFrames() && (c.have > 0 || c.header[0]&controlBit == 0)
}

// emptyFrame is the beginning of a frame that adds nothing to its message, of which a
// client can send any number: a continuation, not the last, masked, without a payload.
const emptyFrame = "\x00\x80"

// squeeze is count, and takes whole empty frames out of p: coder/websocket takes 250 ns for
// each. It returns what is left, in place.
func (c *messageCounter) squeeze(p []byte) (left []byte, messages int) {
	left = p[:0]
	for len(p) > 0 {
		for c.open && c.payload == 0 && c.have == 0 && len(p) >= minFrameHead+maskLen && string(p[:minFrameHead]) == emptyFrame {
			p = p[minFrameHead+maskLen:]
		}
		n := c.untilEnd(p)
		messages += c.count(p[:n])
		left = append(left, p[:n]...)
		p = p[n:]
	}
	return left, messages
}

// untilEnd returns how much of p belongs to the current frame, or to the next one. Of a
// header that is not complete it is one byte.
func (c *messageCounter) untilEnd(p []byte) int {
	switch {
	case c.payload > 0:
		return int(min(c.payload, uint64(len(p))))
	case c.have > 0 || len(p) < minFrameHead || len(p) < frameHeadLen(p[1]):
		return min(1, len(p))
	}
	return frameHeadLen(p[1])
}

// isBetween reports whether the bytes end with a message or with a control frame.
func (c *messageCounter) isBetween() bool {
	return c.isBetweenFrames() && c.header[0]&finBit != 0
}

// isEnd reports whether the bytes end with a close frame.
func (c *messageCounter) isEnd() bool { return c.header[0] == closeFrame && c.isBetween() }

// takeHeader takes the n bytes that p has of the current frame's header. It sets payload
// when the header is complete.
func (c *messageCounter) takeHeader(p []byte) (n int, complete bool) {
	for need := minFrameHead; ; {
		if int(c.have) >= minFrameHead {
			need = frameHeadLen(c.header[1])
		}
		taken := copy(c.header[c.have:need], p[n:])
		n += taken
		c.have += uint8(taken)
		switch {
		case int(c.have) < need:
			return n, false
		case need == frameHeadLen(c.header[1]):
			c.have = 0
			c.payload = framePayload(&c.header)
			return n, true
		}
	}
}

// frameHeadLen returns the length of a header by its second byte.
func frameHeadLen(second byte) int {
	n := minFrameHead
	switch second & lengthBits {
	case length16:
		n += 2
	case length64:
		n += 8
	}
	if second&maskBit != 0 {
		n += maskLen
	}
	return n
}

// framePayload returns the length of the payload that a complete header announces.
func framePayload(header *[maxFrameHead]byte) uint64 {
	switch n := header[1] & lengthBits; n {
	case length16:
		return uint64(binary.BigEndian.Uint16(header[minFrameHead:]))
	case length64:
		return binary.BigEndian.Uint64(header[minFrameHead:])
	default:
		return uint64(n)
	}
}

// A frameWriter buffers as coder/websocket expects of its writer, but has a buffer only
// while a message is incomplete. It writes at once where the bytes end with a message or a
// control frame, and before that when 4 KB wait, which is the size of net/http's buffer.
//
// The field to must be set, all else may be zero. It is not safe for concurrent use.
type frameWriter struct {
	to     io.Writer
	frames messageCounter
	held   *[heldSize]byte // nil where no bytes wait
	n      int             // how many bytes wait
}

const heldSize = 4 << 10

var heldArrays = sync.Pool{New: func() any { return new([heldSize]byte) }}

// write writes p, or keeps it until the rest of its message comes. It returns how many
// messages p completes.
func (w *frameWriter) write(p []byte) (messages int, err error) {
	messages = w.frames.count(p)
	if w.held == nil && w.frames.isBetween() {
		_, err = w.to.Write(p)
		return messages, err
	}
	return messages, w.collect(p)
}

// collect is write for a message that comes in pieces.
func (w *frameWriter) collect(p []byte) error {
	if w.held == nil {
		if len(p) >= heldSize {
			_, err := w.to.Write(p)
			return err
		}
		w.held = heldArrays.Get().(*[heldSize]byte)
	}
	n := copy(w.held[w.n:], p)
	w.n += n
	switch p = p[n:]; {
	case len(p) > 0: // It is full.
		if err := w.flush(); err != nil {
			return err
		}
		if w.frames.isBetween() {
			_, err := w.to.Write(p)
			return err
		}
		return w.collect(p)
	case w.frames.isBetween():
		return w.flush()
	}
	return nil
}

// flush writes the bytes that wait.
func (w *frameWriter) flush() error {
	_, err := w.to.Write(w.held[:w.n])
	heldArrays.Put(w.held)
	w.held, w.n = nil, 0
	return err
}
