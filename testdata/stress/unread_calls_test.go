package stress

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/muxserve/muxserve/testdata/clients/process"
)

const (
	unreadCalls = 20
	// unreadBudget is what the calls of a connection may have before each has only a share,
	// and what a slice that grows has more.
	unreadBudget = 16 << 20 * 5 / 4
	// unreadSlack is what the server may keep beside the windows: its own books, and what
	// net/http and grpc-go read ahead on each of the streams.
	unreadSlack = 3 << 20
)

// TestUnreadCalls sends streams of gRPC, on a connection that net/http serves, to handlers
// that do not read them, as fast as the windows let it. The server may keep the windows, also
// where each frame has one byte.
func TestUnreadCalls(t *testing.T) {
	short := bytes.Repeat(append([]byte{0, 0, 0, 0, 59}, make([]byte, 59)...), 1<<14)
	long := append([]byte{0, 0, 64, 0, 0}, make([]byte, 4<<20)...)
	for _, form := range []struct {
		name                     string
		streamWindow, connWindow int64
	}{{"shared", 1 << 20, 4 << 20}, {"edge", 65535, 1 << 20}} {
		p := start(t, process.Options{Binary: embedding, Bare: true, Args: []string{form.name}})
		for _, tt := range []struct {
			name  string
			data  []byte
			frame int
		}{
			{"short messages", short, 16 << 10},
			{"short messages, each in a frame", short, 64},
			{"a message of 4 MiB", long, 16 << 10},
			{"a message of 4 MiB in frames of 64 bytes", long, 64},
			{"a message of 4 MiB in frames of a byte", long, 1},
		} {
			t.Run(form.name+"/"+tt.name, func(t *testing.T) {
				run := func(d time.Duration, meanwhile func()) int64 {
					ctx, cancel := context.WithTimeout(t.Context(), d)
					defer cancel()
					var sent int64
					var client sync.WaitGroup
					client.Go(func() {
						c := newUploader(ctx, t, p.Addr)
						defer c.conn.Close()
						sent = c.upload(tt.data, tt.frame)
					})
					meanwhile()
					client.Wait()
					return sent
				}
				run(100*time.Millisecond, func() {}) // The server's own tables.
				before := figures(t, p).Live
				var most int64
				sent := run(pick(1200*time.Millisecond, 8*time.Second), func() {
					time.Sleep(pick(700*time.Millisecond, 6*time.Second))
					most = figures(t, p).Live - before
				})
				t.Logf("sent %d KiB, heap %+d KiB", sent>>10, most>>10)
				// Each call has a window in grpc-go, and that of its stream.
				if bound := min(unreadCalls*2*form.streamWindow, unreadBudget) + form.connWindow + unreadSlack; most > bound {
					t.Errorf("the server keeps %d bytes, want at most %d", most, bound)
				}
			})
		}
	}
}

// uploader is an HTTP/2 client that sends calls.
type uploader struct {
	conn net.Conn
	out  *http2.Framer

	mu      sync.Mutex // guards what follows, and out
	moved   sync.Cond  // tells of changes
	conns   int64      // room of the connection
	streams [unreadCalls]int64
	closed  bool
}

// newUploader connects, and opens the calls. The connection ends with ctx.
func newUploader(ctx context.Context, t *testing.T, addr string) *uploader {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	const initial = 65535 // RFC 9113, section 6.9.2.
	u := &uploader{conn: conn, out: http2.NewFramer(conn, nil), conns: initial}
	u.moved.L = &u.mu
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "http"},
		{Name: ":authority", Value: "localhost"},
		{Name: ":path", Value: "/muxserve.demo.v1.Echo/ClientStream"},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "te", Value: "trailers"},
	} {
		_ = encoder.WriteField(hpack.HeaderField{Name: f.Name, Value: f.Value, Sensitive: true}) // The same bytes for each stream.
	}
	_, _ = io.WriteString(conn, http2.ClientPreface)
	_ = u.out.WriteSettings()
	for i := range u.streams {
		u.streams[i] = initial
		_ = u.out.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: block.Bytes(), EndHeaders: true})
	}
	go u.read()
	return u
}

// read takes in what the server says.
func (u *uploader) read() {
	in := http2.NewFramer(io.Discard, u.conn)
	initial := int64(65535)
	for {
		frame, err := in.ReadFrame()
		u.mu.Lock()
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
				for i := range u.streams {
					u.streams[i] += int64(v) - initial
				}
				initial = int64(v)
			}
			if !f.IsAck() {
				_ = u.out.WriteSettingsAck()
			}
		case *http2.WindowUpdateFrame:
			if i := int(f.StreamID) / 2; f.StreamID == 0 {
				u.conns += int64(f.Increment)
			} else if i < len(u.streams) {
				u.streams[i] += int64(f.Increment)
			}
		case *http2.PingFrame:
			_ = u.out.WritePing(true, f.Data)
		}
		u.closed = err != nil
		u.moved.Broadcast()
		u.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// upload sends data on all streams in turn, again and again, in frames of the length, until
// the connection ends. It returns how many bytes went out.
func (u *uploader) upload(data []byte, frame int) (sent int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var at [unreadCalls]int
	for !u.closed {
		moved := false
		for i := range u.streams {
			n := min(int64(frame), u.streams[i], u.conns, int64(len(data)-at[i]))
			if n <= 0 {
				continue
			}
			if u.out.WriteData(uint32(2*i+1), false, data[at[i]:at[i]+int(n)]) != nil {
				return sent
			}
			at[i] = (at[i] + int(n)) % len(data)
			u.streams[i] -= n
			u.conns -= n
			sent += n
			moved = true
		}
		if !moved {
			u.moved.Wait()
			continue
		}
		u.mu.Unlock() // For read.
		u.mu.Lock()
	}
	return sent
}
