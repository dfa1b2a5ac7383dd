package websocket

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"time"
)

// watchedConn is the connection under a WebSocket. It notes whether a goroutine waits for
// the client and how often it was heard, counts messages, reads ahead, and writes a
// message that comes in pieces as one. So coder/websocket can have small buffers. Control
// frames of our own go out between those of coder/websocket.
//
// One goroutine at a time may call Read, and one Write: coder/websocket has a lock for
// each. The other methods may be called at any time.
type watchedConn struct {
	net.Conn

	owner Owner // nil for none; set before the first Read, Write or Close

	// These belong to the reader.
	early    *bytes.Reader // what came with the handshake; nil once it is read
	in       input
	received messageCounter

	// reads is odd while a goroutine reads and waits, and each read adds 2. It stands in for
	// a clock: the sweep remembers when it has seen which number.
	reads     atomic.Uint32
	exchanges atomic.Uint32 // how many reads and writes have moved a part of a message

	out    output
	linger atomic.Int64 // how long Close goes on reading, where that is more than closeLinger
	ended  atomic.Bool  // the client has sent its close frame, its last
	ponged atomic.Bool  // the client has sent a pong since the session has last asked
	abrupt atomic.Bool  // close without waiting for the client
}

// newWatchedConn returns the connection of which early was read with the handshake. It
// keeps early.
func newWatchedConn(c net.Conn, early []byte) *watchedConn {
	below := c
	// What stands above the socket serves requests, of which there are no more.
	if d, ok := c.(interface{ Direct() net.Conn }); ok {
		if direct := d.Direct(); direct != nil {
			below = direct
		}
	}
	w := &watchedConn{Conn: c, in: newInput(below)}
	if len(early) > 0 {
		w.early = bytes.NewReader(early)
	}
	w.out.below.Conn, w.out.below.size = below, stepSize
	w.out.writer.to = &w.out.below
	return w
}

// own sets the owner. That of a stream of HTTP/2 knows what the client takes of all streams.
func (c *watchedConn) own(owner Owner, isStream bool) {
	c.owner = owner
	if isStream {
		c.out.below.size = streamStep
	} else {
		c.out.below.owner = owner
	}
}

// Read implements [net.Conn].
func (c *watchedConn) Read(p []byte) (n int, err error) {
	if c.early != nil {
		n, _ = c.early.Read(p)
		c.follow(p[:n])
		if c.early.Len() == 0 {
			c.early = nil
		}
		return n, nil
	}
	for n == 0 && err == nil {
		c.reads.Add(1)
		if err = net.ErrClosed; !c.out.closed.Load() {
			n, err = c.in.read(p)
		}
		c.reads.Add(1)
		if n == 0 {
			break
		}
		n = c.follow(p[:n])
	}
	return n, err
}

// growStack makes room on the goroutine's stack for what coder/websocket does behind a
// close frame: it formats errors, eight calls deeper. Growing the stack there copies the
// frames of all of them. An idle WebSocket does without the room.
//
//go:noinline
func growStack() {
	if neverTrue {
		var room [3 << 10]byte
		runtime.KeepAlive(&room)
	}
}

// neverTrue is a variable so that the compiler does not know it.
var neverTrue bool

// follow takes note of what the client has sent, and returns how much of it is left.
func (c *watchedConn) follow(p []byte) (n int) {
	var messages int
	if c.received.open && c.early == nil {
		p, messages = c.received.squeeze(p)
	} else {
		messages = c.received.count(p)
	}
	if c.received.isEnd() {
		c.ended.Store(true)
		growStack() // 5 % of ws-newconn.
	}
	if c.received.ponged {
		c.received.ponged = false
		c.ponged.Store(true)
	}
	if messages > 0 || c.received.isInMessage() {
		c.exchanges.Add(1)
	}
	if c.owner != nil && messages > 0 {
		c.owner.CountMessages(messages, 0)
	}
	return len(p)
}

// Write implements [net.Conn]. It may keep a part of a message until the rest comes.
func (c *watchedConn) Write(p []byte) (int, error) {
	messages, err := c.out.write(p)
	if err != nil {
		return 0, err
	}
	c.exchanges.Add(1)
	if c.owner != nil && messages > 0 {
		c.owner.CountMessages(0, messages)
	}
	return len(p), nil
}

// isReading reports whether a goroutine waits for bytes, and how many such waits have
// ended.
func (c *watchedConn) isReading() (reading bool, before uint32) {
	n := c.reads.Load()
	return n%2 == 1, n / 2
}

// queue returns what changes while the client takes bytes, and whether bytes wait for it
// to do so.
func (c *watchedConn) queue() (taken uint64, waiting bool) {
	waiting, before := c.out.below.isWriting()
	taken = uint64(before)
	if owner := c.out.below.owner; owner != nil {
		if acked, unsent, known := owner.SendQueue(); known {
			taken += acked
			waiting = waiting || unsent
		}
	}
	return taken, waiting
}

// answerPing is the callback of coder/websocket for a client's ping. It reports false: the
// pong is not coder/websocket's to send.
func (c *watchedConn) answerPing(payload []byte) bool {
	payload = bytes.Clone(payload)
	c.out.pong.Store(&payload)
	c.out.want(wantPong)
	return false
}

// How long, and for how many bytes, Close goes on reading. A session that is closed in order
// may choose a longer time.
const (
	closeLinger      = 250 * time.Millisecond
	closeLingerBytes = 1 << 20
)

// Close implements [net.Conn]. Unless the client has sent its close frame, Close reads for
// a moment what the client still sends: the kernel answers unread bytes with a reset, and
// then the client, or a proxy before it, may lose what it has not read either (RFC 6455
// section 7.1.1).
func (c *watchedConn) Close() error {
	c.out.noteClosed()
	linger := !c.abrupt.Load() && !c.ended.Load()
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && linger && half.CloseWrite() == nil && c.endReading() {
		_ = c.Conn.SetReadDeadline(time.Now().Add(max(closeLinger, time.Duration(c.linger.Load()))))
		_, _ = io.CopyN(io.Discard, struct{ io.Reader }{c.Conn}, closeLingerBytes)
	}
	return c.Conn.Close()
}

// endReading ends the Read of another goroutine, because a connection that reads ahead has
// one reader at a time. It reports false where that Read does not end. Close has set
// closed, so no other Read begins.
func (c *watchedConn) endReading() bool {
	for end := time.Now().Add(closeLinger); ; time.Sleep(time.Millisecond) {
		if reading, _ := c.isReading(); !reading {
			return true
		}
		if c.Conn.SetReadDeadline(time.Unix(1, 0)) != nil || time.Now().After(end) {
			return false
		}
	}
}

// input reads a connection. This type is all that knows how the layers below read ahead.
type input struct {
	from  net.Conn
	ahead aheadReader // is from; nil where that does not read ahead
}

// An aheadReader is a connection that may stand over a bare socket, as the package
// pool's does. The methods are described there.
type aheadReader interface {
	IsBare() bool
	ReadAhead(p []byte) (int, error)
}

func newInput(c net.Conn) input {
	if ahead, ok := c.(aheadReader); ok && ahead.IsBare() {
		return input{c, ahead}
	}
	return input{from: c}
}

// isCheap reports whether small reads cost no more than big ones.
func (i *input) isCheap() bool {
	_, isTLS := i.from.(*tls.Conn)
	return isTLS || i.ahead != nil
}

func (i *input) read(p []byte) (int, error) {
	if i.ahead == nil {
		return i.from.Read(p)
	}
	return i.ahead.ReadAhead(p)
}
