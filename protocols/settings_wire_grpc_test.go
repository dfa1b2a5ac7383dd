package protocols

import (
	"encoding/binary"
	"maps"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/muxserve/muxserve/protocols/internal/wiretest"
)

// The methods of serveGRPC's service.
const (
	waits  = "/test.Service/Waits"
	echoes = "/test.Service/Echoes"
)

// serveGRPC serves a port by the native server and returns its address. A
// call of waits never ends by itself; echoes takes bytes, and returns as many as the first of them says.
func serveGRPC(t *testing.T, c GRPCConfig, h2 HTTP2Config, options ...grpc.ServerOption) string {
	t.Helper()
	s := newServers(t, c, h2, append(options, grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		if method, _ := grpc.MethodFromServerStream(stream); method == waits {
			<-stream.Context().Done()
			return stream.Context().Err()
		}
		var message wrapperspb.BytesValue
		if err := stream.RecvMsg(&message); err != nil {
			return err
		}
		return stream.SendMsg(wrapperspb.Bytes(make([]byte, message.GetValue()[0])))
	}))...)
	l := listenAnywhere(t)
	go s.Native.Serve(l)
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

// endlessGRPC is what nothing ends.
func endlessGRPC() GRPCConfig {
	c := DefaultGRPCConfig()
	c.MaxIdle, c.MaxAge, c.MaxAgeGrace, c.PingInterval, c.MinPingInterval = 0, 0, 0, 0, 0
	return c
}

// begin opens a stream for a call and leaves it open.
func (c *frameClient) begin(stream uint32, method string) {
	c.t.Helper()
	c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndHeaders: true, BlockFragment: wiretest.HeaderBlock(
		":method", "POST", ":scheme", "http", ":path", method, ":authority", "x", "content-type", "application/grpc", "te", "trailers",
	)}))
}

// grpcStatus reads the status of a call.
func (c *frameClient) grpcStatus(stream uint32) (code, message string) {
	c.t.Helper()
	f := awaitFrame(c, func(f *http2.MetaHeadersFrame) bool { return f.StreamID == stream && f.StreamEnded() })
	for _, field := range f.RegularFields() {
		switch field.Name {
		case "grpc-status":
			code = field.Value
		case "grpc-message":
			message = field.Value
		}
	}
	return code, message
}

// TestGRPCSettingsOnTheWire is grpc.max_streams, stream_window and connection_window, and
// http2.max_header_list_bytes, as a client of the native server is told of them. The other
// settings of http2 do not act on it.
func TestGRPCSettingsOnTheWire(t *testing.T) {
	const streams, window = http2.SettingMaxConcurrentStreams, http2.SettingInitialWindowSize
	defaults := map[http2.SettingID]uint32{
		streams:                        250,
		http2.SettingMaxHeaderListSize: 9000,
		http2.SettingMaxFrameSize:      1 << 14,
	}
	for _, test := range []struct {
		name       string
		edit       func(*GRPCConfig)
		want       map[http2.SettingID]uint32 // Beside the defaults.
		connection uint32                     // The connection's window.
		options    []grpc.ServerOption        // They win over the settings.
	}{
		{"option above max_streams", func(*GRPCConfig) {}, map[http2.SettingID]uint32{streams: 1000}, minWindow, []grpc.ServerOption{grpc.MaxConcurrentStreams(1000)}},
		{"options for windows", func(*GRPCConfig) {}, map[http2.SettingID]uint32{window: 100_000}, 300_000, []grpc.ServerOption{
			grpc.InitialWindowSize(100_000), grpc.InitialConnWindowSize(300_000),
		}},
		{"defaults", func(*GRPCConfig) {}, nil, minWindow, nil},
		{"max_streams", func(c *GRPCConfig) { c.MaxStreams = 7 }, map[http2.SettingID]uint32{streams: 7}, minWindow, nil},
		{"most streams", func(c *GRPCConfig) { c.MaxStreams = math.MaxUint32 }, map[http2.SettingID]uint32{streams: math.MaxUint32 - 1}, minWindow, nil},
		{"both windows", func(c *GRPCConfig) { c.StreamWindow, c.ConnectionWindow = 100_000, 300_000 }, map[http2.SettingID]uint32{window: 100_000}, 300_000, nil},
		{"stream_window", func(c *GRPCConfig) { c.StreamWindow = 100_000 }, map[http2.SettingID]uint32{window: 100_000}, 100_000, nil},
		{"connection_window", func(c *GRPCConfig) { c.ConnectionWindow = 300_000 }, map[http2.SettingID]uint32{window: 300_000}, 300_000, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			h2, config := DefaultHTTP2Config(), endlessGRPC()
			h2.MaxHeaderListBytes = 9000
			h2.MaxStreams, h2.StreamWindow, h2.ConnectionWindow, h2.MaxFrameBytes = 3, 1<<18, 1<<19, 1<<15
			test.edit(&config)
			c := newFrameClient(t, serveGRPC(t, config, h2, test.options...))
			want := maps.Clone(defaults)
			maps.Copy(want, test.want)
			if diff := cmp.Diff(want, c.announced()); diff != "" {
				t.Errorf("SETTINGS (-want +got):\n%s", diff)
			}
			c.must(c.WritePing(false, [8]byte{1}))
			got := uint32(minWindow)
			awaitFrame(c, func(f http2.Frame) bool {
				if grant, ok := f.(*http2.WindowUpdateFrame); ok && grant.StreamID == 0 {
					got += grant.Increment
				}
				return f.Header().Type == http2.FramePing
			})
			if got != test.connection {
				t.Errorf("the connection's window is %d, want %d", got, test.connection)
			}
		})
	}
}

// TestGRPCMessageSizes is grpc.max_recv_bytes and max_send_bytes, which bound the encoded message.
func TestGRPCMessageSizes(t *testing.T) {
	const (
		limit = 100
		head  = 2 // What stands before a short field of bytes.
	)
	config := endlessGRPC()
	config.MaxRecvBytes, config.MaxSendBytes = limit, limit
	addr := serveGRPC(t, config, DefaultHTTP2Config())
	tests := []struct {
		name      string
		send, ask byte // Encoded bytes each way.
		code      codes.Code
		message   string
	}{
		{"as large", limit, limit, codes.OK, ""},
		{"max_recv_bytes", limit + 1, head, codes.ResourceExhausted, "received message larger than max (101 vs. 100)"},
		{"max_send_bytes", head + 1, limit + 1, codes.ResourceExhausted, "trying to send message larger than max (101 vs. 100)"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newFrameClient(t, addr)
			c.announced()
			c.begin(1, echoes)
			value := make([]byte, test.send-head)
			value[0] = test.ask - head
			message, err := proto.Marshal(wrapperspb.Bytes(value))
			c.must(err)
			prefix := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
			c.must(c.WriteData(1, true, append(prefix, message...)))
			code, text := c.grpcStatus(1)
			if code != strconv.Itoa(int(test.code)) || !strings.HasSuffix(text, test.message) {
				t.Errorf("status %s %q, want %d %q", code, text, test.code, test.message)
			}
		})
	}
}

// leastGRPCPing is the least interval at which grpc-go pings.
const leastGRPCPing = time.Second

// TestGRPCPings is grpc.ping_interval and ping_timeout.
func TestGRPCPings(t *testing.T) {
	t.Parallel()
	config := endlessGRPC()
	config.PingInterval, config.PingTimeout = leastGRPCPing, time.Second
	for name, mute := range map[string]bool{"answered": false, "not answered": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			c := newFrameClient(t, serveGRPC(t, config, DefaultHTTP2Config()))
			c.mute = mute
			isPing := func(f *http2.PingFrame) bool { return !f.IsAck() }
			awaitFrame(c, isPing)
			if at := time.Since(began); at < leastGRPCPing {
				t.Errorf("a PING after %v", at)
			}
			if mute {
				c.expectEnd()
				if at := time.Since(began); at < leastGRPCPing+config.PingTimeout {
					t.Errorf("closed after %v", at)
				}
				return
			}
			awaitFrame(c, isPing)
			awaitFrame(c, isPing)
			c.must(c.WritePing(false, [8]byte{1}))
			awaitFrame(c, func(f *http2.PingFrame) bool { return f.IsAck() })
		})
	}
}

// TestGRPCMinPingInterval is grpc.min_ping_interval: a client that pings more often is told to go.
func TestGRPCMinPingInterval(t *testing.T) {
	t.Parallel()
	const pings = 10
	for name, least := range map[string]time.Duration{"an hour": time.Hour, "as often as it likes": 0} {
		t.Run(name, func(t *testing.T) {
			config := endlessGRPC()
			config.MinPingInterval = least
			c := newFrameClient(t, serveGRPC(t, config, DefaultHTTP2Config()))
			c.announced()
			if least > 0 {
				for i := range pings {
					// The server may have closed the connection by then.
					_ = c.WritePing(false, [8]byte{byte(i)})
				}
				if _, code, debug := c.goneAway(); code != http2.ErrCodeEnhanceYourCalm || debug != "too_many_pings" {
					t.Errorf("GOAWAY %v %q", code, debug)
				}
				c.expectEnd()
				return
			}
			for i := range pings {
				c.must(c.WritePing(false, [8]byte{byte(i)}))
				awaitFrame(c, func(f *http2.PingFrame) bool { return f.IsAck() })
			}
		})
	}
}

// allStreams is the last stream in the first of two GOAWAYs: whatever is on its way is still served (RFC 9113 section 6.8).
const allStreams = 1<<31 - 1

// expectGoAway reads GOAWAY without an error.
func (c *frameClient) expectGoAway(last uint32, debug string) {
	c.t.Helper()
	if gotLast, code, got := c.goneAway(); gotLast != last || code != http2.ErrCodeNo || got != debug {
		c.t.Errorf("GOAWAY %v up to %d, %q; want NO_ERROR up to %d, %q", code, gotLast, got, last, debug)
	}
}

// TestGRPCIdleTimeout is grpc.idle_timeout: two GOAWAYs and the end, after the last call.
func TestGRPCIdleTimeout(t *testing.T) {
	t.Parallel()
	config := endlessGRPC()
	config.MaxIdle = 300 * time.Millisecond
	began := time.Now()
	c := newFrameClient(t, serveGRPC(t, config, DefaultHTTP2Config()))
	c.announced()
	c.begin(1, waits)
	time.Sleep(2 * config.MaxIdle) // It would be idle but for this.
	c.must(c.WriteRSTStream(1, http2.ErrCodeCancel))
	c.expectGoAway(allStreams, "max_idle")
	if at := time.Since(began); at < 3*config.MaxIdle {
		t.Errorf("GOAWAY after %v", at)
	}
	c.expectGoAway(1, "max_idle")
	c.expectEnd()
}

// TestGRPCMaxAge is grpc.max_age and max_age_grace: two GOAWAYs, and the end when the last call ends or the grace does.
func TestGRPCMaxAge(t *testing.T) {
	t.Parallel()
	config := endlessGRPC()
	config.MaxAge = 200 * time.Millisecond
	earliest := config.MaxAge * 9 / 10
	for _, test := range []struct {
		name   string
		cancel bool
		grace  time.Duration
	}{
		{"the call goes on", false, 500 * time.Millisecond},
		{"the call ends", true, time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			config.MaxAgeGrace = test.grace
			began := time.Now()
			c := newFrameClient(t, serveGRPC(t, config, DefaultHTTP2Config()))
			c.announced()
			c.begin(1, waits)
			c.expectGoAway(allStreams, "max_age")
			if at := time.Since(began); at < earliest {
				t.Errorf("GOAWAY after %v", at)
			}
			c.begin(3, waits) // It was on its way.
			c.expectGoAway(3, "max_age")
			if test.cancel {
				c.must(c.WriteRSTStream(1, http2.ErrCodeCancel))
				c.must(c.WriteRSTStream(3, http2.ErrCodeCancel))
				c.expectEnd()
				return
			}
			c.expectEnd()
			if at := time.Since(began); at < earliest+test.grace {
				t.Errorf("closed after %v", at)
			}
		})
	}
}
