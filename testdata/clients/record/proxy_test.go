package record_test

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/testdata/clients/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// written returns the frames that write writes.
func written(t *testing.T, write func(*http2.Framer) error) string {
	t.Helper()
	var buf bytes.Buffer
	if err := write(http2.NewFramer(&buf, nil)); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

func TestProxyCounts(t *testing.T) {
	settings := written(t, func(f *http2.Framer) error {
		return f.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 14})
	})
	ack := written(t, func(f *http2.Framer) error { return f.WriteSettingsAck() })
	data := written(t, func(f *http2.Framer) error { return f.WriteData(1, false, bytes.Repeat([]byte(settings), 9)) })
	headers := written(t, func(f *http2.Framer) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: []byte{0x88}})
	})
	begun := written(t, func(f *http2.Framer) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}})
	})
	ended := written(t, func(f *http2.Framer) error { return f.WriteContinuation(1, true, []byte{0x88}) })
	goAway := func(code http2.ErrCode) string {
		return written(t, func(f *http2.Framer) error { return f.WriteGoAway(1, code, []byte("why")) })
	}
	tests := []struct {
		name           string
		client, server string
		want           record.Counts
	}{
		{"http1", "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", record.Counts{}},
		{"nothing", "", "", record.Counts{}},
		{
			"one of each", http2.ClientPreface + settings + headers + ack, settings + ack + headers + data,
			record.Counts{
				HTTP2: true, Requests: 1, ClientSettings: 1, Settings: 1, Acks: 1,
				Opening: []byte(http2.ClientPreface + settings + headers),
			},
		},
		{
			"a header block in two frames", http2.ClientPreface + settings + begun + ended + ack, settings,
			record.Counts{
				HTTP2: true, Requests: 1, ClientSettings: 1, Settings: 1,
				Opening: []byte(http2.ClientPreface + settings + begun + ended),
			},
		},
		{
			"too many", http2.ClientPreface + settings + settings, settings + ack + ack + settings + goAway(http2.ErrCodeProtocol),
			record.Counts{HTTP2: true, ClientSettings: 2, Settings: 2, Acks: 2, GoAwayErrors: 1},
		},
		{
			"a friendly end", http2.ClientPreface + settings, settings + goAway(http2.ErrCodeNo) + ack,
			record.Counts{HTTP2: true, ClientSettings: 1, Settings: 1, Acks: 1},
		},
	}
	for _, tt := range tests {
		for _, piece := range []int{1, 10, 1 << 20} {
			got := exchange(t, tt.client, tt.server, piece)
			tt.want.Eager = tt.want.Requests > 0
			if piece < len(tt.client) && len(got) == 1 {
				tt.want.Eager = got[0].Eager // Pieces may arrive as one.
			}
			if diff := cmp.Diff([]record.Counts{tt.want}, got); diff != "" {
				t.Errorf("%s, %d bytes at a time (-want +got):\n%s", tt.name, piece, diff)
			}
		}
	}
}

// exchange lets a client and a server say their part through a proxy, in pieces
// of that many bytes, and checks that both hear all of it.
func exchange(t *testing.T, client, server string, piece int) []record.Counts {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p, err := record.Listen(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	heard := make(chan string)
	go func() {
		c, err := l.Accept()
		if err != nil {
			heard <- err.Error()
			return
		}
		heard <- say(c, server, piece)
	}()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(server, say(c, client, piece)); diff != "" {
		t.Errorf("the client heard (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(client, <-heard); diff != "" {
		t.Errorf("the server heard (-want +got):\n%s", diff)
	}
	return p.Close()
}

// say writes words, ends its direction, and returns all that it hears.
func say(c net.Conn, words string, piece int) string {
	defer c.Close()
	var wg sync.WaitGroup
	defer wg.Wait() // Before c is closed.
	wg.Go(func() {
		for len(words) > 0 {
			k := min(piece, len(words))
			if _, err := io.WriteString(c, words[:k]); err != nil {
				return
			}
			words = words[k:]
		}
		_ = c.(*net.TCPConn).CloseWrite()
	})
	heard, err := io.ReadAll(c)
	if err != nil {
		return err.Error()
	}
	return string(heard)
}
