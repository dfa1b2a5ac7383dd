package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Slow readers: WebSockets whose server is in a long message when the drain tells it to
// leave, because the client takes its time. The messages are more than their sockets take
// in, which have room for little.
const (
	slowMessage = 512 << 10
	slowRoom    = 4 << 10         // receive buffer
	slowSegment = 1448            // maximum segment size, by which the server's kernel sizes its buffer
	slowRead    = 4 << 10         // read at a time
	slowTime    = 8 * time.Second // for the whole message
	// tooLong is how many times as long the messages and the times of some are, which are
	// in their message at the deadline.
	tooLong = 8
)

// slow is a WebSocket client that reads one long message.
type slow struct {
	conn  net.Conn
	size  int           // of the message
	ended chan struct{} // closed when the connection has ended; what follows is set before
	bytes int           // of the message
	code  uint16        // of the close frame; 0 without one
	at    time.Time
}

// newSlow opens a WebSocket, and returns when the message comes back.
func newSlow(ctx context.Context, address string, size int) (*slow, error) {
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var room, segment error
		err := raw.Control(func(fd uintptr) {
			room = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, slowRoom)
			segment = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, slowSegment)
		})
		return errors.Join(err, room, segment)
	}}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(c, slowRead)
	if err = handshake(c, r); err == nil {
		_, err = c.Write(maskedMessage(size))
	}
	if err == nil {
		_, err = r.Peek(1)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &slow{conn: &bufferedConn{c, r}, size: size, ended: make(chan struct{})}, nil
}

// bufferedConn reads through a buffer.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

// Read implements [net.Conn].
func (c *bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// maskedMessage returns a binary message of a client, whose key is 0.
func maskedMessage(size int) []byte {
	const binaryFrame, masked, length64 = 0x82, 0x80, 127
	b := append(make([]byte, 0, size+14), binaryFrame, masked|length64)
	b = binary.BigEndian.AppendUint64(b, uint64(size))
	return append(b, make([]byte, 4+size)...)
}

// emptyPing is the first byte of a ping, which is empty.
const emptyPing = 0x89

// take reads the message slowly, until hurry is set, and answers the close frame behind it.
func (s *slow) take(hurry *atomic.Bool) {
	defer close(s.ended)
	defer func() { s.at = time.Now() }()
	var head [10]byte // The message has a length of 64 bits.
	if _, err := io.ReadFull(s.conn, head[:]); err != nil {
		return
	}
	began := time.Now()
	for buf := make([]byte, slowRead); s.bytes < s.size; {
		n, err := s.conn.Read(buf[:min(slowRead, s.size-s.bytes)])
		if s.bytes += n; err != nil {
			return
		}
		if !hurry.Load() {
			time.Sleep(time.Until(began.Add(slowTime * time.Duration(s.bytes) / slowMessage)))
		}
	}
	for head[0] = emptyPing; head[0] == emptyPing; { // The server may ask whether it was read.
		if _, err := io.ReadFull(s.conn, head[:2]); err != nil {
			return
		}
	}
	if _, err := io.ReadFull(s.conn, head[2:4]); err != nil || head[0] != closeFrame {
		return
	}
	s.code = binary.BigEndian.Uint16(head[2:])
	_, _ = s.conn.Write([]byte{closeFrame, 0x80 | 2, 0, 0, 0, 0, head[2], head[3]})
	_, _ = io.Copy(io.Discard, s.conn)
}

// verdict returns what is wrong with the way the WebSocket has ended: with the whole
// message and 1001, or, where it is cut, with neither and not before the deadline.
func (s *slow) verdict(cut bool, deadline time.Time) error {
	<-s.ended
	const goingAway = 1001
	switch {
	case !cut && (s.bytes != s.size || s.code != goingAway):
		return fmt.Errorf("a slow WebSocket has got %d of %d bytes and the code %d, want all and %d", s.bytes, s.size, s.code, goingAway)
	case cut && s.code != 0:
		return fmt.Errorf("a WebSocket that was cut within a message has got the code %d", s.code)
	case cut && s.at.Before(deadline):
		return fmt.Errorf("a slow WebSocket was cut %v before the deadline", deadline.Sub(s.at))
	default:
		return nil
	}
}

// slows are slow readers, of which the first few have messages that are too long.
type slows struct {
	all   []*slow
	cut   int
	hurry atomic.Bool // what is left of messages that were cut is read at once
}

// newSlows opens n of them.
func newSlows(ctx context.Context, n, cut int, address string) (*slows, error) {
	all := make([]*slow, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range all {
		size := slowMessage
		if i < cut {
			size *= tooLong
		}
		wg.Go(func() { all[i], errs[i] = newSlow(ctx, address, size) })
	}
	wg.Wait()
	return &slows{all: all, cut: cut}, errors.Join(errs...)
}

// begin has them read.
func (s *slows) begin() {
	for _, one := range s.all {
		go one.take(&s.hurry)
	}
}

// verdict waits for their end, after that of the server.
func (s *slows) verdict(deadline time.Time) error {
	s.hurry.Store(true)
	var faults []error
	for i, one := range s.all {
		faults = append(faults, one.verdict(i < s.cut, deadline))
	}
	return errors.Join(faults...)
}

func (s *slows) close() {
	for _, one := range s.all {
		_ = one.conn.Close()
	}
}

// handshake makes a WebSocket's.
func handshake(c net.Conn, r *bufio.Reader) error {
	const request = "GET /ws HTTP/1.1\r\nHost: muxserve.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	if _, err := io.WriteString(c, request); err != nil {
		return err
	}
	resp, err := http.ReadResponse(r, nil)
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		err = fmt.Errorf("the handshake was answered %d", resp.StatusCode)
	}
	return err
}
