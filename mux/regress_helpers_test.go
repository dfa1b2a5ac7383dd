package mux_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"

	"github.com/muxserve/muxserve/mux"
)

// The tests of the files regress_*_test.go hold what was once broken.

// undecided is what an HTTP/2 client sends that waits for the server's SETTINGS.
const undecided = http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// patient makes the limits of waiting so long that a test which waits for one
// of them does not end.
func patient(c *mux.Config) {
	noDelay(c)
	c.Sniff.Timeout = time.Hour
	c.HTTP1.HeaderTimeout = time.Hour
	c.HTTP1.IdleTimeout = time.Hour
	c.HTTP2.IdleTimeout = time.Hour
}

// discard is for servers whose log nobody reads.
var discard = slog.New(slog.DiscardHandler)

// running is a server that serves a listener of the test's own.
type running struct {
	*server
	served <-chan error
}

// serveOn serves m on l. The test closes the server, or nothing is left to do when it ends.
func serveOn(t *testing.T, m *mux.Server, l net.Listener) *running {
	t.Helper()
	served := make(chan error, 1)
	go func() { served <- m.Serve(l) }()
	s := &running{&server{Server: m, addr: l.Addr().String()}, served}
	t.Cleanup(func() { _ = m.Close() })
	return s
}

// listen opens a loopback port.
func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// within waits for what must come without any limit of the server running out.
func within[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	select {
	case v := <-c:
		return v
	case <-ctx.Done():
		t.Fatalf("still waiting for: %s", what)
		panic("not reached")
	}
}

// closing calls Close.
func (s *server) closing() <-chan error {
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	return closed
}

// noneLeft reports pools that are not empty.
func (s *server) noneLeft(t *testing.T) {
	t.Helper()
	for name, p := range s.Stats().Pools {
		if p.Active != 0 {
			t.Errorf("pool %s: %d connections left", name, p.Active)
		}
	}
}

// send writes b to a connection.
func send(t *testing.T, conn net.Conn, b string) {
	t.Helper()
	if _, err := io.WriteString(conn, b); err != nil {
		t.Fatal(err)
	}
}

// firstCall returns the bytes of an HTTP/2 connection that begins with a unary
// call of that payload, all sent before the server has said a word. The user agent
// decides which transport gets it.
func firstCall(t *testing.T, userAgent string, size int) string {
	t.Helper()
	message, err := proto.Marshal(&testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, size)}})
	if err != nil {
		t.Fatal(err)
	}
	body := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	var out, block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":authority", "x"},
		{":path", testpb.TestService_UnaryCall_FullMethodName},
		{"content-type", "application/grpc"}, {"te", "trailers"}, {"user-agent", userAgent},
	} {
		if err := e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			t.Fatal(err)
		}
	}
	out.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&out, nil)
	err = errors.Join(f.WriteSettings(),
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}))
	const frame = 16384 // The largest that every server takes.
	for ; len(body) > frame; body = body[frame:] {
		err = errors.Join(err, f.WriteData(1, false, body[:frame]))
	}
	if err := errors.Join(err, f.WriteData(1, true, body)); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// answered reads an HTTP/2 connection until the first stream has its response.
func answered(conn net.Conn) error {
	f := http2.NewFramer(io.Discard, conn)
	f.SetMaxReadFrameSize(1 << 20)
	var seen []http2.FrameType
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return fmt.Errorf("%w after %v", err, seen)
		}
		h := frame.Header()
		seen = append(seen, h.Type)
		if h.StreamID == 1 && (h.Type == http2.FrameRSTStream || h.Flags.Has(http2.FlagHeadersEndStream)) {
			if h.Type == http2.FrameRSTStream {
				return fmt.Errorf("the stream was reset after %v", seen)
			}
			return nil
		}
	}
}

// pipeListener hands out pipes, for tests with a clock of their own.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// dial returns the client's end of a connection.
func (l *pipeListener) dial() net.Conn {
	client, server := net.Pipe()
	l.conns <- server
	return client
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (*pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// timed runs a test on pipes, in a bubble where waiting takes no time.
func timed(t *testing.T, m func() *mux.Server, serve func(*mux.Server, net.Listener) error, f func(*testing.T, *mux.Server, *pipeListener)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, l := m(), newPipeListener()
		served := make(chan error, 1)
		go func() { served <- serve(s, l) }()
		f(t, s, l)
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-served; !errors.Is(err, mux.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
}
