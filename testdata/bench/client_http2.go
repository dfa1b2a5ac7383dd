package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// http2Client is a client of few cycles; see http1Client. Its requests are
// bytes that were made before, since they refer to no state of the connection (RFC 7541).
type http2Client struct {
	conn   net.Conn
	reader *bufio.Reader

	mu      sync.Mutex // guards what follows
	wake    sync.Cond  // of the goroutine that writes
	out     []byte
	next    uint32 // the next stream's number
	pending map[uint32]*http2Answer
	err     error // why there are no more answers

	settled chan struct{} // closed when SETTINGS were acknowledged, by the goroutine that reads
	unacked int           // bytes of DATA that the server was given no room for yet; the same
	ended   sync.WaitGroup
}

// http2Answer is what has come of an answer.
type http2Answer struct {
	status bool // its first field is ":status: 200"
	bytes  int
	done   chan error
}

const (
	frameHeader = 9
	// indexedOK is the field ":status: 200" by its number in the static table (RFC 7541 appendix A), as servers send it.
	indexedOK = 0x80 | 8
	// windowUpdateAt is how many bytes are taken before the server is given room for them.
	windowUpdateAt = 16 << 10
)

// openHTTP2 makes a connection whose requests may be made by several goroutines.
func openHTTP2(ctx context.Context, p *process, port string) (*http2Client, error) {
	conn, err := dial(ctx, p, port)
	if err != nil {
		return nil, err
	}
	c := &http2Client{conn: conn, reader: bufio.NewReader(conn), next: 1, pending: make(map[uint32]*http2Answer), settled: make(chan struct{})}
	c.wake.L = &c.mu
	c.write(append([]byte(http2.ClientPreface), frameOf(http2.FrameSettings, 0, nil)...))
	c.ended.Go(c.readAll)
	c.ended.Go(c.writeAll)
	return c, nil
}

// greeted waits until the client has acknowledged the server's SETTINGS, as a gRPC library
// does before its first call.
func (c *http2Client) greeted(ctx context.Context) error {
	select {
	case <-c.settled:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (c *http2Client) close() {
	c.fail(net.ErrClosed)
	c.ended.Wait()
}

// frameOf returns a frame (RFC 9113 section 4.1) of stream 0, which is the connection itself.
func frameOf(kind http2.FrameType, flags http2.Flags, payload []byte) []byte {
	frame := make([]byte, 0, frameHeader+len(payload))
	frame = append(frame, byte(len(payload)>>16), byte(len(payload)>>8), byte(len(payload)), byte(kind), byte(flags))
	frame = binary.BigEndian.AppendUint32(frame, 0)
	return append(frame, payload...)
}

// http2Request is the frames of a request, with the places of the stream's number.
type http2Request struct {
	frames  []byte
	streams []int
}

// newHTTP2Request returns a request with the fields, which come in pairs, and with body unless that is nil.
func newHTTP2Request(body []byte, fields ...string) http2Request {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		// A sensitive field is not put into the table that later requests would refer to.
		_ = encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1], Sensitive: true}) // A buffer takes everything.
	}
	r := http2Request{streams: []int{frameHeader - 4}}
	flags := http2.FlagHeadersEndHeaders
	if body == nil {
		flags |= http2.FlagHeadersEndStream
	}
	r.frames = frameOf(http2.FrameHeaders, flags, block.Bytes())
	if body != nil {
		r.streams = append(r.streams, len(r.frames)+frameHeader-4)
		r.frames = append(r.frames, frameOf(http2.FrameData, http2.FlagDataEndStream, body)...)
	}
	return r
}

// do sends a request and waits for the end of the answer, of which it returns the length of the body.
func (c *http2Client) do(r http2Request, answer *http2Answer) (int, error) {
	*answer = http2Answer{done: answer.done}
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return 0, c.err
	}
	begin := len(c.out)
	c.out = append(c.out, r.frames...)
	for _, place := range r.streams {
		binary.BigEndian.PutUint32(c.out[begin+place:], c.next)
	}
	c.pending[c.next] = answer
	c.next += 2
	c.mu.Unlock()
	c.wake.Signal()
	if err := <-answer.done; err != nil {
		return 0, err
	}
	if !answer.status {
		return 0, fmt.Errorf("%w: not 200", errAnswer)
	}
	return answer.bytes, nil
}

// write has bytes sent.
func (c *http2Client) write(p []byte) {
	c.mu.Lock()
	c.out = append(c.out, p...)
	c.mu.Unlock()
	c.wake.Signal()
}

// writeAll writes what there is to write, as much as has come together at a time.
func (c *http2Client) writeAll() {
	var spare []byte
	for {
		c.mu.Lock()
		for len(c.out) == 0 && c.err == nil {
			c.wake.Wait()
		}
		if c.err != nil {
			c.mu.Unlock()
			return
		}
		out := c.out
		c.out = spare[:0]
		c.mu.Unlock()
		if _, err := c.conn.Write(out); err != nil {
			c.fail(err)
			return
		}
		spare = out
	}
}

// fail ends the connection, and every request that waits for an answer.
func (c *http2Client) fail(err error) {
	_ = c.conn.Close()
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	for stream, answer := range c.pending {
		answer.done <- c.err
		delete(c.pending, stream)
	}
	c.mu.Unlock()
	c.wake.Signal()
}

func (c *http2Client) readAll() {
	for {
		if err := c.readFrame(); err != nil {
			c.fail(err)
			return
		}
	}
}

func (c *http2Client) readFrame() error {
	header, err := c.reader.Peek(frameHeader)
	if err != nil {
		return err
	}
	length := int(header[0])<<16 | int(header[1])<<8 | int(header[2])
	kind, flags, stream := http2.FrameType(header[3]), http2.Flags(header[4]), binary.BigEndian.Uint32(header[5:])
	_, _ = c.reader.Discard(frameHeader) // It was seen.
	payload, err := c.reader.Peek(min(length, c.reader.Size()))
	if err != nil {
		return err
	}
	defer c.reader.Discard(length) //nolint:errcheck // The next frame fails.
	return c.take(kind, flags, stream, length, payload)
}

// take does what a frame asks for. Of a long frame, payload is the beginning.
func (c *http2Client) take(kind http2.FrameType, flags http2.Flags, stream uint32, length int, payload []byte) error {
	switch kind {
	case http2.FrameSettings:
		// One acknowledgement, whatever comes: plain cmux sends SETTINGS besides its server's, and
		// net/http's ends a connection on which a second one is acknowledged.
		if !flags.Has(http2.FlagSettingsAck) && !isClosed(c.settled) {
			c.write(frameOf(http2.FrameSettings, http2.FlagSettingsAck, nil))
			close(c.settled)
		}
	case http2.FramePing:
		if !flags.Has(http2.FlagPingAck) {
			c.write(frameOf(http2.FramePing, http2.FlagPingAck, payload))
		}
	case http2.FrameHeaders:
		c.progress(stream, func(a *http2Answer) { a.status = a.status || length > 0 && payload[0] == indexedOK }, flags.Has(http2.FlagHeadersEndStream))
	case http2.FrameData:
		c.grant(length)
		c.progress(stream, func(a *http2Answer) { a.bytes += length }, flags.Has(http2.FlagDataEndStream))
	case http2.FrameRSTStream:
		return fmt.Errorf("%w: RST_STREAM %x", errAnswer, payload)
	case http2.FrameGoAway:
		return io.EOF // Nothing is in flight when a server drains, and no other has a reason.
	}
	return nil
}

// grant gives the server room for as much as it has sent, now and then.
func (c *http2Client) grant(length int) {
	if c.unacked += length; c.unacked >= windowUpdateAt {
		c.write(frameOf(http2.FrameWindowUpdate, 0, binary.BigEndian.AppendUint32(nil, uint32(c.unacked))))
		c.unacked = 0
	}
}

func (c *http2Client) progress(stream uint32, note func(*http2Answer), end bool) {
	c.mu.Lock()
	answer := c.pending[stream]
	if answer != nil && end {
		delete(c.pending, stream)
	}
	c.mu.Unlock()
	if answer == nil {
		return
	}
	note(answer)
	if end {
		answer.done <- nil
	}
}

var (
	http2Small = newHTTP2Request(nil, ":method", "GET", ":scheme", "http", ":path", "/", ":authority", "bench", "user-agent", "bench", "accept", "*/*")
	// http2Call is a unary call as grpc-go makes it: the message is field 1 of an EchoRequest, and empty.
	http2Call = newHTTP2Request([]byte{0, 0, 0, 0, 2, 0x0a, 0}, ":method", "POST", ":scheme", "http", ":path", "/muxserve.demo.v1.Echo/Unary",
		":authority", "bench", "content-type", "application/grpc", "user-agent", "grpc-go/1.85.0", "te", "trailers")
)

// http2Streams asks by many streams of one connection at the same time.
func http2Streams(ctx context.Context, p *process, s sizes) (*session, error) {
	c, err := openHTTP2(ctx, p, portHTTP2)
	if err != nil {
		return nil, err
	}
	made := &session{closers: []func(){c.close}}
	for range s.streams {
		answer := &http2Answer{done: make(chan error, 1)}
		made.workers = append(made.workers, func() (int, error) {
			n, err := c.do(http2Small, answer)
			if err == nil && n != len(greeting) {
				err = fmt.Errorf("%w: %d bytes", errAnswer, n)
			}
			return 1, err
		})
	}
	return made, nil
}
