package protocols

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// peekSize is the capacity of a new peek buffer. Nearly every request head and
// first HTTP/2 flight fits; longer ones grow it up to the cap.
const peekSize = 4096

// maxEmptyReads bounds how often in a row a reader may return neither bytes
// nor an error, as in bufio.
const maxEmptyReads = 100

// ErrPeekFull is what a reader of [Conn.PeekReader] returns when the peek
// buffer has reached its cap. The bytes in it are not lost.
var ErrPeekFull = errors.New("protocols: peek buffer is full")

var peekArrays = sync.Pool{New: func() any { return new([peekSize]byte) }}

// A peekBuffer holds bytes that were read ahead. Its zero value is empty and
// owns no memory.
type peekBuffer struct {
	b      []byte          // All bytes, those before r are consumed.
	r      int             // Start of the bytes that are not consumed.
	pooled *[peekSize]byte // The array behind b, if it goes back to the pool.
	total  int             // How many bytes were ever read ahead.
	err    error           // What ended the reading for good; due after the bytes.
}

func (p *peekBuffer) unread() []byte { return p.b[p.r:] }

// fill reads once from r, which makes up to limit unread bytes. It returns an
// error only where the reading can go on later: on a timeout. Other errors wait
// in p.err for their turn behind the bytes, because a Read may return both
// (with TLS 1.2, data and close_notify in one record do).
func (p *peekBuffer) fill(r io.Reader, limit int) error {
	p.grow(limit)
	end := min(cap(p.b), p.r+limit)
	for range maxEmptyReads {
		n, err := r.Read(p.b[len(p.b):end])
		p.b = p.b[:len(p.b)+n]
		p.total += n
		switch {
		case err == nil && n == 0:
			continue
		case err == nil || isTimeout(err):
			return err
		}
		p.err = err
		return nil
	}
	p.err = io.ErrNoProgress
	return nil
}

// grow makes room for at least one more byte.
func (p *peekBuffer) grow(limit int) {
	switch {
	case p.b == nil:
		p.pooled = peekArrays.Get().(*[peekSize]byte)
		p.b = p.pooled[:0]
	case len(p.b) == cap(p.b):
		b := make([]byte, len(p.unread()), min(2*cap(p.b), limit))
		copy(b, p.unread())
		p.free()
		p.b = b
	}
}

// read hands out unread bytes. Once all are, the buffer's memory is given back.
func (p *peekBuffer) read(dst []byte) int {
	n := copy(dst, p.unread())
	p.consume(n)
	return n
}

func (p *peekBuffer) consume(n int) {
	p.r += n
	if p.r == len(p.b) {
		p.free()
	}
}

func (p *peekBuffer) free() {
	if p.pooled != nil {
		peekArrays.Put(p.pooled)
	}
	p.b, p.r, p.pooled = nil, 0, nil
}

// remove takes the unread bytes from i to j out of the buffer.
func (p *peekBuffer) remove(i, j int) {
	u := p.unread()
	p.b = p.b[:p.r+i+copy(u[i:], u[j:])]
}

// insert puts data before the unread byte i.
func (p *peekBuffer) insert(i int, data []byte) {
	tail := len(p.unread()) - i
	p.b = append(p.b, data...)
	u := p.unread()
	copy(u[i+len(data):], u[i:i+tail])
	copy(u[i:], data)
}

// isTimeout reports an error of a deadline that may be moved. A connection
// that timed out in the kernel says Timeout as well; its next Read says so again.
func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// A peekReader reads a connection from its first unread byte, without consuming.
type peekReader struct {
	conn     *Conn
	off      int
	deadline time.Time // Set at the first wait.
	waited   bool
}

// Read implements io.Reader.
func (r *peekReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	e := r.conn.early.Load()
	if e == nil {
		return 0, ErrPeekFull // It was read; nothing more is peeked.
	}
	for r.off >= len(e.peek.unread()) {
		if e.peek.err != nil {
			return 0, e.peek.err
		}
		if !r.waited {
			r.waited = true
			r.deadline = e.peekDeadline()
		}
		if err := e.peekMore(r.deadline); err != nil {
			return 0, err
		}
	}
	n := copy(p, e.peek.unread()[r.off:])
	r.off += n
	return n, nil
}
