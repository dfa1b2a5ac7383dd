package websocket

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	coder "github.com/coder/websocket"

	"github.com/muxserve/muxserve/protocols"
)

// BenchmarkEmptyFrames has a client send continuation frames without a payload, beside
// net/http with coder/websocket alone.
func BenchmarkEmptyFrames(b *testing.B) {
	const unit = "\x00\x80\x01\x02\x03\x04"
	block := bytes.Repeat([]byte(unit), 10_000)
	read := func(c *coder.Conn, r *http.Request) {
		_, message, err := c.Reader(r.Context())
		if err == nil {
			_, _ = io.Copy(io.Discard, message)
		}
		_ = c.CloseNow()
	}
	ours := newService(protocols.DefaultWebSocketConfig(), nil)
	for name, h := range map[string]http.Handler{
		"base": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if c, err := coder.Accept(w, r, nil); err == nil {
				read(c, r)
			}
		}),
		"ours": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if s := ours.Accept(r.Context(), w, r, nil, nil); s != nil {
				read(s.conn, r)
				s.end()
			}
		}),
	} {
		b.Run(name, func(b *testing.B) {
			srv := httptest.NewUnstartedServer(h)
			if name == "ours" {
				srv.Listener = sniffing{srv.Listener}
			}
			srv.Start()
			defer srv.Close()
			conn := dial(b, srv)
			if _, err := io.WriteString(conn, handshakeHead+"\r\n"); err != nil {
				b.Fatal(err)
			}
			_, _ = conn.Read(make([]byte, 4096))
			_, _ = conn.Write([]byte("\x02\x80\x01\x02\x03\x04"))
			b.SetBytes(int64(len(unit)))
			b.ResetTimer()
			for left := b.N; left > 0; {
				n := min(left, len(block)/len(unit))
				left -= n
				if _, err := conn.Write(block[:n*len(unit)]); err != nil {
					b.Fatal(err)
				}
			}
			_, _ = conn.Write([]byte("\x80\x80\x01\x02\x03\x04"))
			_, _ = io.Copy(io.Discard, conn) // Until the server has read all.
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(unit)), "ns/byte")
		})
	}
}

// TestEmptyFrames: empty frames between the frames of a message change nothing, wherever
// the bytes are split. Outside of a message they are an error.
func TestEmptyFrames(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const empty = "\x00\x80\x01\x02\x03\x04"
	for name, open := range wires() {
		t.Run(name, func(t *testing.T) {
			p, _ := open(t, newService(protocols.DefaultWebSocketConfig(), echoMessages), "", nil)
			var out []byte
			var want []string
			for i := range 50 {
				message := strings.Repeat(fmt.Sprint(i), i)
				want = append(want, message)
				out = append(out, appendWebSocketFrame(nil, textFrame&^finBit, true, []byte(message[:len(message)/2]))...)
				for range random.IntN(60) {
					out = append(out, empty...)
					if random.IntN(20) == 0 {
						out = append(out, appendWebSocketFrame(nil, finBit|0x9, true, []byte("ping"))...)
					}
				}
				out = append(out, appendWebSocketFrame(nil, finBit, true, []byte(message[len(message)/2:]))...)
			}
			go func() {
				for len(out) > 0 {
					n := min(len(out), 1+random.IntN(300))
					_, _ = p.w.Write(out[:n])
					out = out[n:]
				}
			}()
			for _, message := range want {
				for {
					first, payload, err := p.read()
					if err != nil {
						t.Fatal(err)
					}
					if first == textFrame {
						if string(payload) != message {
							t.Fatalf("%q, want %q", payload, message)
						}
						break
					}
				}
			}
			p.send([]byte(empty))
			p.expectClose(1002)
		})
	}
}

// FuzzSqueeze: what is left of the frames says the same, however they are split.
func FuzzSqueeze(f *testing.F) {
	const empty = "\x00\x80\x01\x02\x03\x04"
	begin := string(appendWebSocketFrame(nil, textFrame&^finBit, true, []byte("a")))
	end := string(appendWebSocketFrame(nil, finBit, true, []byte("b")))
	ping := string(appendWebSocketFrame(nil, finBit|0x9, true, nil))
	for _, seed := range []string{"", empty, begin + empty + empty + ping + empty + end + empty, begin + end + begin + empty + end, begin + empty[:3]} {
		f.Add([]byte(seed), uint8(0))
		f.Add([]byte(seed), uint8(5))
		f.Add([]byte(seed), uint8(200))
	}
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		var c messageCounter
		var out []byte
		messages := 0
		for rest := bytes.Clone(b); len(rest) > 0; {
			n := min(int(step)+1, len(rest))
			left, m := c.squeeze(rest[:n])
			out, messages, rest = append(out, left...), messages+m, rest[n:]
		}
		if want := oracleMessages(b); messages != want {
			t.Errorf("%d messages, want %d", messages, want)
		}
		if got, want := withoutEmpty(out), withoutEmpty(b); !bytes.Equal(got, want) {
			t.Errorf("%x is left, which is %x; want %x", out, got, want)
		}
	})
}

// withoutEmpty takes out the empty frames within messages.
func withoutEmpty(b []byte) (out []byte) {
	open := false
	for len(b) >= minFrameHead {
		head := frameHeadLen(b[1])
		if len(b) < head {
			break
		}
		var header [maxFrameHead]byte
		copy(header[:], b[:head])
		end := uint64(head) + framePayload(&header)
		if end < uint64(head) || end > uint64(len(b)) {
			break
		}
		if !open || head != 6 || string(b[:2]) != emptyFrame {
			out = append(out, b[:end]...)
		}
		if b[0]&controlBit == 0 {
			open = b[0]&finBit == 0
		}
		b = b[end:]
	}
	return append(out, b...)
}

// TestEmptyFramesAreLeftOut: what reads a message does not see its empty frames, which
// cost a client next to nothing.
func TestEmptyFramesAreLeftOut(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	const (
		first = "\x02\x81\x01\x02\x03\x04x"
		empty = "\x00\x80\x01\x02\x03\x04"
		final = "\x80\x81\x01\x02\x03\x04x"
	)
	go func() {
		_, _ = io.WriteString(client, first)
		_, _ = io.WriteString(client, strings.Repeat(empty, 1000)+final)
		_ = client.Close()
	}()
	got, _ := io.ReadAll(newWatchedConn(server, nil)) // A pipe's reader gets the two writes apart.
	if !bytes.HasPrefix(got, []byte(first)) || !bytes.HasSuffix(got, []byte(final)) || len(got) > len(first)+len(final)+100*len(empty) {
		t.Errorf("%d bytes are left: %q", len(got), got[:min(len(got), 100)])
	}
}
