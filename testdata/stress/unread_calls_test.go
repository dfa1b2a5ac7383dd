package stress

import (
	"bytes"
	"context"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/muxserve/muxserve/testdata/clients/process"
)

const (
	unreadCalls = 20
	// unreadBudget is what the calls of a connection may have before their windows become
	// narrow, and unreadShare what each may have beyond that.
	unreadBudget = 16 << 20
	unreadShare  = 80 << 10
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
						c := newUploader(ctx, t, p.Addr, unreadCalls, false)
						defer c.conn.Close()
						c.upload(tt.data, tt.frame, false)
						sent = c.sent
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
				// Each call has a window that is read ahead, and that of its stream.
				if bound := min(unreadCalls*2*form.streamWindow, unreadBudget+unreadCalls*unreadShare) + form.connWindow + unreadSlack; most > bound {
					t.Errorf("the server keeps %d bytes, want at most %d", most, bound)
				}
			})
		}
	}
}

// TestManyUnreadCalls sends as many streams as a connection may have to handlers that do not
// read them, one after the other, each as far as its window lets it. The windows become narrow.
// A client that does not mind them, and goes on in the wide ones, can have the server keep no
// more than a read of each stream and the window of the connection on top.
func TestManyUnreadCalls(t *testing.T) {
	const (
		streamWindow, connWindow = 1 << 20, 4 << 20
		bound                    = unreadBudget + maxStreams*unreadShare + connWindow
		over                     = maxStreams*(16<<10) + connWindow // for who does not mind them
		// slack is what so many calls cost without data: 16 KiB of grpc-go's for the next read,
		// as much of net/http's from the last, and the server's own books.
		slack = unreadSlack + maxStreams*(32<<10)
		// narrow is less than the narrow window of a stream.
		narrow = 48 << 10 * 9 / 10
	)
	data := bytes.Repeat(append([]byte{0, 0, 0, 0, 59}, make([]byte, 59)...), 1<<14)
	p := start(t, process.Options{Binary: embedding, Bare: true, Args: []string{"shared"}})
	for _, tt := range []struct {
		name    string
		ignores bool
		frame   int
		bound   int64
	}{
		{"windows kept to", false, 16 << 10, bound},
		{"windows kept to, each message in a frame", false, 64, bound},
		{"windows ignored", true, 16 << 10, bound + over},
		{"windows ignored, each message in a frame", true, 64, bound + over},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := figures(t, p).Live
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c := newUploader(ctx, t, p.Addr, maxStreams, tt.ignores)
			var client sync.WaitGroup
			client.Go(func() { c.upload(data, tt.frame, !tt.ignores) })
			state := func() (sent, least int64, windows []uint32) {
				c.mu.Lock()
				defer c.mu.Unlock()
				return c.sent, slices.Min(c.each), c.windows
			}
			var most, sent int64
			eventually(t, "it can send no more", func() bool {
				was, least, _ := state()
				most = figures(t, p).Live - before
				sent, _, _ = state()
				return sent == was && sent >= unreadBudget && least >= narrow
			})
			_, _, windows := state()
			t.Logf("sent %d KiB, heap %+d KiB, windows %d", sent>>10, most>>10, windows)
			if most > tt.bound+slack {
				t.Errorf("the server keeps %d bytes, want at most %d", most, tt.bound+slack)
			}
			if len(windows) < 2 || windows[len(windows)-1] >= streamWindow {
				t.Errorf("the windows of streams are %d", windows)
			}
			cancel()
			client.Wait()
			eventually(t, "it is gone", func() bool { return figures(t, p).Live-before < slack })
		})
	}
}

// uploader is an HTTP/2 client that sends calls.
type uploader struct {
	conn    net.Conn
	out     *http2.Framer
	ignores bool // it does not mind that its windows become narrow

	mu      sync.Mutex // guards what follows, and out
	moved   sync.Cond  // tells of changes
	conns   int64      // room of the connection
	streams []int64    // room of each
	windows []uint32   // the initial windows that the server has said
	sent    int64
	each    []int64 // sent, of each stream
	closed  bool
}

// newUploader connects, and opens so many calls. The connection ends with ctx.
func newUploader(ctx context.Context, t *testing.T, addr string, calls int, ignores bool) *uploader {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	const initial = 65535 // RFC 9113, section 6.9.2.
	u := &uploader{conn: conn, out: http2.NewFramer(conn, nil), ignores: ignores, conns: initial, streams: make([]int64, calls), each: make([]int64, calls)}
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
				u.windows = append(u.windows, v)
				if v := int64(v); v >= initial || !u.ignores {
					for i := range u.streams {
						u.streams[i] += v - initial
					}
					initial = v
				}
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

// upload sends data on all streams in frames of the length, until the connection ends: one
// frame on each and then the next ones, or deep, on each as much as it has room for.
func (u *uploader) upload(data []byte, frame int, deep bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	at, next := make([]int, len(u.streams)), 0
	for !u.closed {
		moved := false
		for range u.streams {
			if u.conns == 0 {
				break // It goes on with this one.
			}
			i := next
			next = (next + 1) % len(u.streams)
			for again := true; again; again = deep {
				n := min(int64(frame), u.streams[i], u.conns, int64(len(data)-at[i]))
				if n <= 0 || u.closed {
					break
				}
				if u.out.WriteData(uint32(2*i+1), false, data[at[i]:at[i]+int(n)]) != nil {
					return
				}
				at[i] = (at[i] + int(n)) % len(data)
				u.streams[i] -= n
				u.conns -= n
				u.sent += n
				u.each[i] += n
				moved = true
				if deep {
					u.mu.Unlock() // For read.
					u.mu.Lock()
				}
			}
		}
		if !moved {
			u.moved.Wait()
			continue
		}
		u.mu.Unlock() // For read.
		u.mu.Lock()
	}
}
