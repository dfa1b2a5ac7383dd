package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
)

// watchedRow has a connection of gRPC with many calls in flight send a GET. The GET
// must be refused in a way that a client retries, as a call behind it, and the calls in
// flight must go on to their end.
type watchedRow struct{ calls int }

const (
	defaultStreams = 250
	// reclassified is the metric of connections that turned out to be shared.
	reclassified = "mux_connections_reclassified_total"
)

// String returns the row's beginning.
func (r watchedRow) String() string {
	return fmt.Sprintf("%-26s %-13s %-10s %-10s", fmt.Sprintf("a GET after %d calls", r.calls), "-", "muxserve", "1")
}

func (r watchedRow) run(ctx context.Context, s setup) *result {
	ctx, cancel := context.WithTimeout(ctx, rowTimeout)
	defer cancel()
	res := &result{sent: r.calls + 2, logged: unlogged, connections: 2}
	started := time.Now()
	defer func() { res.duration = time.Since(started) }()
	server, err := startProcess(ctx, s, r.calls+10)
	if err != nil {
		res.fail(err)
		return res
	}
	if err := r.first(ctx, server.Addr, res); err != nil {
		res.fail(fmt.Errorf("the first connection: %w", err))
	}
	if err := r.second(ctx, server.Addr, res); err != nil {
		res.fail(fmt.Errorf("the second connection: %w", err))
	}
	metrics, err := get(ctx, "http://"+server.Admin+"/metrics")
	switch {
	case err != nil:
		res.fail(err)
	case !counted(string(metrics)):
		res.fail(fmt.Errorf("%s is not 1", reclassified))
	}
	if err := server.Stop(); err != nil {
		res.fail(err)
	}
	return res
}

// counted reports whether one connection was counted as reclassified.
func counted(metrics string) bool {
	var n int
	for line := range strings.Lines(metrics) {
		if rest, ok := strings.CutPrefix(line, reclassified); ok {
			if f := strings.Fields(rest); len(f) > 0 && f[len(f)-1] != "0" {
				n++
			}
		}
	}
	return n == 1
}

// first has the calls in flight, sends the GET, and ends the calls.
func (r watchedRow) first(ctx context.Context, addr string, res *result) error {
	c, err := dialFrames(ctx, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	for i := range r.calls {
		if err := c.call(streamID(i), "hello", false); err != nil {
			return err
		}
	}
	for i := range r.calls {
		if err := c.wait(streamID(i), func(s *stream) bool { return s.transport != "" }); err != nil {
			return fmt.Errorf("call %d: %w", i, err)
		}
	}
	request, late := streamID(r.calls), streamID(r.calls+1)
	if err := c.headers(request, true, getFields(addr)); err != nil {
		return err
	}
	if err := c.call(late, "late", true); err != nil {
		return err
	}
	if err := c.wait(request, func(s *stream) bool { return s.ended }); err != nil {
		return fmt.Errorf("the GET: %w", err)
	}
	if s := c.stream(request); s.reset != http2.ErrCodeRefusedStream {
		return fmt.Errorf("the GET was not refused: status %q, reset %v", s.status, s.reset)
	}
	if last, ok := c.goAway(); !ok || last < streamID(r.calls-1) || last >= request {
		return fmt.Errorf("GOAWAY %t with stream %d, want one from %d on and below %d", ok, last, streamID(r.calls-1), request)
	}
	for i := range r.calls {
		if err := c.data(streamID(i), nil, true); err != nil {
			return err
		}
	}
	for i := range r.calls {
		id := streamID(i)
		if err := c.wait(id, func(s *stream) bool { return s.ended }); err != nil {
			return fmt.Errorf("call %d: %w", i, err)
		}
		if s := c.stream(id); s.grpcStatus != "0" || s.transport != byNative {
			res.fail(fmt.Errorf("call %d ended with status %q, reset %v, served by %q", i, s.grpcStatus, s.reset, s.transport))
			continue
		}
		res.count(opUnary, byNative, nil)
	}
	if s := c.stream(late); s.status != "" {
		return fmt.Errorf("a call behind the GET was answered %q by %q", s.status, s.transport)
	}
	return nil
}

// second makes a call and then the GET on the connection that the client opens next.
func (r watchedRow) second(ctx context.Context, addr string, res *result) error {
	c, err := dialFrames(ctx, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	call, request := streamID(0), streamID(1)
	if err := c.call(call, "hello", true); err != nil {
		return err
	}
	if err := c.wait(call, func(s *stream) bool { return s.ended }); err != nil {
		return err
	}
	if s := c.stream(call); s.grpcStatus != "0" || s.transport != byShared {
		return fmt.Errorf("the call ended with status %q, reset %v, served by %q, want %q", s.grpcStatus, s.reset, s.transport, byShared)
	}
	res.count(opUnary, byShared, nil)
	if err := c.headers(request, true, getFields(addr)); err != nil {
		return err
	}
	if err := c.wait(request, func(s *stream) bool { return s.ended }); err != nil {
		return err
	}
	if s := c.stream(request); s.status != "200" {
		return fmt.Errorf("the GET was answered %q, reset %v", s.status, s.reset)
	}
	res.count(opGet, byHandler, nil)
	return nil
}

// streamID returns the number of a client's stream; RFC 9113, section 5.1.1.
func streamID(i int) uint32 { return uint32(2*i + 1) }

// stream is what a frames knows of one stream.
type stream struct {
	status, grpcStatus, transport string
	ended                         bool // By END_STREAM or RST_STREAM.
	reset                         http2.ErrCode
	data                          []byte
}

// frames is a connection that is opened as grpc-go opens it. It has a goroutine that
// reads, so that a server whose answers nobody waits for is never held up.
type frames struct {
	net.Conn

	writing sync.Mutex // guards the framer's writes, encoder and block; taken before mu
	framer  *http2.Framer
	encoder *hpack.Encoder
	block   bytes.Buffer

	mu      sync.Mutex // guards all below
	changed *sync.Cond
	window  int64 // The server's, of the connection.
	streams map[uint32]*stream
	away    bool
	last    uint32 // GOAWAY's
	err     error  // why the reader has ended
}

// dialFrames connects, waits for the server's SETTINGS and acknowledges them.
func dialFrames(ctx context.Context, addr string) (*frames, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	c := &frames{Conn: conn, framer: http2.NewFramer(conn, conn), window: 65535, streams: make(map[uint32]*stream)}
	c.changed = sync.NewCond(&c.mu)
	c.encoder = hpack.NewEncoder(&c.block)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	const connectionWindow = 1 << 28 // The answers are not to wait for it.
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return nil, err
	}
	if err := errors.Join(c.framer.WriteSettings(), c.framer.WriteWindowUpdate(0, connectionWindow)); err != nil {
		return nil, err
	}
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return nil, err
		}
		c.note(frame)
		c.answer(frame)
		if s, ok := frame.(*http2.SettingsFrame); ok && !s.IsAck() {
			break
		}
	}
	go c.read()
	return c, nil
}

// read reads until the connection ends.
func (c *frames) read() {
	for {
		frame, err := c.framer.ReadFrame()
		c.mu.Lock()
		if c.err = err; err == nil {
			c.note(frame)
		}
		c.changed.Broadcast()
		c.mu.Unlock()
		if err != nil {
			return
		}
		c.answer(frame)
	}
}

// answer sends the acknowledgement of a frame that has one.
func (c *frames) answer(frame http2.Frame) {
	c.writing.Lock()
	defer c.writing.Unlock()
	switch f := frame.(type) { // A write that fails shows in the next read.
	case *http2.SettingsFrame:
		if !f.IsAck() {
			_ = c.framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			_ = c.framer.WritePing(true, f.Data)
		}
	}
}

// note keeps what a frame says. c.mu is held, or the reader does not run yet.
func (c *frames) note(frame http2.Frame) {
	s := c.streams[frame.Header().StreamID]
	if s == nil {
		s = new(stream) // A stream of no interest.
	}
	switch f := frame.(type) {
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			c.window += int64(f.Increment)
		}
	case *http2.GoAwayFrame:
		c.away, c.last = true, f.LastStreamID
	case *http2.RSTStreamFrame:
		s.reset, s.ended = f.ErrCode, true
	case *http2.MetaHeadersFrame:
		for _, field := range f.Fields {
			switch field.Name {
			case ":status":
				s.status = field.Value
			case "grpc-status":
				s.grpcStatus = field.Value
			}
		}
		s.ended = s.ended || f.StreamEnded()
	case *http2.DataFrame:
		s.data = append(s.data, f.Data()...)
		s.ended = s.ended || f.StreamEnded()
		if resp := new(demov1.EchoResponse); s.transport == "" && len(s.data) > grpcPrefix && proto.Unmarshal(s.data[grpcPrefix:], resp) == nil {
			s.transport = resp.GetTransport()
		}
	}
}

// wait waits until a stream is as it should be.
func (c *frames) wait(id uint32, ok func(*stream) bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !ok(c.streams[id]) {
		if s := c.streams[id]; c.err != nil || s.ended {
			return fmt.Errorf("status %q, grpc-status %q, reset %v; the connection: %v", s.status, s.grpcStatus, s.reset, c.err)
		}
		c.changed.Wait()
	}
	return nil
}

func (c *frames) stream(id uint32) stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return *c.streams[id]
}

// goAway waits for a GOAWAY that names a stream, as the last one has to.
func (c *frames) goAway() (last uint32, ok bool) {
	const all = 1<<31 - 1 // RFC 9113, section 6.8
	c.mu.Lock()
	defer c.mu.Unlock()
	for (!c.away || c.last == all) && c.err == nil {
		c.changed.Wait()
	}
	return c.last, c.away
}

// headers begins a stream.
func (c *frames) headers(id uint32, end bool, fields [][2]string) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	c.streams[id] = new(stream)
	c.mu.Unlock()
	c.block.Reset()
	for _, f := range fields {
		if err := c.encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			return err
		}
	}
	return c.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: c.block.Bytes(), EndHeaders: true, EndStream: end,
	})
}

// data sends data when the connection's window allows it. No stream sends more than its own.
func (c *frames) data(id uint32, p []byte, end bool) error {
	c.mu.Lock()
	for c.window < int64(len(p)) && c.err == nil {
		c.changed.Wait()
	}
	c.window -= int64(len(p))
	c.mu.Unlock()
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.framer.WriteData(id, end, p)
}

const grpcPrefix = 5 // A message is preceded by a flag and its length.

// call begins a BidiStream with one message.
func (c *frames) call(id uint32, message string, end bool) error {
	err := c.headers(id, false, [][2]string{
		{":method", http.MethodPost},
		{":scheme", "http"},
		{":path", demov1.Echo_BidiStream_FullMethodName},
		{":authority", "localhost"},
		{"content-type", "application/grpc"},
		{"user-agent", "grpc-go/1.85.0"},
		{"te", "trailers"},
	})
	if err != nil {
		return err
	}
	body, err := proto.Marshal(&demov1.EchoRequest{Message: message})
	if err != nil {
		return err
	}
	p := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body)))
	return c.data(id, append(p, body...), end)
}

func getFields(authority string) [][2]string {
	return [][2]string{
		{":method", http.MethodGet}, {":scheme", "http"}, {":path", "/echo"}, {":authority", authority}, {"user-agent", "curl/8"},
	}
}
