package stress

import (
	"bufio"
	"context"
	bin "encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/muxserve/muxserve/mux"
)

// TestLongMessage sends a WebSocket message to a client that reads 1 MB a second, with
// muxserve's own settings. In the long form that takes longer than a client has to answer a
// ping, or a close frame, and all of it must arrive: while another goroutine reads, and in
// a drain. It is no attack; the bounds must not be met by clients that are only slow.
func TestLongMessage(t *testing.T) {
	const rate = 1 << 20
	for _, test := range []struct {
		name   string
		size   int
		drains bool
		code   websocket.StatusCode
	}{
		{"another goroutine reads", pick(2*rate, 60*rate), false, websocket.StatusNormalClosure},
		{"drain", pick(2*rate, 20*rate), true, websocket.StatusGoingAway},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := mux.New(mux.WithLogger(slog.New(slog.DiscardHandler)),
				mux.WithWebSocket(func(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
					ctx = c.CloseRead(ctx)
					err := c.Write(ctx, websocket.MessageBinary, make([]byte, test.size))
					if err == nil && test.drains {
						<-ctx.Done()
						err = ctx.Err()
					}
					return err
				}))
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error, 1)
			go func() { served <- s.Serve(l) }()
			c := dialLongMessage(t, l.Addr().String())
			drained := make(chan error, 1)
			drain := func() { drained <- s.Shutdown(context.WithoutCancel(t.Context())) }
			if test.drains {
				go drain()
			}
			began := time.Now()
			got, code := readSlowly(c, rate)
			t.Logf("%d of %d bytes and the close code %d after %v", got, test.size, code, time.Since(began).Round(time.Second))
			if got != test.size || code != int(test.code) {
				t.Errorf("%d of %d bytes and the close code %d, want all and %d", got, test.size, code, test.code)
			}
			if !test.drains {
				drain()
			}
			if err := <-drained; err != nil {
				t.Errorf("the drain: %v", err)
			}
			<-served
		})
	}
}

// dialLongMessage opens a WebSocket and returns what follows its handshake.
func dialLongMessage(t *testing.T, addr string) *bufio.ReadWriter {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	const request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %v, %v", resp, err)
	}
	return bufio.NewReadWriter(r, bufio.NewWriterSize(conn, 0))
}

// readSlowly reads one message of more than 64 KiB, and pings around it, until the close
// frame. It answers them all, and returns how much of the message has come and the code.
func readSlowly(c *bufio.ReadWriter, rate int) (got, code int) {
	const (
		opcode, opClose, opPing = 0x0F, 0x8, 0x9
		masked                  = 0x80
		length64                = 127
	)
	began := time.Now()
	for {
		var head [10]byte
		if _, err := io.ReadFull(c, head[:2]); err != nil {
			return got, 0
		}
		if head[1] == length64 {
			if _, err := io.ReadFull(c, head[2:]); err != nil {
				return got, 0
			}
			for left := int(bin.BigEndian.Uint64(head[2:])); left > 0; {
				n, err := io.CopyN(io.Discard, c, int64(min(left, rate/32)))
				left -= int(n)
				if got += int(n); err != nil {
					return got, 0
				}
				time.Sleep(time.Until(began.Add(time.Duration(got) * time.Second / time.Duration(rate))))
			}
			continue
		}
		payload := make([]byte, head[1])
		if _, err := io.ReadFull(c, payload); err != nil {
			return got, 0
		}
		answer := head[0]
		if head[0]&opcode == opPing {
			answer++ // A pong.
		}
		_, _ = c.Write(append([]byte{answer, masked | head[1], 0, 0, 0, 0}, payload...))
		_ = c.Flush()
		if head[0]&opcode == opClose {
			return got, int(bin.BigEndian.Uint16(payload))
		}
	}
}
