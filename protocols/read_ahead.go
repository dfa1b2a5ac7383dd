package protocols

import (
	"net"
	"sync"
)

// readAheadSize is how much a readAhead asks the system for at a time. It holds some dozens of requests of a client
// that has many streams, and a bigger buffer would be copied from more than it saves.
const readAheadSize = 4 << 10

// ReadAhead is for package websocket.
type ReadAhead = readAhead

// NewReadAhead returns a ReadAhead for a connection, or nil where it has no raw socket.
func NewReadAhead(conn net.Conn) *ReadAhead { return newReadAhead(conn) }

// Buffered reports whether the next Read is served from the buffer.
func (r *readAhead) Buffered() bool { return r.buffered() }

// ReadOnce reads from the connection into p, without reading ahead. Nothing may be buffered.
func (r *readAhead) ReadOnce(p []byte) (int, error) {
	r.own = p
	_, n, err := r.read(len(p), &r.own)
	r.own = nil
	return n, err
}

// ownBuffer is a mem.BufferPool with one buffer, the caller's.
type ownBuffer []byte

// Get returns the buffer.
func (b *ownBuffer) Get(int) *[]byte { return (*[]byte)(b) }

// Put does nothing.
func (b *ownBuffer) Put(*[]byte) {}

// A readAhead saves system calls to a server that reads a connection in small pieces, as net/http does with HTTP/2: a read
// for the header of each frame, and another for its payload. It takes as much as is there
// into a buffer and serves small reads from that. The buffer is taken when there is something to read
// and given back when it is drained, so that an idle connection holds none.
//
// What is in the buffer is read regardless of a deadline and of Close. A readAhead is not safe for concurrent use; the
// connection's own deadlines and Close end a Read that waits. Whoever reads the
// connection past it must ask buffered first.
type readAhead struct {
	readyReader

	kept     *[]byte // Nil where nothing is buffered.
	off, end int32   // What is unread of kept.
	own      ownBuffer
}

// notAhead stands for connections that are read as they are.
var notAhead = new(readAhead)

// newReadAhead returns a readAhead for conn, or nil where conn is no rawReader with a raw socket. Then conn is read as it
// is: TLS has a buffer of its own.
func newReadAhead(conn net.Conn) *readAhead {
	r := new(readAhead)
	if !r.init(conn) {
		return nil
	}
	return r
}

// Read reads what is buffered, or else from the connection, straight into p if that is as big as the buffer would be.
// It returns the connection's errors as its own Read does, each of them behind the bytes that came before it.
func (r *readAhead) Read(p []byte) (int, error) {
	if r.kept == nil {
		if len(p) >= readAheadSize || len(p) == 0 {
			return r.conn.Read(p)
		}
		buf, n, err := r.read(readAheadSize, readAheadBuffers)
		if n == 0 {
			return 0, err
		}
		r.kept, r.off, r.end = buf, 0, int32(n)
	}
	n := copy(p, (*r.kept)[r.off:r.end])
	if r.off += int32(n); r.off == r.end {
		readAheadBuffers.Put(r.kept)
		r.kept = nil
	}
	return n, nil
}

// buffered reports whether the next Read is served from the buffer.
func (r *readAhead) buffered() bool { return r.kept != nil }

// readAheadBuffers is where a readAhead takes its buffer.
var readAheadBuffers = &bufferPool{sync.Pool{New: func() any {
	b := make([]byte, readAheadSize)
	return &b
}}}

// A bufferPool is a mem.BufferPool of buffers that are all of readAheadSize.
type bufferPool struct{ pool sync.Pool }

// Get returns a buffer.
func (p *bufferPool) Get(int) *[]byte { return p.pool.Get().(*[]byte) }

// Put takes it back.
func (p *bufferPool) Put(b *[]byte) { p.pool.Put(b) }
