package sniff

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/internal/wiretest"
)

// A sniffListener recognises each connection in Accept, and shows it.
type sniffListener struct {
	net.Listener
	config *Config
	conns  chan *Conn
}

func listenSniffing(t *testing.T, config *Config) *sniffListener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return &sniffListener{l, config, make(chan *Conn, 10)}
}

func (l *sniffListener) Accept() (net.Conn, error) {
	inner, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := newConn(inner)
	c.Sniff(l.config)
	l.conns <- c
	return c, nil
}

// serveSniffed serves HTTP/2 by net/http, and returns the server and its connections.
func serveSniffed(t *testing.T, config *Config, handler http.HandlerFunc) (*http.Server, *sniffListener) {
	t.Helper()
	l := listenSniffing(t, config)
	server := &http.Server{Protocols: new(http.Protocols), Handler: handler}
	server.Protocols.SetUnencryptedHTTP2(true)
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() { server.Close(); wg.Wait() })
	return server, l
}

// A framerClient is an HTTP/2 client in whose frames nothing is hidden.
type framerClient struct {
	t *testing.T
	*http2.Framer
}

// dialFramer connects and sends the preface and SETTINGS. With wait, it waits for the
// server's.
func dialFramer(t *testing.T, l net.Listener, wait bool) *framerClient {
	t.Helper()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	c := &framerClient{t, http2.NewFramer(conn, conn)}
	if _, err := conn.Write(opening()); err != nil {
		t.Fatal(err)
	}
	if wait {
		c.until(func(f http2.Frame) bool { s, ok := f.(*http2.SettingsFrame); return ok && s.IsAck() })
	}
	return c
}

// until reads up to the frame that found says yes to.
func (c *framerClient) until(found func(http2.Frame) bool) http2.Frame {
	c.t.Helper()
	for {
		f, err := c.ReadFrame()
		if err != nil {
			c.t.Fatal(err)
		}
		if s, ok := f.(*http2.SettingsFrame); ok && !s.IsAck() {
			_ = c.WriteSettingsAck()
		}
		if found(f) {
			return f
		}
	}
}

func (c *framerClient) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// get makes a request that has ended.
func (c *framerClient) get(stream uint32) {
	c.t.Helper()
	c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndStream: true, EndHeaders: true, BlockFragment: wiretest.HeaderBlock(wiretest.GetFields()...)}))
}

// served reads up to the end of the response on stream.
func (c *framerClient) served(stream uint32) {
	c.t.Helper()
	c.until(func(f http2.Frame) bool {
		return f.Header().StreamID == stream && f.Header().Flags.Has(http2.FlagDataEndStream) && f.Header().Type != http2.FrameRSTStream
	})
}

// A goAwaySeen is what a GOAWAY says.
type goAwaySeen struct {
	Last  uint32
	Code  http2.ErrCode
	Debug string
}

func (c *framerClient) wantGoAway(want goAwaySeen) {
	c.t.Helper()
	f := c.until(func(f http2.Frame) bool { return f.Header().Type == http2.FrameGoAway }).(*http2.GoAwayFrame)
	if diff := cmp.Diff(want, goAwaySeen{f.LastStreamID, f.ErrCode, string(f.DebugData())}); diff != "" {
		c.t.Errorf("GOAWAY (-want +got):\n%s", diff)
	}
}

// wantEnd reads up to the end of the connection, before which no GOAWAY may come.
func (c *framerClient) wantEnd() {
	c.t.Helper()
	for {
		f, err := c.ReadFrame()
		if errors.Is(err, io.EOF) {
			return
		}
		c.must(err)
		if f.Header().Type == http2.FrameGoAway {
			c.t.Errorf("another GOAWAY: %v", f)
		}
	}
}

// TestGoAwayOfHTTP2Server: a stream that the client sends before it has read the first
// GOAWAY is served, which net/http's own would not do, and that one is not seen any more.
func TestGoAwayOfHTTP2Server(t *testing.T) {
	t.Parallel()
	for _, wait := range []bool{false, true} {
		config := testConfig()
		server, l := serveSniffed(t, config, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "served") })
		c := dialFramer(t, l, wait)
		c.get(1)
		c.served(1)
		conn := <-l.conns

		conn.GoAway()
		c.get(3) // It is on its way.
		c.wantGoAway(goAwaySeen{Last: 1<<31 - 1})
		c.served(3)
		told(t, conn, true, false)
		ping := c.until(func(f http2.Frame) bool { return f.Header().Type == http2.FramePing }).(*http2.PingFrame)
		if ping.IsAck() || string(ping.Data[:]) != "muxserve" {
			t.Errorf("PING %v", ping)
		}
		told(t, conn, true, false)
		c.must(c.WritePing(true, ping.Data))
		c.must(c.WritePing(false, [8]byte{1}))
		c.until(func(f http2.Frame) bool { return f.Header().Type == http2.FramePing }) // So the server has read the ACK, and not minded.
		told(t, conn, true, true)

		conn.FinalGoAway()
		c.wantGoAway(goAwaySeen{Last: 3})
		ended := make(chan error, 1)
		go func() { ended <- server.Shutdown(t.Context()) }()
		c.wantEnd()
		if err := <-ended; err != nil {
			t.Errorf("shutdown: %v", err)
		}
	}
}

// TestFloodOfResets is the rapid reset of CVE-2023-44487.
func TestFloodOfResets(t *testing.T) {
	config := testConfig()
	config.MaxResetsPerMinute = 20
	flooded := make(chan net.Conn, 1)
	config.Watch = NewWatch(func(string) bool { return true }, nil, func(inner net.Conn) { flooded <- inner }, nil)
	_, l := serveSniffed(t, config, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	c := dialFramer(t, l, true)
	for i := range uint32(22) { // From the first on they are noted.
		c.get(2*i + 1)
		c.must(c.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
	}
	c.wantGoAway(goAwaySeen{Last: 1<<31 - 1})
	conn := <-l.conns
	if <-flooded != conn.NetConn() {
		t.Error("another connection is said to have flooded")
	}
	conn.Close()
}

// A rpcStream is an open call that echoes.
type rpcStream struct {
	t *testing.T
	grpc.ClientStream
}

// open opens a call on cc.
func openRPC(ctx context.Context, t *testing.T, cc *grpc.ClientConn) *rpcStream {
	t.Helper()
	desc := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	s, err := cc.NewStream(ctx, desc, "/any.Service/Echo", grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	return &rpcStream{t, s}
}

// echo makes one round trip.
func (s *rpcStream) echo(text string) {
	s.t.Helper()
	if err := s.SendMsg(wrapperspb.String(text)); err != nil {
		s.t.Fatalf("send %s: %v", text, err)
	}
	got := new(wrapperspb.StringValue)
	if err := s.RecvMsg(got); err != nil {
		s.t.Fatalf("receive %s: %v", text, err)
	}
	if got.GetValue() != text {
		s.t.Errorf("echo %q, want %q", got.GetValue(), text)
	}
}

// finish ends the call properly.
func (s *rpcStream) finish() {
	s.t.Helper()
	if err := s.CloseSend(); err != nil {
		s.t.Error(err)
	}
	if err := s.RecvMsg(new(wrapperspb.StringValue)); !errors.Is(err, io.EOF) {
		s.t.Errorf("end of the call: %v, want %v", err, io.EOF)
	}
}

// TestGoAwayOfGRPCServer: with grpc-go on both sides the call goes on, the next one has a
// new connection, and the server's own way to leave does not disturb either.
func TestGoAwayOfGRPCServer(t *testing.T) {
	l := listenSniffing(t, testConfig())
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		for {
			message := new(wrapperspb.StringValue)
			if err := stream.RecvMsg(message); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if err := stream.SendMsg(message); err != nil {
				return err
			}
		}
	}))
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(l) })
	defer wg.Wait()
	defer server.Stop()
	cc, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()

	first := openRPC(ctx, t, cc)
	first.echo("one")
	conn := <-l.conns
	if p := conn.Verdict().Protocol; p != protocols.GRPC {
		t.Fatalf("the connection is %q, want %q", p, protocols.GRPC)
	}
	conn.GoAway()
	for acked := false; !acked; _, acked = conn.GoneAway() { // The PING comes later.
		first.echo("two")
	}
	told(t, conn, true, true)

	second := openRPC(ctx, t, cc)
	second.echo("new")
	if other := <-l.conns; other == conn {
		t.Error("the next call did not get a new connection")
	}
	conn.FinalGoAway()
	first.echo("four")

	var stopped sync.WaitGroup
	stopped.Go(server.GracefulStop)
	for range 20 {
		first.echo("while stopping")
		second.echo("while stopping")
	}
	first.finish()
	second.finish()
	stopped.Wait()
}
