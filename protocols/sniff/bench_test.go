package sniff

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/internal/wiretest"
)

// A memoryConn gives its bytes to the first Read and then io.EOF.
type memoryConn struct {
	net.Conn
	data []byte
	off  int
}

func (c *memoryConn) Read(p []byte) (int, error) {
	if c.off == len(c.data) {
		return 0, io.EOF
	}
	n := copy(p, c.data[c.off:])
	c.off += n
	return n, nil
}

func (*memoryConn) SetDeadline(time.Time) error      { return nil }
func (*memoryConn) SetReadDeadline(time.Time) error  { return nil }
func (*memoryConn) SetWriteDeadline(time.Time) error { return nil }

// browserHead is a request head of common length.
var browserHead = []byte("GET /index.html HTTP/1.1\r\nHost: localhost:8080\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n" +
	"Accept-Language: en-GB,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Connection: keep-alive\r\nUpgrade-Insecure-Requests: 1\r\n\r\n")

// sniffOnce recognises data and reads it all.
func sniffOnce(c *Conn, inner *memoryConn, config *Config, buf []byte) Verdict {
	inner.off = 0
	c.Init(inner)
	v := c.Sniff(config)
	for {
		if _, err := c.Read(buf); err != nil {
			return v
		}
	}
}

// TestSniffAllocations: a connection costs one allocation to recognise, which is
// dropped with the last byte that was peeked, beyond what HPACK makes of an HTTP/2
// request's strings.
func TestSniffAllocations(t *testing.T) {
	tests := []struct {
		name string
		data []byte
		want protocols.Protocol
		most float64
	}{
		{"HTTP/1.1", browserHead, protocols.HTTP1, 1},
		{"WebSocket", []byte(webSocketHead), protocols.WebSocket, 1},
		{"TLS", []byte{0x16, 3, 1, 0, 4}, protocols.TLS, 1},
		{"gRPC", grpcOpening(), protocols.GRPC, 13},
	}
	config := testConfig()
	buf := make([]byte, peekSize)
	for _, tt := range tests {
		inner := &memoryConn{data: tt.data}
		var c Conn
		if v := sniffOnce(&c, inner, config, buf); v.Protocol != tt.want {
			t.Errorf("%s: verdict %+v", tt.name, v)
		}
		got := testing.AllocsPerRun(100, func() { sniffOnce(&c, inner, config, buf) })
		// The race detector makes sync.Pool forget at random.
		if got > tt.most && !raceEnabled {
			t.Errorf("%s: %v allocations, want %v at most", tt.name, got, tt.most)
		}
	}
}

func BenchmarkSniff(b *testing.B) {
	tests := []struct {
		name string
		data []byte
	}{
		{"HTTP1", browserHead},
		{"WebSocket", []byte(webSocketHead)},
		{"GRPC", grpcOpening()},
		{"HTTP2", wiretest.ClientBytes(func(fr *http2.Framer) {
			_ = fr.WriteSettings()
			_ = fr.WriteHeaders(headersFrame(wiretest.GetFields("user-agent", "curl/8.14.1", "accept", "*/*")...))
		})},
	}
	config := testConfig()
	for _, tt := range tests {
		b.Run(tt.name, func(b *testing.B) {
			b.ReportAllocs()
			buf := make([]byte, peekSize)
			inner := &memoryConn{data: tt.data}
			var c Conn
			for b.Loop() {
				sniffOnce(&c, inner, config, buf)
			}
		})
	}
}

// BenchmarkConnWrite shows that a connection without a filter writes for free.
func BenchmarkConnWrite(b *testing.B) {
	c := newConn(&replayConn{})
	p := make([]byte, peekSize)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(p); err != nil {
			b.Fatal(err)
		}
	}
}
