package mux_test

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/muxserve/muxserve/mux"
)

// owedFrames is how many frames a client of TestServerOwesLittle has the server owe it.
// Behind 10,000 net/http alone cuts the connection.
const owedFrames = 30_000

// lastPing is sent behind them.
var lastPing = [8]byte{1}

// TestServerOwesLittle: the server reads no faster than a client takes what it has the
// server say. The client loses nothing by it.
func TestServerOwesLittle(t *testing.T) {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/hold"}, {Name: ":authority", Value: "x"},
	} {
		if err := encoder.WriteField(f); err != nil {
			t.Fatal(err)
		}
	}
	first := bytes.Clone(block.Bytes())
	block.Reset()
	tests := map[string]struct {
		write  func(f *http2.Framer, n uint32) error
		isOwed func(http2.Frame) bool
		each   bool // each has an answer of its own
	}{
		"PING": {
			func(f *http2.Framer, _ uint32) error { return f.WritePing(false, [8]byte{7}) },
			func(f http2.Frame) bool {
				p, ok := f.(*http2.PingFrame)
				return ok && p.IsAck() && p.Data == [8]byte{7}
			},
			true,
		},
		"refused streams": {
			func(f *http2.Framer, n uint32) error {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3 + 2*n, BlockFragment: []byte{0x82, 0x87, 0x84}, EndHeaders: true, EndStream: true})
			},
			isReset(http2.ErrCodeRefusedStream),
			true,
		},
		"DATA behind the end": {
			func(f *http2.Framer, _ uint32) error { return f.WriteData(3, false, nil) },
			isReset(http2.ErrCodeStreamClosed),
			false,
		},
		"PRIORITY on itself": {
			func(f *http2.Framer, _ uint32) error {
				return f.WriteRawFrame(http2.FramePriority, 0, 5, []byte{0, 0, 0, 5, 0})
			},
			isReset(http2.ErrCodeProtocol),
			false,
		},
	}
	hold := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	forms := map[string]struct{ withTLS, waits, upgraded bool }{
		"plaintext": {},
		"tls":       {withTLS: true},
		// It acknowledges nothing, neither the SETTINGS it has waited for nor net/http's.
		"SETTINGS without an ACK": {waits: true},
		"Upgrade: h2c":            {upgraded: true},
	}
	for name, test := range tests {
		for form, with := range forms {
			t.Run(name+"/"+form, func(t *testing.T) {
				m, roots := newServer(t, with.withTLS, mux.WithHandler(hold), limits(func(c *mux.Config) {
					c.HTTP2.MaxStreams = 1
					c.HTTP2.MaxResetsPerMinute = 0
					c.HTTP2.UpgradeH2C = with.upgraded
				}))
				s := serveOn(t, m, wrapListener{listen(t), smallWrites})
				s.roots = roots
				conn := s.dial(t, "h2")
				_ = conn.SetDeadline(time.Now().Add(time.Minute))
				var out bytes.Buffer
				out.WriteString(http2.ClientPreface)
				r := bufio.NewReader(conn)
				if with.upgraded {
					_ = roundTrip(t, conn, r, "GET /hold HTTP/1.1\r\n"+upgradeFields+"\r\n") // It is stream 1.
				}
				framer := http2.NewFramer(&out, r)
				framer.AllowIllegalWrites = true
				_ = framer.WriteSettings()
				if with.waits {
					send(t, conn, out.String())
					out.Reset()
					if _, err := framer.ReadFrame(); err != nil {
						t.Fatal(err)
					}
				}
				if !with.upgraded {
					_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndHeaders: true, EndStream: true})
				}
				if name == "DATA behind the end" { // of a stream that is refused
					_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: first, EndHeaders: true, EndStream: true})
				}
				for n := range uint32(owedFrames) {
					if err := test.write(framer, n); err != nil {
						t.Fatal(err)
					}
				}
				_ = framer.WritePing(false, lastPing)
				sent := make(chan error, 1)
				go func() {
					_, err := conn.Write(out.Bytes())
					sent <- err
				}()
				s.readsNoMore(t)
				owed, last := 0, false
				for !last {
					f, err := framer.ReadFrame()
					if err != nil {
						t.Fatalf("%d of %d answers: %v", owed, owedFrames, err)
					}
					switch p, isPing := f.(*http2.PingFrame); {
					case test.isOwed(f):
						owed++
					case isPing && p.IsAck() && p.Data == lastPing:
						last = true
					case isReset(http2.ErrCodeRefusedStream)(f):
					case isPing, f.Header().Type == http2.FrameRSTStream, f.Header().Type == http2.FrameGoAway:
						t.Fatalf("%d answers, and then %v", owed, f)
					}
				}
				// The second reset of a stream is taken out.
				if test.each && owed != owedFrames {
					t.Errorf("%d of %d answers", owed, owedFrames)
				}
				if err := within(t, "the end of the writing", sent); err != nil {
					t.Error(err)
				}
				_ = conn.Close()
			})
		}
	}
}

// smallWrites has the kernel take little of what the server writes.
func smallWrites(c net.Conn) net.Conn {
	_ = c.(*net.TCPConn).SetWriteBuffer(4 << 10)
	return c
}

func isReset(code http2.ErrCode) func(http2.Frame) bool {
	return func(f http2.Frame) bool { r, ok := f.(*http2.RSTStreamFrame); return ok && r.ErrCode == code }
}

// readsNoMore waits until the server has read nothing for a while.
func (s *server) readsNoMore(t *testing.T) {
	t.Helper()
	last, same := uint64(0), 0
	eventually(t, "the server reads no more", func() bool {
		now := uint64(0)
		for _, a := range s.Accounts() {
			now += a.Received()
		}
		if same++; now != last || now == 0 {
			last, same = now, 0
		}
		return same > 20
	})
}
