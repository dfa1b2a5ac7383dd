package websocket

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/sniff"
)

// wireTime bounds every wait for the peer. It is no bound that a test is about.
const wireTime = 20 * time.Second

// closeCode returns the payload of a close frame without a reason.
func closeCode(code uint16) []byte { return binary.BigEndian.AppendUint16(nil, code) }

// A webSocketPeer is a client that sees the frames.
type webSocketPeer struct {
	t *testing.T
	r io.Reader
	w io.Writer
}

// send writes frames in one piece.
func (p *webSocketPeer) send(frames ...[]byte) {
	p.t.Helper()
	var all []byte
	for _, f := range frames {
		all = append(all, f...)
	}
	if _, err := p.w.Write(all); err != nil {
		p.t.Fatal(err)
	}
}

// read reads a frame of the server.
func (p *webSocketPeer) read() (first byte, payload []byte, err error) {
	var head [minFrameHead]byte
	if _, err := io.ReadFull(p.r, head[:]); err != nil {
		return 0, nil, err
	}
	length := int(head[1])
	switch length {
	case length16:
		var n uint16
		err = binary.Read(p.r, binary.BigEndian, &n)
		length = int(n)
	case length64:
		var n uint64
		err = binary.Read(p.r, binary.BigEndian, &n)
		length = int(n)
	}
	if err != nil {
		return 0, nil, err
	}
	payload = make([]byte, length)
	_, err = io.ReadFull(p.r, payload)
	return head[0], payload, err
}

// expect reads a frame whose first byte is known.
func (p *webSocketPeer) expect(first byte) []byte {
	p.t.Helper()
	got, payload, err := p.read()
	if err != nil || got != first {
		p.t.Fatalf("frame %#x, %q, %v; want %#x", got, payload, err, first)
	}
	return payload
}

// expectClose reads a close frame with code.
func (p *webSocketPeer) expectClose(code uint16) {
	p.t.Helper()
	if payload := p.expect(closeFrame); len(payload) < 2 || binary.BigEndian.Uint16(payload) != code {
		p.t.Errorf("close frame %q, want code %d", payload, code)
	}
}

// expectEnd reads until the connection ends.
func (p *webSocketPeer) expectEnd() {
	p.t.Helper()
	for {
		if _, _, err := p.read(); errors.Is(err, os.ErrDeadlineExceeded) {
			p.t.Fatal("the connection is still open")
		} else if err != nil {
			return
		}
	}
}

const handshakeHead = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + upgradeKey + "\r\n"

// upgrade makes the handshake on conn and sends behind at once. The fields end in CRLF
// each.
func upgrade(t *testing.T, conn net.Conn, fields string, behind []byte) (*webSocketPeer, http.Header) {
	t.Helper()
	if _, err := conn.Write(append([]byte(handshakeHead+fields+"\r\n"), behind...)); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %v, %v", resp, err)
	}
	return &webSocketPeer{t: t, r: br, w: conn}, resp.Header
}

// A service serves WebSockets with a handler.
type service struct {
	*Server
	handler  Handler
	owner    Owner
	detached bool // the HTTP handler returns before the session has ended
	stream   bool // the session takes its connection for a stream of HTTP/2
}

// ServeHTTP implements [http.Handler].
func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	if s.detached {
		ctx = context.WithoutCancel(ctx)
	}
	if s.stream {
		r.ProtoMajor = 2
	}
	session := s.Accept(ctx, w, r, s.owner, nil)
	switch {
	case session == nil:
	case s.detached:
		go session.Serve(s.handler)
	default:
		session.Serve(s.handler)
	}
}

// stallTime is how long a client may take nothing.
const stallTime = time.Minute

// newService returns a service without an owner.
func newService(c protocols.WebSocketConfig, h Handler) *service {
	return &service{Server: New(c, stallTime, slog.New(slog.DiscardHandler)), handler: h}
}

// A wire opens a WebSocket to a service and returns the client's end.
type wire func(t *testing.T, s *service, fields string, behind []byte) (*webSocketPeer, http.Header)

// wires are the transports that a WebSocket can have.
func wires() map[string]wire {
	return map[string]wire{"HTTP/1.1": overTCP, "sniffed": overSniffed, "sniffed, detached": overDetached, "HTTP/2 stream": overStream}
}

// sniffing is a listener whose connections are recognised, and have raw sockets.
type sniffing struct{ net.Listener }

func (l sniffing) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := new(sniff.Conn)
	c.Init(aheadConn{raw.(*net.TCPConn)})
	c.Sniff(nil)
	return c, nil
}

func overSniffed(t *testing.T, s *service, fields string, behind []byte) (*webSocketPeer, http.Header) {
	t.Helper()
	srv := httptest.NewUnstartedServer(s)
	srv.Listener = sniffing{srv.Listener}
	srv.Start()
	t.Cleanup(srv.Close)
	return upgrade(t, dial(t, srv), fields, behind)
}

func overDetached(t *testing.T, s *service, fields string, behind []byte) (*webSocketPeer, http.Header) {
	t.Helper()
	s.detached = true
	return overSniffed(t, s, fields, behind)
}

func dial(tb testing.TB, srv *httptest.Server) net.Conn {
	tb.Helper()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(wireTime))
	return conn
}

func overTCP(t *testing.T, s *service, fields string, behind []byte) (*webSocketPeer, http.Header) {
	t.Helper()
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	return upgrade(t, dial(t, srv), fields, behind)
}

func overStream(t *testing.T, s *service, fields string, behind []byte) (*webSocketPeer, http.Header) {
	t.Helper()
	url, c := streamServer(t, s.ServeHTTP)
	body, w := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, io.MultiReader(bytes.NewReader(behind), body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Sec-WebSocket-Version", "13")
	for line := range strings.SplitSeq(strings.TrimSpace(fields), "\r\n") {
		if name, value, ok := strings.Cut(line, ": "); ok {
			req.Header.Set(name, value)
		}
	}
	resp, err := c.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("handshake: %v, %v", resp, err)
	}
	t.Cleanup(func() {
		_ = w.Close()
		_ = resp.Body.Close()
	})
	return &webSocketPeer{t: t, r: resp.Body, w: w}, resp.Header
}
