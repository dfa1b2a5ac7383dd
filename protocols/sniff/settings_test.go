package sniff

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/internal/wiretest"
)

// A handOff is a listener that gives one connection and then blocks until it
// is closed.
type handOff struct {
	net.Listener
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newHandOff(l net.Listener) *handOff {
	return &handOff{Listener: l, conns: make(chan net.Conn, 1), done: make(chan struct{})}
}

func (h *handOff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handOff) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// servePort serves every connection to a loopback port by the real server that
// its verdict names, and returns the address.
func servePort(t *testing.T, config *Config) string {
	t.Helper()
	root, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	native := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		// The server resets a stream that ends before its request does.
		for stream.RecvMsg(new(emptypb.Empty)) == nil {
		}
		return stream.SendMsg(new(emptypb.Empty))
	}))
	shared := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	})}
	shared.Protocols.SetUnencryptedHTTP2(true)
	shared.Protocols.SetHTTP1(true)
	toNative, toShared := newHandOff(root), newHandOff(root)

	var wg sync.WaitGroup
	wg.Go(func() { _ = native.Serve(toNative) })
	wg.Go(func() { _ = shared.Serve(toShared) })
	wg.Go(func() {
		for {
			inner, err := root.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				c := new(Conn)
				c.Init(inner)
				switch v := c.Sniff(config); v.Protocol {
				case protocols.GRPC:
					toNative.conns <- c
				case protocols.HTTP1, protocols.HTTP2, protocols.WebSocket:
					toShared.conns <- c
				default:
					c.Close()
				}
			})
		}
	})
	t.Cleanup(func() {
		root.Close()
		native.Stop()
		shared.Close()
		wg.Wait()
	})
	return root.Addr().String()
}

// A patientClient is an HTTP/2 client that counts what it is sent.
type patientClient struct {
	conn     net.Conn
	fr       *http2.Framer
	step     int               // Bytes in one write; 0 for all.
	late     bool              // Acknowledges SETTINGS only when it is told to.
	owed     int               // ACKs that are not sent yet.
	settings [][]http2.Setting // What each SETTINGS frame says.
	acks     int
	pings    int // PING ACKs.
}

// Write implements io.Writer for the framer, in pieces.
func (c *patientClient) Write(p []byte) (int, error) {
	if c.step == 0 {
		return c.conn.Write(p)
	}
	for piece := range slices.Chunk(p, c.step) {
		if _, err := c.conn.Write(piece); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// readUntil reads frames until enough says so, and acknowledges SETTINGS.
func (c *patientClient) readUntil(enough func(http2.Frame) bool) error {
	for {
		f, err := c.fr.ReadFrame()
		if err != nil {
			return err
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if f.IsAck() {
				c.acks++
				break
			}
			var settings []http2.Setting
			_ = f.ForeachSetting(func(s http2.Setting) error { settings = append(settings, s); return nil })
			c.settings = append(c.settings, settings)
			if c.owed++; c.late {
				break
			}
			if err := c.acknowledge(); err != nil {
				return err
			}
		case *http2.PingFrame:
			if f.IsAck() { // grpc-go pings to measure the round trip.
				c.pings++
			}
		case *http2.GoAwayFrame:
			return fmt.Errorf("GOAWAY: %v %s", f.ErrCode, f.DebugData())
		case *http2.RSTStreamFrame:
			return fmt.Errorf("RST_STREAM: %v", f.ErrCode)
		}
		if enough(f) {
			return nil
		}
	}
}

// acknowledge sends the ACKs that are owed.
func (c *patientClient) acknowledge() error {
	for ; c.owed > 0; c.owed-- {
		if err := c.fr.WriteSettingsAck(); err != nil {
			return err
		}
	}
	return nil
}

// A script is how a client opens its connection.
type script struct {
	name  string
	step  int           // Bytes in one write; 0 for whole frames.
	wait  bool          // Waits for SETTINGS and ACK before it goes on.
	pings int           // PINGs before the first request.
	more  int           // Further SETTINGS before the first request.
	pause time.Duration // Before the first request.
	late  bool          // Acknowledges SETTINGS only behind the response.
}

// talk opens the connection, makes one request, and then waits until all that
// is due must have come.
func (c *patientClient) talk(s script, fields []string) error {
	opening := opening(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	if _, err := c.Write(opening); err != nil {
		return err
	}
	for range s.pings {
		if err := c.fr.WritePing(false, [8]byte{'f', 'i', 'r', 's', 't'}); err != nil {
			return err
		}
	}
	for i := range s.more {
		if err := c.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1<<14 + uint32(i)}); err != nil {
			return err
		}
	}
	if s.wait {
		handshaken := func(http2.Frame) bool { return len(c.settings) == 1 && c.acks == 1+s.more && c.pings == s.pings }
		if err := c.readUntil(handshaken); err != nil {
			return fmt.Errorf("waiting for the handshake: %w", err)
		}
	}
	time.Sleep(s.pause)
	return c.request(fields)
}

// request makes a request and reads its answer.
func (c *patientClient) request(fields []string) error {
	if err := c.fr.WriteHeaders(headersFrame(fields...)); err != nil {
		return err
	}
	if err := c.fr.WriteData(1, true, make([]byte, 5)); err != nil {
		return err
	}
	return c.respond()
}

// respond reads the answer to the first request, and makes sure by a PING that nothing more comes
// and that the server takes the ACKs.
func (c *patientClient) respond() error {
	ended := func(f http2.Frame) bool {
		switch f := f.(type) {
		case *http2.HeadersFrame:
			return f.StreamEnded()
		case *http2.DataFrame:
			return f.StreamEnded()
		}
		return false
	}
	if err := c.readUntil(ended); err != nil {
		return fmt.Errorf("waiting for the response: %w", err)
	}
	if err := c.acknowledge(); err != nil {
		return err
	}
	last := [8]byte{'l', 'a', 's', 't'}
	if err := c.fr.WritePing(false, last); err != nil {
		return err
	}
	return c.readUntil(func(f http2.Frame) bool {
		p, ok := f.(*http2.PingFrame)
		return ok && p.Data == last
	})
}

// requestsByServer are the fields of a request for each of the two servers.
var requestsByServer = []struct {
	name   string
	fields []string
}{
	{"grpc-go", grpcFields()},
	{"net/http", []string{":method", "POST", ":scheme", "http", ":path", "/", ":authority", "localhost"}},
}

// dialPatient connects to addr.
func dialPatient(t *testing.T, addr string) *patientClient {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	c := &patientClient{conn: conn}
	c.fr = http2.NewFramer(c, conn)
	return c
}

// wholeRequest is what a client sends behind its opening.
func wholeRequest(fields []string) []byte {
	return wiretest.ClientBytes(func(fr *http2.Framer) {
		_ = fr.WriteHeaders(headersFrame(fields...))
		_ = fr.WriteData(1, true, make([]byte, 5))
	})[len(http2.ClientPreface):]
}

// own returns the SETTINGS of the server that gets a connection that begins with these
// bytes: what an eager client sees.
func own(t *testing.T, addr string, begin ...[]byte) []http2.Setting {
	t.Helper()
	c := dialPatient(t, addr)
	if _, err := c.Write(slices.Concat(begin...)); err != nil {
		t.Fatal(err)
	}
	if err := c.readUntil(func(http2.Frame) bool { return c.acks == 1 }); err != nil {
		t.Fatal(err)
	}
	return c.settings[0]
}

// TestSettingsByServer: whatever the client waits for and however its bytes are split, it sees
// the SETTINGS of its server, before them at most the sniffer's, one ACK for each of its
// own, and its response. The server does not see the ACK of the sniffer's, which net/http
// would close the connection for.
func TestSettingsByServer(t *testing.T) {
	addr := servePort(t, testConfig())
	sniffers := []http2.Setting{{ID: http2.SettingMaxFrameSize, Val: 1 << 20}}
	scripts := []script{
		{name: "eager"},
		{name: "eager, split", step: 3},
		{name: "eager, byte by byte", step: 1},
		{name: "eager, pings", pings: 3},
		{name: "waiting", wait: true},
		{name: "waiting, split", wait: true, step: 7},
		{name: "waiting, byte by byte", wait: true, step: 1},
		{name: "waiting, pings", wait: true, pings: 3},
		{name: "waiting, pings byte by byte", wait: true, pings: 3, step: 1},
		{name: "waiting, three SETTINGS", wait: true, more: 2},
		{name: "late ACKs", late: true},
		{name: "waiting, late ACKs", wait: true, late: true},
		{name: "waiting, late ACKs byte by byte", wait: true, late: true, pings: 1, step: 1},
		{name: "a pause", pause: 200 * time.Millisecond},
		{name: "waiting, a pause", wait: true, pings: 1, pause: 200 * time.Millisecond},
	}
	type seen struct{ ACKs, Pings int }
	native := own(t, addr, opening(), ackFrame(), wholeRequest(grpcFields()))
	shared := own(t, addr, opening(), wholeRequest(wiretest.GetFields()))
	if cmp.Equal(native, shared) {
		t.Fatalf("both servers have the SETTINGS %v", native)
	}
	for _, r := range requestsByServer {
		for _, s := range scripts {
			servers := shared
			if r.name == "grpc-go" && s.wait && !s.late { // A call behind the ACK is a gRPC library's.
				servers = native
			}
			t.Run(r.name+"/"+s.name, func(t *testing.T) {
				t.Parallel()
				c := dialPatient(t, addr)
				c.step, c.late = s.step, s.late
				if err := c.talk(s, r.fields); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(seen{ACKs: 1 + s.more, Pings: s.pings + 1}, seen{c.acks, c.pings}); diff != "" {
					t.Errorf("frames (-want +got):\n%s", diff)
				}
				want := [][]http2.Setting{servers}
				if s.wait || len(c.settings) > 1 {
					want = [][]http2.Setting{sniffers, servers}
				}
				if diff := cmp.Diff(want, c.settings); diff != "" {
					t.Errorf("SETTINGS (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestEverySplit sends the same bytes in two pieces, split at each byte, with a pause in
// which the sniffer may answer: the client sees the same ACKs and the same response, and
// the server's SETTINGS in the end.
func TestEverySplit(t *testing.T) {
	t.Parallel()
	addr := servePort(t, testConfig())
	for _, r := range requestsByServer {
		var ack []byte
		if r.name == "grpc-go" {
			ack = ackFrame() // As a library that has seen the SETTINGS. grpc-go minds none too many.
		}
		servers := own(t, addr, opening(), ack, wholeRequest(r.fields))
		sent := slices.Concat(opening(), pingFrame(0, "12345678"), ack, wholeRequest(r.fields))
		slots := make(chan struct{}, 16)
		for at := range sent {
			t.Run(fmt.Sprintf("%s/%d", r.name, at), func(t *testing.T) {
				t.Parallel()
				slots <- struct{}{}
				defer func() { <-slots }()
				c := dialPatient(t, addr)
				for _, piece := range [][]byte{sent[:at], sent[at:]} {
					if _, err := c.Write(piece); err != nil {
						t.Fatal(err)
					}
					time.Sleep(2 * time.Millisecond)
				}
				if err := c.respond(); err != nil {
					t.Fatal(err)
				}
				if c.acks != 1 || c.pings != 2 || len(c.settings) > 2 {
					t.Errorf("%d ACKs, %d PINGs and %d SETTINGS", c.acks, c.pings, len(c.settings))
				}
				if diff := cmp.Diff(servers, c.settings[len(c.settings)-1]); diff != "" {
					t.Errorf("the last SETTINGS (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestConnectEarly is point 3, too: a grpc-go client that connects before it
// calls is told that the connection is ready, and then finds it native.
func TestConnectEarly(t *testing.T) {
	addr := servePort(t, testConfig())
	for range 20 {
		cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		cc.Connect()
		for state := cc.GetState(); state != connectivity.Ready; state = cc.GetState() {
			if !cc.WaitForStateChange(t.Context(), state) {
				t.Fatalf("state %v: %v", state, t.Context().Err())
			}
		}
		if err := cc.Invoke(t.Context(), "/any.Service/Call", new(emptypb.Empty), new(emptypb.Empty)); err != nil {
			t.Errorf("call: %v", err)
		}
		if err := cc.Close(); err != nil {
			t.Error(err)
		}
	}
}
