package protocols

import (
	"io"
	"sync"
)

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
