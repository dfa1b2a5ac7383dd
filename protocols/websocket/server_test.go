package websocket

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	coder "github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/protocols"
)

// tally adds up what a counter is told.
type tally struct{ received, sent atomic.Int64 }

func (c *tally) add(received, sent int) {
	c.received.Add(int64(received))
	c.sent.Add(int64(sent))
}

func (c *tally) got() []int64 { return []int64{c.received.Load(), c.sent.Load()} }

// TestMessagesAreCounted: messages count each way, those included that came in one piece
// with the handshake; control frames do not.
func TestMessagesAreCounted(t *testing.T) {
	text := func(s string) []byte { return appendWebSocketFrame(nil, textFrame, true, []byte(s)) }
	for name, open := range wires() {
		for _, early := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, early %v", name, early), func(t *testing.T) {
				var counted tally
				ended := make(chan error, 1)
				s := newService(protocols.DefaultWebSocketConfig(), func(ctx context.Context, c *coder.Conn, r *http.Request) error {
					err := echoMessages(ctx, c, r)
					ended <- err
					return err
				})
				s.owner = &testOwner{count: counted.add}
				frames := text("one")
				frames = append(frames, appendWebSocketFrame(nil, pingFrame, true, []byte("ping"))...)
				frames = appendWebSocketFrame(frames, textBegins, true, []byte("t"))
				frames = appendWebSocketFrame(frames, lastFrame, true, []byte("wo"))
				frames = append(frames, text("three")...)
				var behind []byte
				if early {
					// The boundary falls into a header.
					behind, frames = frames[:len(frames)-8], frames[len(frames)-8:]
				}
				p, _ := open(t, s, "", behind)
				p.send(frames)
				for _, want := range []struct {
					first   byte
					payload string
				}{{textFrame, "one"}, {pongFrame, "ping"}, {textFrame, "two"}, {textFrame, "three"}} {
					if got := p.expect(want.first); string(got) != want.payload {
						t.Errorf("%q, want %q", got, want.payload)
					}
				}
				p.send(appendWebSocketFrame(nil, closeFrame, true, closeCode(uint16(coder.StatusNormalClosure))))
				p.expectClose(uint16(coder.StatusNormalClosure))
				if err := <-ended; coder.CloseStatus(err) != coder.StatusNormalClosure {
					t.Errorf("ended with %v", err)
				}
				if diff := cmp.Diff([]int64{3, 3}, counted.got()); diff != "" {
					t.Errorf("received and sent (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestLeave: it tells the WebSockets of one owner, whether they are the first of its list
// or not, and no others.
func TestLeave(t *testing.T) {
	s := newService(protocols.DefaultWebSocketConfig(), readOn)
	owners := []Owner{new(testOwner), new(testOwner), nil}
	var peers [3][3]*webSocketPeer
	for i := range 3 {
		for j, owner := range owners {
			s.owner = owner
			peers[j][i], _ = overTCP(t, s, "", nil)
		}
	}
	bye := func(p *webSocketPeer, code coder.StatusCode) {
		p.send(appendWebSocketFrame(nil, closeFrame, true, closeCode(uint16(code))))
		p.expectClose(uint16(code))
		p.expectEnd()
	}
	bye(peers[0][1], coder.StatusNormalClosure)
	waitFor(t, "the end of one", func() bool { return s.Leave(owners[0]) == 2 }) // And tells the others.
	for _, i := range []int{0, 2} {
		bye(peers[0][i], coder.StatusGoingAway)
	}
	waitFor(t, "the end of all", func() bool { return s.Leave(owners[0]) == 0 })
	for j := range 2 {
		for _, p := range peers[j+1] {
			bye(p, coder.StatusNormalClosure) // They have not been told.
		}
	}
}

// TestCut: it ends the contexts of the handlers, which may wait for nothing else.
func TestCut(t *testing.T) {
	started, cause := make(chan struct{}), make(chan error, 1)
	s := newService(protocols.DefaultWebSocketConfig(), func(ctx context.Context, _ *coder.Conn, _ *http.Request) error {
		close(started)
		<-ctx.Done()
		cause <- context.Cause(ctx)
		return nil
	})
	overTCP(t, s, "", nil)
	<-started
	s.Cut()
	if err := <-cause; !errors.Is(err, ErrDraining) {
		t.Errorf("the context ended with %v, want ErrDraining", err)
	}
}

func echoMessages(ctx context.Context, c *coder.Conn, _ *http.Request) error {
	for {
		kind, msg, err := c.Read(ctx)
		if err != nil {
			return err
		}
		if err := c.Write(ctx, kind, msg); err != nil {
			return err
		}
	}
}

// deflated compresses a message as RFC 7692 section 7.2.1 says.
func deflated(t *testing.T, w *flate.Writer, buf *bytes.Buffer, message string) []byte {
	t.Helper()
	buf.Reset()
	if _, err := io.WriteString(w, message); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(bytes.TrimSuffix(buf.Bytes(), []byte("\x00\x00\xff\xff")))
}

// inflated is the reverse, with what the messages before have left as dict.
func inflated(t *testing.T, payload, dict []byte) string {
	t.Helper()
	tail := "\x00\x00\xff\xff\x01\x00\x00\xff\xff" // And an empty last block, for the reader to end.
	msg, err := io.ReadAll(flate.NewReaderDict(io.MultiReader(bytes.NewReader(payload), strings.NewReader(tail)), dict))
	if err != nil {
		t.Fatal(err)
	}
	return string(msg)
}

// TestWebSocketCompression is websocket.compression: what the handshake agrees on, which
// messages are compressed, and whether the second message leans on the first.
func TestWebSocketCompression(t *testing.T) {
	const (
		agreed = "permessage-deflate"
		alone  = agreed + "; client_no_context_takeover; server_no_context_takeover"
	)
	tests := []struct {
		name    string
		setting protocols.WebSocketCompression
		offer   string
		agreed  string
		takes   bool // The server's context is kept.
	}{
		{"not set", "", agreed, "", false},
		{"off", protocols.CompressionOff, agreed, "", false},
		{"not offered", protocols.CompressionTakeover, "", "", false},
		{"takeover", protocols.CompressionTakeover, agreed + "; client_max_window_bits", agreed, true},
		{"takeover, declined by the client", protocols.CompressionTakeover, agreed + "; server_no_context_takeover", agreed + "; server_no_context_takeover", false},
		{"no takeover", protocols.CompressionNoTakeover, agreed, alone, false},
	}
	for name, open := range wires() {
		for _, test := range tests {
			t.Run(name+"/"+test.name, func(t *testing.T) {
				c := protocols.DefaultWebSocketConfig()
				c.Compression = test.setting
				fields := ""
				if test.offer != "" {
					fields = "Sec-WebSocket-Extensions: " + test.offer + "\r\n"
				}
				p, header := open(t, newService(c, echoMessages), fields, nil)
				if got := header.Get("Sec-WebSocket-Extensions"); got != test.agreed {
					t.Errorf("Sec-WebSocket-Extensions: %q, want %q", got, test.agreed)
				}
				message := strings.Repeat("all work and no play ", 100)
				if test.agreed == "" {
					p.send(appendWebSocketFrame(nil, textFrame, true, []byte(message)))
					if got := p.expect(textFrame); string(got) != message {
						t.Errorf("%d bytes echoed of %d", len(got), len(message))
					}
					return
				}
				exchangeCompressed(t, p, message, test.takes)
			})
		}
	}
}

// exchangeCompressed sends a message twice, and one that is too short to be worth it.
func exchangeCompressed(t *testing.T, p *webSocketPeer, message string, takes bool) {
	t.Helper()
	var buf bytes.Buffer
	w, err := flate.NewWriter(&buf, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	var first []byte
	for i := range 2 {
		w.Reset(&buf)
		p.send(appendWebSocketFrame(nil, textFrame|compressedBit, true, deflated(t, w, &buf, message)))
		got := p.expect(textFrame | compressedBit)
		var dict []byte
		if takes && i > 0 {
			dict = []byte(message)
			if len(got) >= len(first) {
				t.Errorf("the second message took %d bytes, the first %d", len(got), len(first))
			}
		}
		if msg := inflated(t, got, dict); msg != message || len(got) > len(message)/2 {
			t.Errorf("message %d: %q in %d bytes", i, msg, len(got))
		}
		first = got
	}
	p.send(appendWebSocketFrame(nil, textFrame, true, []byte("short")))
	if got := p.expect(textFrame); string(got) != "short" {
		t.Errorf("%q", got)
	}
}

// TestWebSocketReadLimit is websocket.read_limit, which bounds a message as it is when it
// is unpacked.
func TestWebSocketReadLimit(t *testing.T) {
	const limit = 1000
	var buf bytes.Buffer
	w, err := flate.NewWriter(&buf, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	bomb := deflated(t, w, &buf, strings.Repeat("x", 1<<20))
	fits := strings.Repeat("x", limit)
	for _, test := range []struct {
		name  string
		frame []byte
		limit int64
		taken bool
	}{
		{"as long", appendWebSocketFrame(nil, textFrame, true, []byte(fits)), limit, true},
		{"longer", appendWebSocketFrame(nil, textFrame, true, []byte(fits+"x")), limit, false},
		{"longer in fragments", appendWebSocketFrame(appendWebSocketFrame(nil, textBegins, true, []byte(fits)), lastFrame, true, []byte("x")), limit, false},
		{"1 MiB compressed", appendWebSocketFrame(nil, textFrame|compressedBit, true, bomb), limit, false},
		{"no bound", appendWebSocketFrame(nil, textFrame|compressedBit, true, bomb), -1, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := protocols.DefaultWebSocketConfig()
			c.Compression, c.ReadLimit = protocols.CompressionTakeover, test.limit
			h := newService(c, func(ctx context.Context, c *coder.Conn, _ *http.Request) error {
				_, _, err := c.Read(ctx)
				return err
			})
			p, _ := overTCP(t, h, "Sec-WebSocket-Extensions: permessage-deflate\r\n", test.frame)
			want := uint16(coder.StatusMessageTooBig)
			if test.taken {
				want = uint16(coder.StatusNormalClosure)
			}
			p.expectClose(want)
			p.send(appendWebSocketFrame(nil, closeFrame, true, closeCode(want)))
			p.expectEnd()
		})
	}
}

// TestOriginScheme: on a port with TLS, a page that came in plaintext is of another origin.
// Without TLS a proxy may have ended it.
func TestOriginScheme(t *testing.T) {
	tests := []struct {
		tls, patterns bool
		origin        string
		want          int
	}{
		{true, false, "https://example.com", 101},
		{true, false, "HTTPS://EXAMPLE.com", 101},
		{true, false, "http://example.com", 403},
		{true, false, "wss://example.com", 101}, // As clients that are no browsers say it.
		{true, false, "ws://example.com", 403},
		{true, false, "ftp://example.com", 403},
		{true, true, "http://example.com", 101},
		{true, false, "", 101},
		{false, false, "http://example.com", 101},
		{false, false, "https://example.com", 101},
		{false, false, "ws://example.com", 101},
		{false, false, "WSS://example.com", 101},
		{false, false, "wss://example.org", 403},
		{false, false, "ftp://example.com", 403},
		{false, false, "null", 403},
		{false, false, "file://", 403},
		{true, false, "file://", 403},
		{false, false, "https://example.org", 403},
	}
	for _, tt := range tests {
		c := protocols.DefaultWebSocketConfig()
		if tt.patterns {
			c.OriginPatterns = []string{"http://example.com"}
		}
		srv := httptest.NewUnstartedServer(newService(c, echoMessages))
		if tt.tls {
			srv.StartTLS()
		} else {
			srv.Start()
		}
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil)
		r.Host = "example.com"
		for name, value := range map[string]string{
			"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": upgradeKey,
		} {
			r.Header.Set(name, value)
		}
		if tt.origin != "" {
			r.Header.Set("Origin", tt.origin)
		}
		resp, err := srv.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != tt.want {
			t.Errorf("origin %q, TLS %t: %s, want %d", tt.origin, tt.tls, resp.Status, tt.want)
		}
		srv.Close()
	}
}
