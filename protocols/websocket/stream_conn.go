package websocket

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// streamConn is a stream of an HTTP/2 connection as a net.Conn, for a handler that has
// hijacked it. Closing it ends the stream, and the connection goes on. The stream ends by
// RST_STREAM if a Write is blocked, and otherwise by END_STREAM when the HTTP handler
// returns.
//
// All methods may be called concurrently. Unlike on a socket, a deadline that has passed
// cannot be moved, and a write deadline resets the stream.
type streamConn struct {
	request    context.Context // ends with the stream
	body       io.ReadCloser
	w          http.ResponseWriter
	controller *http.ResponseController
	local      net.Addr
	remote     net.Addr

	// writing is held by the one writer at a time.
	writing sync.Mutex
	// closed is closed by Close, after it has woken blocked calls.
	closed chan struct{}

	// mu guards what follows.
	mu sync.Mutex
	// ended is set when no call may begin to use w any more, and inUse counts the calls
	// that use it. net/http takes w back when the HTTP handler returns.
	ended   bool
	inUse   sync.WaitGroup
	writers int // how many of them write
}

var _ net.Conn = (*streamConn)(nil)

func newStreamConn(w http.ResponseWriter, r *http.Request) *streamConn {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if local == nil {
		local = streamAddr{network: "tcp"}
	}
	return &streamConn{
		request:    r.Context(),
		body:       r.Body,
		w:          w,
		controller: http.NewResponseController(w),
		local:      local,
		remote:     streamAddr{network: local.Network(), address: r.RemoteAddr},
		closed:     make(chan struct{}),
	}
}

// streamAddr is the client's address as net/http shows it.
type streamAddr struct{ network, address string }

func (a streamAddr) Network() string { return a.network }
func (a streamAddr) String() string  { return a.address }

// Read returns [io.EOF] after the client's END_STREAM, and an error after its RST_STREAM.
func (c *streamConn) Read(p []byte) (int, error) {
	n, err := c.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && c.hasEnded() {
		err = net.ErrClosed
	}
	return n, err
}

// Write sends p in DATA frames, as flow control allows.
func (c *streamConn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if !c.begin(1) {
		return 0, net.ErrClosed
	}
	defer c.end(1)
	n, err := c.w.Write(p)
	if err == nil {
		err = c.controller.Flush()
	}
	if err != nil && c.hasEnded() {
		err = net.ErrClosed
	}
	return n, err
}

// begin reports whether the caller may use w. If so, it must call end.
func (c *streamConn) begin(writers int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	c.inUse.Add(1)
	c.writers += writers
	return true
}

func (c *streamConn) end(writers int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writers -= writers
	c.inUse.Done()
}

func (c *streamConn) hasEnded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// Close wakes blocked calls of Read and Write. It does not wait for the client.
func (c *streamConn) Close() error {
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return net.ErrClosed
	}
	c.ended = true
	c.inUse.Add(1)
	stalled := c.writers > 0
	c.mu.Unlock()
	defer c.inUse.Done()

	defer close(c.closed)
	err := c.body.Close()
	if stalled && c.request.Err() == nil {
		// A Write is incomplete, so the stream cannot end in order. A stream that the
		// client has reset is not reset in return (RFC 9113 section 5.4.2).
		err = errors.Join(err, c.controller.SetWriteDeadline(time.Unix(1, 0)))
	}
	return err
}

// wait returns when c is closed or the stream has ended.
func (c *streamConn) wait() {
	select {
	case <-c.closed:
	case <-c.request.Done():
	}
}

// finish closes c, unless it is closed, and returns when no call uses w any more.
func (c *streamConn) finish() {
	_ = c.Close()
	c.inUse.Wait()
}

// LocalAddr returns the address of the connection.
func (c *streamConn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the client's address.
func (c *streamConn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets both deadlines.
func (c *streamConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements [net.Conn].
func (c *streamConn) SetReadDeadline(t time.Time) error {
	return c.whileOpen(func() error { return c.controller.SetReadDeadline(t) })
}

// SetWriteDeadline implements [net.Conn].
func (c *streamConn) SetWriteDeadline(t time.Time) error {
	return c.whileOpen(func() error { return c.controller.SetWriteDeadline(t) })
}

func (c *streamConn) whileOpen(f func() error) error {
	if !c.begin(0) {
		return net.ErrClosed
	}
	defer c.end(0)
	return f()
}
