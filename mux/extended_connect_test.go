package mux_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// extendedConnect is the setting by which net/http offers extended CONNECT. It is read
// when a process starts.
const extendedConnect = "http2xconnect=1"

func overHTTP2(c *mux.Config) {
	c.HTTP2.WebSocket = true
	c.WebSocket.ReadLimit = 2 << 20
}

// inOwnProcess runs the test again in a process of its own, in which net/http offers
// extended CONNECT. It returns true in that process.
func inOwnProcess(t *testing.T) bool {
	t.Helper()
	if strings.Contains(os.Getenv("GODEBUG"), extendedConnect) {
		return true
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), "GODEBUG="+extendedConnect)
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Error(err)
	}
	t.Logf("%s", out)
	return false
}

// TestWebSocketOverHTTP2: WebSockets on the streams of an HTTP/2 connection (RFC 8441).
func TestWebSocketOverHTTP2(t *testing.T) {
	t.Parallel()
	if !inOwnProcess(t) {
		return
	}
	for name, test := range map[string]func(*testing.T){
		"echo":                   testStreamEcho,
		"refusals":               testStreamRefusals,
		"limit":                  testStreamLimit,
		"half-close":             testStreamHalfClose,
		"reset":                  testStreamReset,
		"stall":                  testStreamStall,
		"pong behind a download": testStreamPong,
		"drain":                  testStreamDrain,
		"off":                    testStreamOff,
		"no websocket":           testStreamNoWebSocket,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

// TestWebSocketOverHTTP2Unavailable: a process that cannot offer extended CONNECT fails
// at the start and says what to do.
func TestWebSocketOverHTTP2Unavailable(t *testing.T) {
	if strings.Contains(os.Getenv("GODEBUG"), extendedConnect) {
		t.Skip("this process can offer them")
	}
	s := mux.New(mux.Configure(noDelay), mux.Configure(overHTTP2), mux.WithLogger(slog.New(slog.DiscardHandler)))
	defer s.Close()
	l := listen(t)
	if err := s.Serve(l); !errors.Is(err, protocols.ErrNoExtendedConnect) || !strings.Contains(err.Error(), extendedConnect) {
		t.Errorf("Serve: %v", err)
	}
}

// http2 opens an HTTP/2 connection.
func (s *server) http2(t *testing.T) *h2Client {
	t.Helper()
	conn := s.dial(t, "h2")
	return newH2Client(t, conn, conn)
}

// connect asks for a WebSocket on a stream. The fields come on top of the usual ones.
func (c *h2Client) connect(stream uint32, path string, fields ...string) {
	c.t.Helper()
	c.request(stream, false, append([]string{
		":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "x", ":path", path,
		"sec-websocket-version", "13",
	}, fields...)...)
}

// webSocket opens a WebSocket on a stream.
func (c *h2Client) webSocket(stream uint32, path string) {
	c.t.Helper()
	c.connect(stream, path, "origin", "https://x")
	if got := c.header(stream)[":status"]; got != "200" {
		c.t.Fatalf("status %q", got)
	}
}

// The opcodes of WebSocket frames (RFC 6455 section 11.8).
const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
)

// clientFrame returns a masked frame.
func clientFrame(fin bool, opcode byte, payload []byte) []byte {
	first := opcode
	if fin {
		first |= 0x80
	}
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n <= 0xFFFF:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	key := [4]byte{1, 2, 3, 4}
	b = append(b, key[:]...)
	for i, x := range payload {
		b = append(b, x^key[i%4])
	}
	return b
}

// serverFrame reads a frame of the server.
func (c *h2Client) serverFrame(stream uint32) (opcode byte, payload string) {
	c.t.Helper()
	head := c.exactly(stream, 2)
	n := int(head[1])
	switch n {
	case 126:
		n = int(binary.BigEndian.Uint16(c.exactly(stream, 2)))
	case 127:
		n = int(binary.BigEndian.Uint64(c.exactly(stream, 8)))
	}
	return head[0] & 0x0F, string(c.exactly(stream, n))
}

func (c *h2Client) exactly(stream uint32, n int) []byte {
	c.t.Helper()
	data := c.data(stream, n)
	if len(data) < n {
		c.t.Fatalf("stream %d ended after %d of %d bytes", stream, len(data), n)
	}
	return []byte(data)
}

// closed closes a WebSocket and expects its stream to end.
func (c *h2Client) closed(stream uint32) {
	c.t.Helper()
	c.send(stream, clientFrame(true, opClose, []byte{0x03, 0xE8}), 100)
	if op, payload := c.serverFrame(stream); op != opClose || payload != "\x03\xE8" {
		c.t.Errorf("answer to a close frame: opcode %d, %q", op, payload)
	}
	if rest := c.rest(stream); rest != "" {
		c.t.Errorf("%q behind the close frame", rest)
	}
}

func testStreamEcho(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		c := s.http2(t)
		c.connect(1, "/ws", "origin", "https://x", "sec-websocket-extensions", "permessage-deflate")
		want := c.header(1)
		delete(want, "date")
		if diff := cmp.Diff(map[string]string{":status": "200"}, want); diff != "" {
			t.Errorf("answer (-want +got):\n%s", diff)
		}
		if got := c.settings[http2.SettingEnableConnectProtocol]; got != 1 {
			t.Errorf("ENABLE_CONNECT_PROTOCOL is %d", got)
		}
		message := clientFrame(true, opText, []byte("hello"))
		for _, n := range []int{len(message), 1, 3} {
			c.send(1, message, n)
			if op, payload := c.serverFrame(1); op != opText || payload != "hello" {
				t.Errorf("in parts of %d: opcode %d, %q", n, op, payload)
			}
		}
		// A fragmented message, with its frames in one DATA frame.
		c.send(1, append(clientFrame(false, opBinary, []byte("ab")), clientFrame(true, opContinuation, []byte("cd"))...), 100)
		if op, payload := c.serverFrame(1); op != opBinary || payload != "abcd" {
			t.Errorf("fragmented: opcode %d, %q", op, payload)
		}
		// Other streams go on beside it.
		c.webSocket(3, "/ws")
		c.get(5, "/echo")
		if got := c.header(5)["x-protocol"]; got != "http2" {
			t.Errorf("pool %q", got)
		}
		c.closed(3)
		c.closed(1)
		if diff := cmp.Diff([]uint64{1, 0}, []uint64{s.Stats().Pools["http2"].Accepted, s.Stats().Pools["websocket"].Accepted}); diff != "" {
			t.Errorf("pools (-want +got):\n%s", diff)
		}
	}, mux.Configure(overHTTP2))
}

func testStreamRefusals(t *testing.T) {
	own := http.NewServeMux()
	own.Handle("/", routes())
	own.Handle("/limited", timeLimit(mux.WebSocket(echoWebSocket)))
	s := start(t, false, mux.Configure(overHTTP2), mux.WithHandler(own))
	c := s.http2(t)
	stream := uint32(1)
	for _, test := range []struct {
		name, method, protocol, path string
		fields                       []string
		want                         string
	}{
		{"no version", "CONNECT", "websocket", "/ws", nil, "400"},
		{"foreign origin", "CONNECT", "websocket", "/ws", []string{"sec-websocket-version", "13", "origin", "https://elsewhere"}, "403"},
		{"below http.TimeoutHandler", "CONNECT", "websocket", "/limited", []string{"sec-websocket-version", "13"}, "501"},
		{"unknown protocol", "CONNECT", "connect-udp", "/ws", nil, "501"},
		{"other method", "GET", "websocket", "/ws", nil, "400"},
		{"no such path", "CONNECT", "websocket", "/nowhere", []string{"sec-websocket-version", "13"}, "404"},
		{"not for WebSockets", "CONNECT", "websocket", "/echo", []string{"sec-websocket-version", "13"}, "405"},
	} {
		c.request(stream, false, append([]string{
			":method", test.method, ":protocol", test.protocol, ":scheme", "http", ":authority", "x", ":path", test.path,
		}, test.fields...)...)
		if got := c.header(stream)[":status"]; got != test.want {
			t.Errorf("%s: status %q, want %s", test.name, got, test.want)
		}
		stream += 2
	}
	c.get(stream, "/ws")
	h := c.header(stream)
	if _, has := h["upgrade"]; has || h[":status"] != "400" {
		t.Errorf("GET /ws: %v", h)
	}
	c.webSocket(stream+2, "/ws")
	c.closed(stream + 2)
}

// testStreamLimit: a stream takes a place among the WebSockets until it ends. Where the
// limit falls, the excess is closed with 1013.
func testStreamLimit(t *testing.T) {
	few := func(n int) func(*mux.Config) { return func(c *mux.Config) { c.WebSocket.MaxConnections = n } }
	s := start(t, false, mux.Configure(overHTTP2), mux.Configure(few(3)))
	a, b := s.http2(t), s.http2(t)
	a.webSocket(1, "/ws")
	a.webSocket(3, "/ws")
	b.webSocket(1, "/ws")
	b.connect(3, "/ws")
	if got := b.header(3); got[":status"] != "503" || got["retry-after"] == "" {
		t.Errorf("the fourth: %v", got)
	}
	one := s.dial(t)
	if resp := roundTrip(t, one, bufio.NewReader(one), handshake); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("in HTTP/1.1: %s", resp.Status)
	}
	b.closed(1)
	eventually(t, "a place", func() bool { return s.Stats().Requests["websocket"].InFlight == 2 })
	b.webSocket(5, "/ws")
	b.closed(5)
	eventually(t, "two left", func() bool { return s.Stats().Requests["websocket"].InFlight == 2 })
	s.reload(t, few(1))
	for a.stream(1).body.Len()+a.stream(3).body.Len() == 0 {
		a.step()
	}
	excess := uint32(1)
	if a.stream(1).body.Len() == 0 {
		excess = 3
	}
	if op, payload := a.serverFrame(excess); op != opClose || !strings.HasPrefix(payload, "\x03\xF5") {
		t.Errorf("opcode %d, %q; want a close frame with 1013", op, payload)
	}
	a.closed(4 - excess)
}

// reporting serves WebSockets with h and reports what h returns.
func reporting(h mux.WebSocketHandler) (mux.Option, <-chan error) {
	ended := make(chan error, 10)
	return mux.WithWebSocket(func(ctx context.Context, c *websocket.Conn, r *http.Request) error {
		err := h(ctx, c, r)
		ended <- err
		return err
	}), ended
}

func testStreamHalfClose(t *testing.T) {
	handler, ended := reporting(echoWebSocket)
	s := start(t, false, mux.Configure(overHTTP2), handler)
	c := s.http2(t)
	// END_STREAM is in the same frame as the message.
	c.webSocket(1, "/")
	c.must(c.WriteData(1, true, clientFrame(true, opText, []byte("last"))))
	if op, payload := c.serverFrame(1); op != opText || payload != "last" {
		t.Errorf("opcode %d, %q", op, payload)
	}
	if op, _ := c.serverFrame(1); op != opClose {
		t.Errorf("opcode %d, want a close frame", op)
	}
	c.rest(1)
	if err := <-ended; err == nil {
		t.Error("no error after the end of the stream")
	}
	// A message comes behind a close frame.
	c.webSocket(3, "/")
	c.must(c.WriteData(3, true, clientFrame(true, opClose, []byte{0x03, 0xE8})))
	if op, payload := c.serverFrame(3); op != opClose || payload != "\x03\xE8" {
		t.Errorf("opcode %d, %q", op, payload)
	}
	c.rest(3)
	if err := <-ended; websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("closed with %v", err)
	}
}

// testStreamReset: RST_STREAM ends a handler that reads and a handler that writes.
func testStreamReset(t *testing.T) {
	handler, ended := reporting(func(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
		written := make(chan error, 1)
		go func() {
			for {
				if err := c.Write(ctx, websocket.MessageBinary, make([]byte, 1000)); err != nil {
					written <- err
					return
				}
			}
		}()
		_, _, err := c.Read(ctx)
		return errors.Join(err, <-written)
	})
	s := start(t, false, mux.Configure(overHTTP2), handler)
	c := s.http2(t)
	for stream := uint32(1); stream < 20; stream += 2 {
		c.webSocket(stream, "/")
		// The handler writes at full speed, or flow control stalls it, at the time of the
		// reset.
		c.data(stream, int(stream)*2000)
		c.must(c.WriteRSTStream(stream, http2.ErrCodeCancel))
		if err := <-ended; err == nil || websocket.CloseStatus(err) != -1 {
			t.Errorf("ended with %v", err)
		}
	}
	c.get(21, "/livez")
	if got := c.header(21)[":status"]; got != "200" {
		t.Errorf("the connection: status %q", got)
	}
}

// testStreamStall: 1 MiB goes each way through windows of 64 KiB. A client that does not
// read stalls its own stream only.
func testStreamStall(t *testing.T) {
	handler, ended := reporting(echoWebSocket)
	s := start(t, false, mux.Configure(overHTTP2), handler)
	c := s.http2(t)
	c.noCredit = true
	c.webSocket(1, "/")
	message := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	c.send(1, clientFrame(true, opBinary, message), 10_000)
	for c.stream(1).body.Len() < 65535 {
		c.step()
	}
	c.get(3, "/livez")
	if got := c.header(3)[":status"]; got != "200" {
		t.Errorf("beside the stalled stream: status %q", got)
	}
	if got := c.stream(1).body.Len(); got != 65535 {
		t.Errorf("%d bytes through a window of 65535", got)
	}
	c.must(c.WriteWindowUpdate(1, 1<<24))
	if op, payload := c.serverFrame(1); op != opBinary || payload != string(message) {
		t.Errorf("1 MiB: opcode %d, %d bytes", op, len(payload))
	}
	c.closed(1)
	<-ended
}

func testStreamDrain(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		c := s.http2(t)
		c.webSocket(1, "/ws")
		c.get(3, "/slow")
		done := s.drain(t.Context())
		if got := c.goneAway(); got != http2.ErrCodeNo {
			t.Errorf("GOAWAY %v", got)
		}
		if op, payload := c.serverFrame(1); op != opClose || !strings.HasPrefix(payload, "\x03\xE9") {
			t.Errorf("opcode %d, %q; want a close frame with 1001", op, payload)
		}
		c.send(1, clientFrame(true, opClose, []byte{0x03, 0xE9}), 100)
		if rest := c.rest(1); rest != "" {
			t.Errorf("%q behind the close frame", rest)
		}
		if got := c.rest(3); got != "slow" {
			t.Errorf("the request beside it: %q", got)
		}
		c.goAways(nil) // It answers PINGs until the end.
		if got := <-done; got.err != nil || got.report.ForcedTotal() != 0 {
			t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
		}
	}, mux.Configure(overHTTP2))
}

// testStreamOff: net/http announces extended CONNECT for the whole process. A server
// without it refuses the request.
func testStreamOff(t *testing.T) {
	s := start(t, false)
	c := s.http2(t)
	c.connect(1, "/ws")
	if got := fmt.Sprint(c.header(1)[":status"]); got != "501" {
		t.Errorf("status %s, want 501", got)
	}
}

// testStreamNoWebSocket: an extended CONNECT for which the handler accepts no WebSocket keeps
// its place no longer than another request may stand still.
func testStreamNoWebSocket(t *testing.T) {
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 100<<10)) })
	s := start(t, false, mux.WithHandler(page), mux.Configure(overHTTP2), mux.Configure(func(c *mux.Config) {
		c.WebSocket.MaxConnections, c.HTTP2.Progress.ProgressTimeout = 1, 200*time.Millisecond
	}))
	conn := s.dial(t, "h2")
	c := newH2Client(t, conn, conn, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	c.connect(1, "/page", "origin", "https://x")
	if got := c.header(1)[":status"]; got != "405" {
		t.Fatalf("status %q", got)
	}
	eventually(t, "its place is free", func() bool { return s.Stats().Requests["websocket"].InFlight == 0 })
}

// TestReloadsEndOneOnly: a WebSocket on a stream that was told to leave keeps its place until its
// handler returns. No reload meanwhile ends another one for that.
func TestReloadsEndOneOnly(t *testing.T) {
	t.Parallel()
	if !inOwnProcess(t) {
		return
	}
	release := make(chan struct{})
	defer close(release)
	routes := http.NewServeMux()
	routes.Handle("/ws", mux.WebSocket(func(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
		_, _, err := c.Read(ctx)
		<-release // It has something to write down, say.
		return err
	}))
	most := func(n int) func(*mux.Config) { return func(c *mux.Config) { c.WebSocket.MaxConnections = n } }
	s := start(t, false, mux.WithHandler(routes), mux.Configure(overHTTP2), mux.Configure(most(2)))
	c := s.http2(t)
	c.webSocket(1, "/ws")
	c.webSocket(3, "/ws")
	s.reload(t, most(1))
	for c.stream(1).body.Len()+c.stream(3).body.Len() == 0 {
		c.step()
	}
	leaves := uint32(1)
	if c.stream(1).body.Len() == 0 {
		leaves = 3
	}
	_, payload := c.serverFrame(leaves)
	c.must(c.WriteData(leaves, true, clientFrame(true, opClose, []byte(payload[:2]))))
	c.sync()
	time.Sleep(300 * time.Millisecond) // The server ends the WebSocket.
	s.reload(t, func(c *mux.Config) { c.HTTP2.MaxResetsPerMinute++ })
	c.sync()
	time.Sleep(100 * time.Millisecond) // A close frame could come.
	c.sync()
	if stays := 4 - leaves; c.stream(stays).body.Len() > 0 {
		op, payload := c.serverFrame(stays)
		t.Errorf("the other one got opcode %d, %q", op, payload)
	}
}
