package mux_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// corkedConn keeps what is written until it is uncorked.
type corkedConn struct {
	net.Conn
	uncorked bool
	kept     bytes.Buffer
}

func (c *corkedConn) Write(p []byte) (int, error) {
	if !c.uncorked {
		return c.kept.Write(p)
	}
	return c.Conn.Write(p)
}

// uncork sends all at once.
func (c *corkedConn) uncork() error {
	c.uncorked = true
	_, err := c.kept.WriteTo(c.Conn)
	return err
}

// openings are the requests that have a connection served by each of the two servers.
var openings = map[string][]string{
	"http2": {":method", "GET", ":scheme", "http", ":authority", "x", ":path", "/echo"},
	"grpc": {":method", "POST", ":scheme", "http", ":authority", "x", ":path", "/grpc.testing.TestService/FullDuplexCall",
		"content-type", "application/grpc", "te", "trailers", "user-agent", "grpc-go/1.85.0"},
}

// allowance is what an HTTP/2 client may do.
type allowance struct{ Streams, Stream, Connection int }

// allowed returns what holds when the server has said all, and what the client was told
// before. An eager client sends its request with its preface; others wait for SETTINGS.
func (s *server) allowed(t *testing.T, protocol string, waits bool) (now allowance, told []map[http2.SettingID]uint32) {
	t.Helper()
	conn := &corkedConn{Conn: s.dial(t, "h2")}
	c := newH2Client(t, conn, conn)
	if waits {
		c.must(conn.uncork())
		for c.settings == nil {
			c.step()
		}
	}
	if protocol == "grpc" && !waits {
		c.must(c.WriteSettingsAck()) // Behind which a call is a gRPC library's.
	}
	c.request(1, true, openings[protocol]...)
	if !waits {
		c.must(conn.uncork())
	}
	c.header(1)
	c.sync()
	if n := s.active(protocol); n != 1 {
		t.Errorf("%d connections in the pool of %s", n, protocol)
	}
	_ = conn.Close()
	eventually(t, "the end", func() bool { return s.active(protocol) == 0 })
	return allowance{
		Streams:    int(c.settings[http2.SettingMaxConcurrentStreams]),
		Stream:     int(c.settings[http2.SettingInitialWindowSize]),
		Connection: c.window,
	}, c.announced
}

// TestWindowsOfEachServer: a client may do what its server's keys say, and the keys of the
// other server do not matter. A client that sends its request at once sees its server's
// SETTINGS alone. Another sees what both servers keep before, and no SETTINGS of grpc-go
// that say the same.
func TestWindowsOfEachServer(t *testing.T) {
	t.Parallel()
	const standard = 65535
	ofHTTP2, ofGRPC := allowance{250, 1 << 20, 4 << 20}, allowance{250, standard, standard}
	for _, test := range []struct {
		name        string
		edit        func(*mux.Config)
		http2, grpc allowance
		told        map[http2.SettingID]uint32
		grpcTells   bool // grpc-go's own SETTINGS allow more.
	}{
		{"defaults", func(*mux.Config) {}, ofHTTP2, ofGRPC, map[http2.SettingID]uint32{http2.SettingMaxConcurrentStreams: 250}, false},
		{"http2's keys", func(c *mux.Config) {
			c.HTTP2.MaxStreams, c.HTTP2.StreamWindow, c.HTTP2.ConnectionWindow = 1000, 4<<20, 16<<20
		}, allowance{1000, 4 << 20, 16 << 20}, ofGRPC, map[http2.SettingID]uint32{http2.SettingMaxConcurrentStreams: 250}, false},
		{"fewer streams of http2", func(c *mux.Config) { c.HTTP2.MaxStreams = 70 },
			allowance{70, 1 << 20, 4 << 20}, ofGRPC, map[http2.SettingID]uint32{http2.SettingMaxConcurrentStreams: 70}, true},
		{"grpc's keys", func(c *mux.Config) {
			c.GRPC.MaxStreams, c.GRPC.StreamWindow, c.GRPC.ConnectionWindow = 70, 4*standard, 16*standard
		}, ofHTTP2, allowance{70, 4 * standard, 16 * standard}, map[http2.SettingID]uint32{
			http2.SettingMaxConcurrentStreams: 70, http2.SettingInitialWindowSize: 4 * standard,
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, withTLS := range []bool{false, true} {
				s := start(t, withTLS, mux.Configure(test.edit))
				for protocol, want := range map[string]allowance{"http2": test.http2, "grpc": test.grpc} {
					own := s.expect(t, protocol, want)
					test.told[http2.SettingMaxHeaderListSize] = mux.DefaultConfig().HTTP2.MaxHeaderListBytes
					now, told := s.allowed(t, protocol, true)
					if diff := cmp.Diff(want, now); diff != "" {
						t.Errorf("%s, waiting (-want +got):\n%s", protocol, diff)
					}
					wantTold := []map[http2.SettingID]uint32{test.told, own}
					if protocol == "grpc" && !test.grpcTells {
						wantTold = wantTold[:1]
					}
					if diff := cmp.Diff(wantTold, told); diff != "" {
						t.Errorf("%s, waiting: SETTINGS (-want +got):\n%s", protocol, diff)
					}
				}
			}
		})
	}
}

// expect checks what an eager client may do, and returns the one SETTINGS frame that it
// gets.
func (s *server) expect(t *testing.T, protocol string, want allowance) map[http2.SettingID]uint32 {
	t.Helper()
	now, told := s.allowed(t, protocol, false)
	if diff := cmp.Diff(want, now); diff != "" {
		t.Errorf("%s, eager (-want +got):\n%s", protocol, diff)
	}
	if len(told) != 1 {
		t.Fatalf("%s, eager: %d SETTINGS", protocol, len(told))
	}
	return told[0]
}

// TestLargeUploads: bodies and messages that are larger than any window arrive, whatever
// key is four times its default, and whoever speaks first.
func TestLargeUploads(t *testing.T) {
	t.Parallel()
	const size = 16 << 20
	for name, edit := range map[string]func(*mux.Config){
		"defaults":                func(*mux.Config) {},
		"http2.stream_window":     func(c *mux.Config) { c.HTTP2.StreamWindow *= 4 },
		"http2.connection_window": func(c *mux.Config) { c.HTTP2.ConnectionWindow *= 4 },
		"grpc.stream_window":      func(c *mux.Config) { c.GRPC.StreamWindow = 4 * 65535 },
		"grpc.connection_window":  func(c *mux.Config) { c.GRPC.ConnectionWindow = 4 * 65535 },
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, false, mux.Configure(edit), mux.Configure(func(c *mux.Config) { c.GRPC.MaxRecvBytes, c.GRPC.MaxSendBytes = 2*size, 2*size }),
				mux.WithHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					if n, err := io.Copy(io.Discard, r.Body); n != size || err != nil {
						t.Errorf("%d bytes, %v", n, err)
					}
				})))
			resp, err := s.client(t, 2).Post("http://"+s.addr+"/", "application/octet-stream", bytes.NewReader(make([]byte, size)))
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			call, err := testpb.NewTestServiceClient(s.grpcClient(t)).UnaryCall(t.Context(), &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, size)}},
				grpc.MaxCallRecvMsgSize(2*size))
			if err != nil || call.GetUsername() != string(protocols.GRPC) {
				t.Errorf("call: %q, %v", call.GetUsername(), err)
			}
		})
	}
}
