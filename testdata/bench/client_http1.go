package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
)

// The requests, as a browser's are not: the fewer the headers, the bigger the part of what is around them.
const (
	smallRequest    = "GET / HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
	downloadRequest = "GET /download HTTP/1.1\r\nHost: bench\r\n\r\n"
	uploadRequest   = "POST /upload HTTP/1.1\r\nHost: bench\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n"
)

// http1Client is a client of few cycles: net/http's costs more than its server
// does, which would then wait for it, and a server that waits spends cycles on waiting.
type http1Client struct {
	conn   net.Conn
	buffer [4096]byte
}

var (
	headEnd       = []byte("\r\n\r\n")
	statusOK      = []byte("HTTP/1.1 200 ")
	contentLength = []byte("\r\nContent-Length: ")
)

// do sends a request and reads the answer, of which it returns the length of the body.
func (c *http1Client) do(request string) (int64, error) {
	if _, err := io.WriteString(c.conn, request); err != nil {
		return 0, err
	}
	return c.answer(nil)
}

// answer reads an answer, its body into sink, which is nil for a body that fits beside its head.
func (c *http1Client) answer(sink []byte) (int64, error) {
	var n, head int
	for head <= 0 {
		if n == len(c.buffer) {
			return 0, fmt.Errorf("%w: the head is too long", errAnswer)
		}
		read, err := c.conn.Read(c.buffer[n:])
		if err != nil {
			return 0, err
		}
		n += read
		head = bytes.Index(c.buffer[:n], headEnd) + len(headEnd)
		if head < len(headEnd) {
			head = 0
		}
	}
	length, err := bodyLength(c.buffer[:head])
	if err != nil {
		return 0, err
	}
	if sink == nil {
		sink = c.buffer[n:]
	}
	for rest := length - int64(n-head); rest > 0; {
		read, err := c.conn.Read(sink)
		if err != nil {
			return 0, err
		}
		rest -= int64(read)
	}
	return length, nil
}

// bodyLength returns the Content-Length of a head that says 200.
func bodyLength(head []byte) (int64, error) {
	if !bytes.HasPrefix(head, statusOK) {
		return 0, fmt.Errorf("%w: %q", errAnswer, head)
	}
	_, value, ok := bytes.Cut(head, contentLength)
	if !ok {
		return 0, fmt.Errorf("%w: no length in %q", errAnswer, head)
	}
	value, _, _ = bytes.Cut(value, headEnd[:2])
	return strconv.ParseInt(string(value), 10, 64)
}

// small asks for the greeting.
func (c *http1Client) small() error {
	n, err := c.do(smallRequest)
	if err == nil && n != int64(len(greeting)) {
		err = fmt.Errorf("%w: %d bytes", errAnswer, n)
	}
	return err
}

// http1Kept asks again and again on one connection.
func http1Kept(ctx context.Context, p *process, _ sizes) (worker, func(), error) {
	conn, err := dial(ctx, p, portHTTP1)
	if err != nil {
		return nil, nil, err
	}
	c := &http1Client{conn: conn}
	return func() (int, error) { return 1, c.small() }, func() { _ = conn.Close() }, nil
}

// http1New asks once on each connection.
func http1New(ctx context.Context, p *process, _ sizes) (worker, func(), error) {
	c := new(http1Client)
	return func() (_ int, err error) {
		if c.conn, err = dial(ctx, p, portHTTP1); err != nil {
			return 0, err
		}
		err = c.small()
		return 1, errors.Join(err, c.conn.Close())
	}, func() {}, nil
}

// tlsNew asks once on each TLS connection, after a full handshake or a resumed one.
func tlsNew(resumed bool) opener {
	return func(ctx context.Context, p *process, _ sizes) (worker, func(), error) {
		config, err := trusting(p.dir, portHTTP1)
		if err != nil {
			return nil, nil, err
		}
		if resumed {
			config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		}
		first := true
		c := new(http1Client)
		return func() (int, error) {
			conn, err := dialTCP(ctx, p, overTLS(portHTTP1))
			if err != nil {
				return 0, err
			}
			secure := tls.Client(conn, config)
			c.conn = secure
			if err := c.small(); err != nil {
				return 0, errors.Join(err, conn.Close())
			}
			did := secure.ConnectionState().DidResume
			if did != resumed && !first {
				err = fmt.Errorf("%w: resumed: %t", errAnswer, did)
			}
			first = false
			return 1, errors.Join(err, secure.Close())
		}, func() {}, nil
	}
}

// transferBuffer is what bulk data is read and written by.
const transferBuffer = 1 << 20

// download gets the file, again and again.
func download(ctx context.Context, p *process, s sizes) (worker, func(), error) {
	conn, err := dial(ctx, p, portHTTP1)
	if err != nil {
		return nil, nil, err
	}
	c := &http1Client{conn: conn}
	sink := make([]byte, transferBuffer)
	return func() (int, error) {
		if _, err := io.WriteString(conn, downloadRequest); err != nil {
			return 0, err
		}
		n, err := c.answer(sink)
		if err == nil && n != s.bytes {
			err = fmt.Errorf("%w: %d bytes of %d", errAnswer, n, s.bytes)
		}
		return 1, err
	}, func() { _ = conn.Close() }, nil
}

// upload sends as much.
func upload(ctx context.Context, p *process, s sizes) (worker, func(), error) {
	conn, err := dial(ctx, p, portHTTP1)
	if err != nil {
		return nil, nil, err
	}
	c := &http1Client{conn: conn}
	source := make([]byte, transferBuffer)
	return func() (int, error) {
		if _, err := fmt.Fprintf(conn, uploadRequest, s.bytes); err != nil {
			return 0, err
		}
		for rest := s.bytes; rest > 0; {
			n, err := conn.Write(source[:min(rest, transferBuffer)])
			if err != nil {
				return 0, err
			}
			rest -= int64(n)
		}
		_, err := c.answer(nil)
		return 1, err
	}, func() { _ = conn.Close() }, nil
}
