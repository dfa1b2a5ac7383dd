package websocket

import (
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"

	coder "github.com/coder/websocket"
)

// output is what is written to a WebSocket's connection: coder/websocket's frames, and
// between them pings, pongs and a close frame of our own.
//
// coder/websocket holds a lock while it writes a frame. Its own Ping and Close wait for
// that lock, and for room in the socket, 5 s and no longer; behind that the connection is
// closed in the middle of a message. The frames here wait as long as the message takes.
// They go out behind the frame that is being written, from the goroutine that writes it,
// or at once.
type output struct {
	below steps
	// writing is held by the goroutine that writes. It guards writer and broken.
	writing sync.Mutex
	writer  frameWriter
	broken  bool // a write has failed

	closed atomic.Bool            // the connection is closed, or being closed
	wants  atomic.Uint32          // which frames are to go out
	pong   atomic.Pointer[[]byte] // the payload of the last ping, for wantPong
	bye    atomic.Pointer[bye]    // for wantClose and wantCloseNow
}

// The bits of output.wants.
const (
	wantPing     = 1 << iota
	wantPong     // an answer to the last ping (RFC 6455 section 5.5.3 allows to skip others)
	wantClose    // a close frame behind the message under way
	wantCloseNow // a close frame behind the frame under way
)

// A bye is a close frame.
type bye struct {
	code   coder.StatusCode
	reason string
	once   sync.Once
	done   chan struct{} // closed when the frame is written, or cannot be
}

func (b *bye) finish() { b.once.Do(func() { close(b.done) }) }

// steps writes to a connection in parts that are counted, so that a slow client is seen to
// move.
type steps struct {
	net.Conn

	owner Owner         // nil where it does not know what the client takes
	size  int           // of a part then
	calls atomic.Uint32 // odd while a part is being written; each adds 2
	bytes atomic.Uint64 // that were written
}

// How much is written at a time: to a socket, and to a stream, whose client may take a frame in
// small steps.
const (
	stepSize   = 64 << 10
	streamStep = 16 << 10
)

// Write implements [io.Writer].
func (s *steps) Write(p []byte) (written int, err error) {
	for {
		part := p[:s.next(len(p))]
		s.calls.Add(1)
		n, err := s.Conn.Write(part)
		s.calls.Add(1)
		s.bytes.Add(uint64(n))
		written += n
		if p = p[len(part):]; err != nil || len(p) == 0 {
			return written, err
		}
	}
}

// next returns how many of n bytes are written at once: all of them where the system says what
// the client takes.
func (s *steps) next(n int) int {
	if n <= s.size {
		return n
	}
	if s.owner != nil {
		if _, _, known := s.owner.SendQueue(); known {
			return n
		}
	}
	return s.size
}

// isWriting reports whether a write is under way, and how many have ended.
func (s *steps) isWriting() (writing bool, before uint32) {
	n := s.calls.Load()
	return n%2 == 1, n / 2
}

// write writes a part of coder/websocket's frames, as frameWriter does. Behind a close
// frame it takes another without writing it, and refuses everything else.
func (o *output) write(p []byte) (messages int, err error) {
	o.writing.Lock()
	if !o.writer.frames.isEnd() {
		messages, err = o.writer.write(p)
		o.broken = o.broken || err != nil
	} else if p[0] != closeFrame {
		err = net.ErrClosed
	}
	o.writing.Unlock()
	o.serve()
	return messages, err
}

// want has control frames written. It blocks only where the socket is full and no other
// goroutine is writing.
func (o *output) want(frames uint32) {
	o.wants.Or(frames)
	o.serve()
}

// serve writes the frames that are wanted, as far as they may go out now. Whoever writes
// calls it afterwards, so a goroutine that finds another writing leaves the frames to it.
func (o *output) serve() {
	for {
		wants := o.wants.Load()
		if wants == 0 || !o.writing.TryLock() {
			return
		}
		written := o.writeWanted()
		o.writing.Unlock()
		// One that is wanted once more, since it was written, was left to this goroutine.
		if o.wants.Load()&^(wants&^written) == 0 {
			return
		}
	}
}

// writeWanted is serve for a caller that holds writing. It returns which frames are not wanted
// any more.
func (o *output) writeWanted() (written uint32) {
	if !o.isAtEnd() && !o.writer.frames.isBetweenFrames() {
		return 0
	}
	var frame [minFrameHead + maxControlPayload]byte
	if o.take(wantPong) {
		written |= wantPong
		if payload := o.pong.Swap(nil); payload != nil {
			o.writeControl(append(append(frame[:0], pongFrame, byte(len(*payload))), *payload...))
		}
	}
	if o.take(wantPing) {
		written |= wantPing
		o.writeControl(append(frame[:0], pingFrame, 0))
	}
	b, wants := o.bye.Load(), o.wants.Load()
	inMessage := o.writer.frames.open && !o.isAtEnd() && wants&wantCloseNow == 0
	if b == nil || inMessage || !o.take(wantClose|wantCloseNow) {
		return written
	}
	text := binary.BigEndian.AppendUint16(append(frame[:0], closeFrame, byte(2+len(b.reason))), uint16(b.code))
	o.writeControl(append(text, b.reason...))
	b.finish()
	return written | wantClose | wantCloseNow
}

// isAtEnd reports whether nothing more can be written. The caller holds writing.
func (o *output) isAtEnd() bool { return o.broken || o.writer.frames.isEnd() }

// maxControlPayload is the longest payload of a control frame (RFC 6455 section 5.5).
const maxControlPayload = 125

// take reports whether one of the frames is wanted, and takes note that it goes out.
func (o *output) take(frames uint32) bool { return o.wants.And(^frames)&frames != 0 }

// writeControl writes a frame, unless nothing more can be written. The caller holds
// writing.
func (o *output) writeControl(frame []byte) {
	if !o.isAtEnd() {
		_, err := o.writer.write(frame)
		o.broken = err != nil
	}
}

// setBye has the close frame say this, unless it is settled already. It returns what the
// frame says.
func (o *output) setBye(code coder.StatusCode, reason string) *bye {
	o.bye.CompareAndSwap(nil, &bye{code: code, reason: reason, done: make(chan struct{})})
	b := o.bye.Load()
	if o.closed.Load() {
		b.finish()
	}
	return b
}

// close writes the close frame b and returns when it is written or cannot be. It waits for
// the end of the message under way; with now, only for the end of the frame.
func (o *output) close(b *bye, now bool) {
	wants := uint32(wantClose)
	if now {
		wants |= wantCloseNow
	}
	o.want(wants)
	if now && o.isHalf() {
		return // The rest of the frame is in coder/websocket's buffer, so that has to close.
	}
	<-b.done
}

// isHalf reports whether the last write, for which it waits, has ended within a frame.
func (o *output) isHalf() bool {
	o.writing.Lock()
	defer o.writing.Unlock()
	return !o.isAtEnd() && !o.writer.frames.isBetweenFrames()
}

// noteClosed is called before the connection is closed. It ends close.
func (o *output) noteClosed() {
	o.closed.Store(true)
	if b := o.bye.Load(); b != nil {
		b.finish()
	}
}
