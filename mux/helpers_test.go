package mux_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
)

// startOn serves the test handlers on one loopback port for each configuration
// that has no address of its own. All of them belong to one mux.Server.
func startOn(t *testing.T, withTLS bool, configs []listeners.Config, options ...mux.Option) []*server {
	t.Helper()
	for i := range configs {
		if configs[i].Address == "" {
			configs[i].Address = "127.0.0.1:0"
		}
	}
	m, roots := newServer(t, withTLS, append(options, mux.Configure(func(c *mux.Config) { c.Listeners = configs }))...)
	if err := m.Listen(); err != nil {
		t.Fatal(err)
	}
	serveToEnd(t, m, m.ListenAndServe)
	var all []*server
	for _, addr := range m.Addrs() {
		all = append(all, &server{Server: m, addr: addr.String(), roots: roots})
	}
	return all
}

// handshake is a WebSocket's handshake at the path /ws.
const handshake = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// recordingLog keeps the lines above Debug.
func recordingLog(lines *syncBuffer) *slog.Logger {
	return slog.New(slog.NewTextHandler(lines, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// gatedListener accepts nothing until it is opened, so that connections queue in the
// kernel.
type gatedListener struct {
	*net.TCPListener
	open chan struct{}
}

func (l *gatedListener) Accept() (net.Conn, error) {
	<-l.open
	return l.TCPListener.Accept()
}

// begun returns a channel that is closed when the drain reaches that step.
func (s *server) begun(t *testing.T, step string) <-chan struct{} {
	t.Helper()
	begun := make(chan struct{})
	err := s.OnDrain(step, "begun", func(context.Context) error {
		close(begun)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return begun
}

// drainResult is what Drain returned.
type drainResult struct {
	report *lifecycle.Report
	err    error
}

func (s *server) drain(ctx context.Context) <-chan drainResult {
	done := make(chan drainResult, 1)
	go func() {
		report, err := s.Drain(ctx)
		done <- drainResult{report, err}
	}()
	return done
}

// get makes a GET and sends the body, or the error, on the channel.
func get(c *http.Client, url string) <-chan string {
	answer := make(chan string, 1)
	go func() {
		resp, err := c.Get(url)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			answer <- err.Error()
			return
		}
		answer <- string(body)
	}()
	return answer
}

func (s *server) active(protocol string) int64 { return s.Stats().Pools[protocol].Active }

// status returns the status of a GET on a new connection.
func (s *server) status(t *testing.T, path string) int {
	t.Helper()
	conn := s.dial(t)
	defer conn.Close()
	return roundTrip(t, conn, bufio.NewReader(conn), "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").StatusCode
}

func limits(edit func(*mux.Config)) mux.Option { return mux.Configure(edit) }

func (s *server) rejected(tag, reason string) uint64 { return s.Stats().Rejected[tag][reason] }

// hold opens a kept-alive HTTP/1.1 connection.
func (s *server) hold(t *testing.T) net.Conn {
	t.Helper()
	conn := s.dial(t)
	resp := roundTrip(t, conn, bufio.NewReader(conn), "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %s", resp.Status)
	}
	return conn
}

// busy opens an HTTP/1.1 connection with a request that is in flight until it is closed.
func (s *server) busy(t *testing.T) net.Conn {
	t.Helper()
	conn := s.dial(t)
	if resp := roundTrip(t, conn, bufio.NewReader(conn), "GET /busy HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != http.StatusOK {
		t.Fatalf("status %s", resp.Status)
	}
	return conn
}

// told returns a channel that is closed when the drain has told every client to leave.
func (s *server) told(t *testing.T) <-chan struct{} {
	t.Helper()
	return s.begun(t, lifecycle.StepWaitConnections)
}

// stopsListening waits until the kernel refuses new connections.
func (s *server) stopsListening(t *testing.T) {
	t.Helper()
	eventually(t, "the listener is closed", func() bool {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
}

// echoCall opens a call that echoes, and returns a function that exchanges one message.
func (s *server) echoCall(t *testing.T) (grpc.BidiStreamingClient[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse], func(text string)) {
	t.Helper()
	call, err := testpb.NewTestServiceClient(s.grpcClient(t)).FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return call, func(text string) {
		t.Helper()
		if err := call.Send(&testpb.StreamingOutputCallRequest{Payload: payload(text)}); err != nil {
			t.Fatal(err)
		}
		if got, err := call.Recv(); err != nil || string(got.GetPayload().GetBody()) != text {
			t.Fatalf("stream: %v, %v", got, err)
		}
	}
}

// switching hijacks the connection, answers 101 itself, as WebSocket libraries other than
// coder/websocket do, and calls use.
func switching(t *testing.T, protocol string, use func(net.Conn, io.Reader)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol+"\r\n\r\n")
		use(conn, rw)
	})
}

// undecided is the beginning of an HTTP/2 client that waits for the server's SETTINGS.
const undecided = http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// patient makes timeouts so long that a test that waits for one of them fails.
func patient(c *mux.Config) {
	noDelay(c)
	c.Sniff.Timeout = time.Hour
	c.HTTP1.HeaderTimeout = time.Hour
	c.HTTP1.IdleTimeout = time.Hour
	c.HTTP2.IdleTimeout = time.Hour
}

// quickSniff has connections closed after d that have sent nothing, or stop within their first
// bytes.
func quickSniff(d time.Duration) mux.Option {
	return mux.Configure(func(c *mux.Config) { c.Sniff.Timeout, c.HTTP1.IdleTimeout = d, d })
}

// discard is the log of servers whose lines no test reads.
var discard = slog.New(slog.DiscardHandler)

// running is a server on a listener of the test's own.
type running struct {
	*server
	served <-chan error
}

// serveOn serves m on l. The end of the test closes the server if the test has not done
// so.
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

// within receives from c. It fails the test after a time in which no timeout of the
// server runs out.
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

// firstCall returns the bytes of an HTTP/2 connection that begins with a unary call with
// that payload, without a wait for the server. The user agent decides the transport.
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
	err = f.WriteSettings()
	if strings.HasPrefix(userAgent, "grpc-") { // The libraries wait for the server's, and acknowledge them.
		err = errors.Join(err, f.WriteSettingsAck())
	}
	err = errors.Join(err,
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

// answered reads an HTTP/2 connection until the first stream has ended.
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

func (s *server) counts() map[string]int64 {
	counts := make(map[string]int64)
	for tag, p := range s.Stats().Pools {
		if p.Active > 0 {
			counts[tag] = p.Active
		}
	}
	return counts
}

// wrapListener passes each connection that it accepts through wrap.
type wrapListener struct {
	net.Listener
	wrap func(net.Conn) net.Conn
}

func (l wrapListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.wrap(conn), nil
}
