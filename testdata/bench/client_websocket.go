package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// handshake asks for a WebSocket at a path (RFC 6455 section 1.3; the key is the example's).
const handshake = "GET %s HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

var switching = []byte("HTTP/1.1 101 ")

// The first byte of the frames here (RFC 6455 section 5.2): FIN, and the opcode.
const (
	frameFinal  = 0x80
	frameBinary = frameFinal | 0x2
	frameClose  = frameFinal | 0x8
	framePing   = frameFinal | 0x9
	framePong   = frameFinal | 0xA
)

const (
	frameMasked = 0x80 // in the second byte
	maskLength  = 4
	// longLength and above are codes for lengths that do not fit into seven bits.
	longLength = 126
)

// webSocketClient is a WebSocket of messages that are short, and whose masks are zero, which costs a server the same.
type webSocketClient struct {
	conn  net.Conn
	read  int
	bytes [512]byte
}

func openWebSocket(ctx context.Context, p *process, path string) (*webSocketClient, error) {
	conn, err := dial(ctx, p, portWebSocket)
	if err != nil {
		return nil, err
	}
	c := &webSocketClient{conn: conn}
	if err := c.shakeHands(path); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

func (c *webSocketClient) shakeHands(path string) error {
	if _, err := fmt.Fprintf(c.conn, handshake, path); err != nil {
		return err
	}
	for {
		if head := bytes.Index(c.bytes[:c.read], headEnd); head >= 0 {
			if !bytes.HasPrefix(c.bytes[:c.read], switching) {
				return fmt.Errorf("%w: %q", errAnswer, c.bytes[:head])
			}
			c.drop(head + len(headEnd))
			return nil
		}
		if err := c.fill(); err != nil {
			return err
		}
	}
}

func (c *webSocketClient) fill() error {
	n, err := c.conn.Read(c.bytes[c.read:])
	c.read += n
	return err
}

func (c *webSocketClient) drop(n int) { c.read = copy(c.bytes[:], c.bytes[n:c.read]) }

// send writes a frame.
func (c *webSocketClient) send(first byte, payload []byte) error {
	frame := make([]byte, 0, 2+maskLength+longLength)
	frame = append(frame, first, frameMasked|byte(len(payload)))
	frame = binary.BigEndian.AppendUint32(frame, 0)
	_, err := c.conn.Write(append(frame, payload...))
	return err
}

// receive waits for a message, which it drops. It answers pings, and a close frame, after which it returns io.EOF.
func (c *webSocketClient) receive() error {
	for {
		for c.read < 2 || c.read < 2+int(c.bytes[1]) {
			if err := c.fill(); err != nil {
				return err
			}
		}
		first, length := c.bytes[0], int(c.bytes[1])
		if length >= longLength {
			return fmt.Errorf("%w: a frame of length code %d", errAnswer, length)
		}
		switch first {
		case frameBinary:
			c.drop(2 + length)
			return nil
		case framePing, frameClose:
			answer := byte(framePong)
			if first == frameClose {
				answer = frameClose
			}
			if err := c.send(answer, c.bytes[2:2+length]); err != nil {
				return err
			}
			if first == frameClose {
				return io.EOF
			}
		}
		c.drop(2 + length)
	}
}

// statusNormal is the payload of a close frame with status 1000 (RFC 6455 section 7.4.1).
var statusNormal = []byte{1000 >> 8, 1000 & 0xff}

// leave closes the WebSocket as RFC 6455 section 7.1 asks: it sends a close frame and
// waits for the server's close frame and for the end of the TCP connection, which the
// server closes first.
func (c *webSocketClient) leave() error {
	if err := c.send(frameClose, statusNormal); err != nil {
		return err
	}
	for c.read < len(c.bytes) {
		err := c.fill()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if want := append([]byte{frameClose, byte(len(statusNormal))}, statusNormal...); !bytes.Equal(c.bytes[:c.read], want) {
		return fmt.Errorf("%w: %x instead of a close frame", errAnswer, c.bytes[:c.read])
	}
	return nil
}

// webSocketNew sends one message on each WebSocket, waits for its echo and closes it.
func webSocketNew(ctx context.Context, p *process, _ sizes) (worker, func(), error) {
	return func() (int, error) {
		c, err := openWebSocket(ctx, p, "/echo")
		if err != nil {
			return 0, err
		}
		err = c.send(frameBinary, message[:])
		if err == nil {
			err = c.receive()
		}
		if err == nil {
			err = c.leave()
		}
		return 1, errors.Join(err, c.conn.Close())
	}, func() {}, nil
}

// webSocketEcho sends a message and waits for it to come back.
func webSocketEcho(ctx context.Context, p *process, _ sizes) (worker, func(), error) {
	c, err := openWebSocket(ctx, p, "/echo")
	if err != nil {
		return nil, nil, err
	}
	return func() (int, error) {
		if err := c.send(frameBinary, message[:]); err != nil {
			return 0, err
		}
		return 1, c.receive()
	}, func() { _ = c.conn.Close() }, nil
}

// broadcast has a server send a message to many WebSockets, each of which is an operation.
func broadcast(ctx context.Context, p *process, s sizes) (worker, func(), error) {
	var members []*webSocketClient
	end := func() {
		for _, c := range members {
			_ = c.conn.Close()
		}
	}
	for range s.broadcast {
		c, err := openWebSocket(ctx, p, "/join")
		if err != nil {
			end()
			return nil, nil, err
		}
		members = append(members, c)
	}
	return func() (int, error) {
		errs := make([]error, len(members))
		var received sync.WaitGroup
		for i, c := range members {
			received.Go(func() { errs[i] = c.receive() })
		}
		_, err := p.ask(command{Do: doBroadcast, Count: len(members)})
		if err != nil {
			end() // So that nobody waits for what does not come.
		}
		received.Wait()
		return len(members), errors.Join(err, errors.Join(errs...))
	}, end, nil
}
