package websocket

import (
	"encoding/binary"
	"io"
	"sync"
)

// The layout of a WebSocket frame's header (RFC 6455 section 5.2).
const (
	// minFrameHead is what every frame begins with, and maxFrameHead has the long form of the length and a masking key.
	minFrameHead = 2
	maxFrameHead = minFrameHead + 8 + maskLen
	maskLen      = 4

	closeByte  = finBit | 0x8 // the first byte of a close frame
	finBit     = 0x80         // in the first byte: the last frame of its message
	controlBit = 0x08         // in the first byte: close, ping, pong; they are no messages
	maskBit    = 0x80         // in the second byte
	lengthBits = 0x7F         // in the second byte

	length16 = 126 // the length is in the next 2 bytes
	length64 = 127 // the length is in the next 8 bytes
)

// A messageCounter counts the messages in one direction of a WebSocket by following
// the headers of its frames, however the bytes are split. A message counts when the
// header of its last frame is complete. Whether the frames are in order is not its
// business: who serves the WebSocket closes it when they are not.
//
// The zero value stands before the first frame. It is not safe for concurrent use.
type messageCounter struct {
	payload uint64 // what is still to come of the current frame's payload
	have    uint8  // how many bytes of header are there
	header  [maxFrameHead]byte
}

// count returns how many messages p completes, which continues what was given before.
func (c *messageCounter) count(p []byte) (messages int) {
	// Most of what is given is a short frame, and all of it.
	for c.payload == 0 && c.have == 0 && len(p) >= minFrameHead {
		whole := frameHeadLen(p[1]) + int(p[1]&lengthBits)
		if p[1]&lengthBits >= length16 || whole > len(p) {
			break
		}
		c.header[0] = p[0]
		if p[0]&(finBit|controlBit) == finBit {
			messages++
		}
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
		if c.header[0]&(finBit|controlBit) == finBit {
			messages++
		}
	}
}

// isBetween reports whether what was given ends with the last frame of a message or with a control frame.
func (c *messageCounter) isBetween() bool {
	return c.payload == 0 && c.have == 0 && c.header[0]&finBit != 0
}

// isEnd reports whether what was given ends with a close frame.
func (c *messageCounter) isEnd() bool { return c.header[0] == closeByte && c.isBetween() }

// takeHeader takes what p has of the current frame's header, which is n bytes. When that completes
// it, payload is the frame's.
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

// A frameWriter writes the messages of a WebSocket by as few system calls as a writer with a buffer of 4 KB, which is
// what net/http gives to coder/websocket, and has that buffer only while a message is not complete.
//
// What ends with the last frame of a message, or with a control frame, is written at once. Before that up to 4 KB wait for the
// rest, as they do in such a writer: it too writes the frames of an unfinished message only when it is full.
//
// The field to has to be set; all else may be zero. It is not safe for concurrent use.
type frameWriter struct {
	to     io.Writer
	frames messageCounter
	held   *[heldSize]byte // nil where nothing waits
	n      int             // how much of it does
}

const heldSize = 4 << 10

var heldArrays = sync.Pool{New: func() any { return new([heldSize]byte) }}

// write writes p, or keeps it until the rest of its message comes, and returns how many messages it completes.
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

// flush writes what waits.
func (w *frameWriter) flush() error {
	_, err := w.to.Write(w.held[:w.n])
	heldArrays.Put(w.held)
	w.held, w.n = nil, 0
	return err
}
