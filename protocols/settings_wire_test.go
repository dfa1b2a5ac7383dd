package protocols

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/muxserve/muxserve/protocols/internal/wiretest"
)

// listenAnywhere returns a listener on a loopback port.
func listenAnywhere(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serveHTTP2 serves a port by c and returns its address.
func serveHTTP2(t *testing.T, c HTTP2Config, h http.HandlerFunc) string {
	t.Helper()
	l := listenAnywhere(t)
	srv := NewHTTP2Server(c, HTTPHooks{Handler: h, Logger: slog.New(slog.DiscardHandler)})
	go srv.Serve(l)
	t.Cleanup(func() { _ = srv.Close() })
	return l.Addr().String()
}

// A frameClient is an HTTP/2 client that sees the frames. It acknowledges SETTINGS, and answers PINGs unless mute.
type frameClient struct {
	*http2.Framer

	t    *testing.T
	conn net.Conn
	mute bool
	seen []string // The frames so far, for a failure's message.
}

func newFrameClient(t *testing.T, addr string) *frameClient {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(wireTime))
	c := &frameClient{Framer: http2.NewFramer(conn, conn), t: t, conn: conn}
	c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.AllowIllegalWrites = true
	c.SetMaxReadFrameSize(1 << 20)
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	c.must(c.WriteSettings())
	return c
}

func (c *frameClient) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// next reads a frame. Its error tells that the server has ended the connection.
func (c *frameClient) next() (http2.Frame, error) {
	c.t.Helper()
	f, err := c.ReadFrame()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("nothing more comes behind %s", strings.Join(c.seen, ", "))
	}
	if err != nil {
		return nil, err
	}
	c.seen = append(c.seen, fmt.Sprint(f.Header()))
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			_ = c.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() && !c.mute {
			_ = c.WritePing(true, f.Data)
		}
	}
	return f, nil
}

// awaitFrame reads up to a frame of type F for which ok holds; nil stands for any.
func awaitFrame[F http2.Frame](c *frameClient, ok func(F) bool) F {
	c.t.Helper()
	for {
		f, err := c.next()
		if err != nil {
			c.t.Fatalf("%v behind %s", err, strings.Join(c.seen, ", "))
		}
		if f, is := f.(F); is && (ok == nil || ok(f)) {
			return f
		}
	}
}

// expectEnd reads until the server has ended the connection.
func (c *frameClient) expectEnd() {
	c.t.Helper()
	for {
		if _, err := c.next(); err != nil {
			return
		}
	}
}

// request opens a stream that ends with its head.
func (c *frameClient) request(stream uint32, fields ...string) {
	c.t.Helper()
	c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndStream: true, EndHeaders: true, BlockFragment: wiretest.HeaderBlock(fields...)}))
}

// status reads a stream's status.
func (c *frameClient) status(stream uint32) string {
	c.t.Helper()
	return awaitFrame(c, func(f *http2.MetaHeadersFrame) bool { return f.StreamID == stream }).PseudoValue("status")
}

// goneAway reads GOAWAY.
func (c *frameClient) goneAway() (last uint32, code http2.ErrCode, debug string) {
	c.t.Helper()
	f := awaitFrame[*http2.GoAwayFrame](c, nil)
	return f.LastStreamID, f.ErrCode, string(f.DebugData())
}

// announced returns the settings of the server's first SETTINGS frame.
func (c *frameClient) announced() map[http2.SettingID]uint32 {
	c.t.Helper()
	f := awaitFrame[*http2.SettingsFrame](c, nil)
	got := make(map[http2.SettingID]uint32)
	_ = f.ForeachSetting(func(s http2.Setting) error {
		got[s.ID] = s.Val
		return nil
	})
	return got
}

// TestHTTP2SettingsOnTheWire is http2.max_streams, max_header_list_bytes, max_frame_bytes, stream_window and
// connection_window as a client is told of them.
func TestHTTP2SettingsOnTheWire(t *testing.T) {
	for name, edit := range map[string]func(*HTTP2Config){
		"defaults": func(*HTTP2Config) {},
		"set": func(c *HTTP2Config) {
			c.MaxStreams, c.MaxHeaderListBytes, c.MaxFrameBytes = 7, 9000, 1<<15
			c.StreamWindow, c.ConnectionWindow = 100_000, 200_000
		},
		"largest": func(c *HTTP2Config) {
			c.MaxFrameBytes, c.StreamWindow, c.ConnectionWindow = largestFrameSize, 1<<31-1, 1<<31-1
		},
	} {
		t.Run(name, func(t *testing.T) {
			config := DefaultHTTP2Config()
			edit(&config)
			c := newFrameClient(t, serveHTTP2(t, config, http.NotFound))
			got := c.announced()
			delete(got, http2.SettingHeaderTableSize)
			delete(got, settingEnableConnectProtocol)
			want := map[http2.SettingID]uint32{
				http2.SettingMaxConcurrentStreams: config.MaxStreams,
				http2.SettingMaxHeaderListSize:    config.MaxHeaderListBytes,
				http2.SettingMaxFrameSize:         config.MaxFrameBytes,
				http2.SettingInitialWindowSize:    uint32(config.StreamWindow),
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("SETTINGS (-want +got):\n%s", diff)
			}
			grant := awaitFrame[*http2.WindowUpdateFrame](c, nil)
			if got := grant.Increment + minWindow; grant.StreamID != 0 || got != uint32(config.ConnectionWindow) {
				t.Errorf("the connection's window is %d, want %d", got, config.ConnectionWindow)
			}
		})
	}
}

// TestHTTP2SettingsAreEnforced: a client that goes past what it was told is stopped there.
func TestHTTP2SettingsAreEnforced(t *testing.T) {
	config := DefaultHTTP2Config()
	config.MaxStreams, config.MaxHeaderListBytes, config.MaxFrameBytes = 2, 9000, 1<<15
	const big = 1 << 15
	post := []string{":method", "POST", ":scheme", "http", ":path", "/", ":authority", "x"}
	tests := []struct {
		name string
		do   func(t *testing.T, c *frameClient)
	}{
		{"max_streams", func(t *testing.T, c *frameClient) {
			for stream := uint32(1); stream <= 5; stream += 2 {
				c.request(stream, wiretest.GetFields()...)
			}
			f := awaitFrame[*http2.RSTStreamFrame](c, nil)
			// Either is right (RFC 9113 section 5.1.2): the client has acknowledged the limit, or not yet.
			if f.StreamID != 5 || f.ErrCode != http2.ErrCodeProtocol && f.ErrCode != http2.ErrCodeRefusedStream {
				t.Errorf("stream %d is reset for %v", f.StreamID, f.ErrCode)
			}
		}},
		{"max_header_list_bytes", func(t *testing.T, c *frameClient) {
			c.request(1, wiretest.GetFields("x-long", strings.Repeat("x", int(config.MaxHeaderListBytes)))...)
			if got := c.status(1); got != "431" {
				t.Errorf("status %s", got)
			}
		}},
		{"max_frame_bytes, as long", func(_ *testing.T, c *frameClient) {
			c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: wiretest.HeaderBlock(post...)}))
			c.must(c.WriteData(1, false, make([]byte, big)))
			c.must(c.WritePing(false, [8]byte{1}))
			awaitFrame(c, func(f *http2.PingFrame) bool { return f.IsAck() })
		}},
		{"max_frame_bytes, longer", func(t *testing.T, c *frameClient) {
			c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: wiretest.HeaderBlock(post...)}))
			c.must(c.WriteData(1, false, make([]byte, big+1)))
			if _, code, _ := c.goneAway(); code != http2.ErrCodeFrameSize {
				t.Errorf("GOAWAY %v", code)
			}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			release := make(chan struct{})
			addr := serveHTTP2(t, config, func(_ http.ResponseWriter, r *http.Request) {
				select {
				case <-release:
				case <-r.Context().Done():
				}
			})
			defer close(release)
			c := newFrameClient(t, addr)
			c.announced()
			test.do(t, c)
		})
	}
}

// TestHTTP2Pings is http2.ping_interval and ping_timeout.
func TestHTTP2Pings(t *testing.T) {
	t.Parallel()
	config := DefaultHTTP2Config()
	config.PingInterval, config.PingTimeout = 50*time.Millisecond, time.Second
	isPing := func(f *http2.PingFrame) bool { return !f.IsAck() }
	t.Run("answered", func(t *testing.T) {
		began := time.Now()
		c := newFrameClient(t, serveHTTP2(t, config, http.NotFound))
		const pings = 25 // More than fit into one timeout.
		for range pings {
			awaitFrame(c, isPing)
		}
		if at := time.Since(began); at < pings*config.PingInterval {
			t.Errorf("%d pings in %v", pings, at)
		}
		c.request(1, wiretest.GetFields()...)
		if got := c.status(1); got != "404" {
			t.Errorf("status %s", got)
		}
	})
	t.Run("not answered", func(t *testing.T) {
		began := time.Now()
		c := newFrameClient(t, serveHTTP2(t, config, http.NotFound))
		c.mute = true
		awaitFrame(c, isPing)
		c.expectEnd()
		if at := time.Since(began); at < config.PingInterval+config.PingTimeout {
			t.Errorf("closed after %v", at)
		}
	})
	t.Run("off", func(t *testing.T) {
		config := config
		config.PingInterval, config.IdleTimeout = 0, 300*time.Millisecond
		c := newFrameClient(t, serveHTTP2(t, config, http.NotFound))
		c.mute = true
		for {
			f, err := c.next()
			c.must(err)
			switch f := f.(type) {
			case *http2.PingFrame:
				t.Fatal("a PING")
			case *http2.GoAwayFrame:
				if f.ErrCode != http2.ErrCodeNo {
					t.Errorf("GOAWAY %v", f.ErrCode)
				}
				return
			}
		}
	})
}

// TestHTTP2IdleTimeout is http2.idle_timeout: GOAWAY, then the end, and not while a stream is open.
func TestHTTP2IdleTimeout(t *testing.T) {
	t.Parallel()
	config := DefaultHTTP2Config()
	config.IdleTimeout = 300 * time.Millisecond
	addr := serveHTTP2(t, config, func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(2 * config.IdleTimeout)
		w.WriteHeader(http.StatusNoContent)
	})
	began := time.Now()
	c := newFrameClient(t, addr)
	c.request(1, wiretest.GetFields()...)
	if got := c.status(1); got != "204" {
		t.Errorf("status %s", got)
	}
	if last, code, _ := c.goneAway(); code != http2.ErrCodeNo || last != 1 {
		t.Errorf("GOAWAY %v up to %d", code, last)
	}
	c.expectEnd()
	if at := time.Since(began); at < 3*config.IdleTimeout {
		t.Errorf("closed after %v", at)
	}
}

// serveHTTP1 serves a port by c and returns a connection to it.
func serveHTTP1(t *testing.T, c HTTP1Config) net.Conn {
	t.Helper()
	l := listenAnywhere(t)
	srv := NewHTTP1Server(c, HTTPHooks{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "here") }),
		Logger:  slog.New(slog.DiscardHandler),
	})
	go srv.Serve(l)
	t.Cleanup(func() { _ = srv.Close() })
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(wireTime))
	return conn
}

// TestHTTP1SettingsOnTheWire is http1.header_timeout, idle_timeout and max_header_bytes: what a client gets until its connection ends.
func TestHTTP1SettingsOnTheWire(t *testing.T) {
	const (
		short = 100 * time.Millisecond
		head  = "GET / HTTP/1.1\r\nHost: x\r\n"
	)
	tests := []struct {
		name  string
		edit  func(*HTTP1Config)
		send  string
		want  string // What the answer begins with; "" for no answer.
		after time.Duration
	}{
		{"header_timeout", func(c *HTTP1Config) { c.HeaderTimeout = short }, head, "", short},
		{"header_timeout, second request", func(c *HTTP1Config) { c.HeaderTimeout = short }, head + "\r\n" + head, "HTTP/1.1 200 ", short},
		{"idle_timeout", func(c *HTTP1Config) { c.IdleTimeout = short }, head + "\r\n", "HTTP/1.1 200 ", short},
		{"max_header_bytes", func(c *HTTP1Config) { c.MaxHeaderBytes = 1024 }, head + "X: " + strings.Repeat("x", 8<<10) + "\r\n\r\n", "HTTP/1.1 431 ", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			config := DefaultHTTP1Config()
			test.edit(&config)
			began := time.Now() // Before the server can have begun to count.
			conn := serveHTTP1(t, config)
			if _, err := io.WriteString(conn, test.send); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(conn)
			if err != nil {
				t.Fatalf("%q, %v", got, err)
			}
			if !strings.HasPrefix(string(got), test.want) || test.want == "" && len(got) > 0 {
				t.Errorf("%q, want %q", got, test.want)
			}
			if at := time.Since(began); at < test.after {
				t.Errorf("closed after %v", at)
			}
		})
	}
}
