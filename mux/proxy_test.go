package mux_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"github.com/pires/go-proxyproto"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/peer"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
)

// proxyHeader returns the PROXY header of a client that has connected to
// 198.51.100.1:443.
func proxyHeader(t *testing.T, version byte, client string) string {
	t.Helper()
	source, err := net.ResolveTCPAddr("tcp", client)
	if err != nil {
		t.Fatal(err)
	}
	b, err := proxyproto.HeaderProxyFromAddrs(version, source, &net.TCPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 443}).Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// behindHeader is a client's connection whose first write begins with a header, in one
// segment.
type behindHeader struct {
	net.Conn
	header string
}

func (c *behindHeader) Write(p []byte) (int, error) {
	if c.header == "" {
		return c.Conn.Write(p)
	}
	n, err := io.WriteString(c.Conn, c.header+string(p))
	n -= len(c.header)
	c.header = ""
	return max(n, 0), err
}

// via dials the server as a balancer that sends header.
func (s *server) via(header string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.addr)
		return &behindHeader{conn, header}, err
	}
}

// clientVia is client behind a header.
func (s *server) clientVia(t *testing.T, version int, header string) *http.Client {
	t.Helper()
	c := s.client(t, version)
	c.Transport.(*http.Transport).DialContext = s.via(header)
	return c
}

func behindProxy(mode string, trusted ...string) listeners.Config {
	return listeners.Config{ProxyProtocol: listeners.ProxyConfig{Mode: mode, Trusted: trusted}}
}

// peerService answers a call with the addresses that it sees.
type peerService struct {
	testpb.UnimplementedTestServiceServer
}

func (peerService) UnaryCall(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	p, _ := peer.FromContext(ctx)
	info, _ := mux.ConnOf(ctx)
	return &testpb.SimpleResponse{Username: fmt.Sprint(info.Protocol, " ", p.Addr, " ", info.RemoteAddr)}, nil
}

// showPeer answers a request with the addresses that it sees.
func showPeer(w http.ResponseWriter, r *http.Request) {
	info, _ := mux.ConnOf(r.Context())
	fmt.Fprint(w, info.Protocol, " ", r.RemoteAddr, " ", info.RemoteAddr, " ", r.Context().Value(http.LocalAddrContextKey))
}

// peerRoutes show addresses over HTTP and WebSocket.
func peerRoutes() http.Handler {
	routes := http.NewServeMux()
	routes.HandleFunc("/peer", showPeer)
	routes.Handle("/ws", mux.WebSocket(func(ctx context.Context, c *websocket.Conn, r *http.Request) error {
		info, _ := mux.ConnOf(ctx)
		return c.Write(ctx, websocket.MessageText, fmt.Append(nil, info.Protocol, " ", r.RemoteAddr, " ", info.RemoteAddr))
	}))
	return routes
}

// TestProxyIdentity (PARITY 59): behind a trusted balancer, every protocol shows the
// client of the header, in plaintext and with TLS, with both header versions.
func TestProxyIdentity(t *testing.T) {
	for _, withTLS := range []bool{false, true} {
		for _, version := range []byte{1, 2} {
			t.Run(fmt.Sprintf("tls %t, version %d", withTLS, version), func(t *testing.T) {
				s := startOn(t, withTLS, []listeners.Config{behindProxy(listeners.ProxyRequired, "127.0.0.0/8")},
					mux.WithHandler(peerRoutes()),
					mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, peerService{}) }))[0]
				checkPeers(t, s, version)
			})
		}
	}
}

func checkPeers(t *testing.T, s *server, version byte) {
	t.Helper()
	const client, local = "192.0.2.7:1234", "198.51.100.1:443"
	header := proxyHeader(t, version, client)
	check := func(what, want, got string) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	for version, protocol := range map[int]string{1: "http1", 2: "http2"} {
		body := bodyOf(t, s.clientVia(t, version, header), s.scheme()+"://"+s.addr+"/peer")
		check(protocol, strings.Join([]string{protocol, client, client, local}, " "), body)
	}
	ws, _, err := websocket.Dial(t.Context(), strings.Replace(s.scheme(), "http", "ws", 1)+"://"+s.addr+"/ws",
		&websocket.DialOptions{HTTPClient: s.clientVia(t, 1, header)})
	if err != nil {
		t.Fatal(err)
	}
	_, message, err := ws.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	check("WebSocket", "websocket "+client+" "+client, string(message))
	_ = ws.CloseNow()
	for protocol, options := range map[string][]grpc.DialOption{
		"grpc":  nil,
		"http2": {grpc.WithUnaryInterceptor(viaProxy)},
	} {
		cc := s.grpcClient(t, append(options, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return s.via(header)(ctx, "", "")
		}))...)
		for range 20 { // Several requests, so that the server reads on behind the first bytes.
			resp, err := testpb.NewTestServiceClient(cc).UnaryCall(t.Context(), &testpb.SimpleRequest{
				Payload: &testpb.Payload{Body: make([]byte, 10_000)},
			})
			if err != nil {
				t.Fatal(err)
			}
			check("gRPC on "+protocol, protocol+" "+client+" "+client, resp.GetUsername())
		}
	}
	for _, info := range s.Connections() {
		check("list of connections", client+" "+local, info.RemoteAddr+" "+info.LocalAddr)
	}
}

// bodyOf returns the body of a response.
func bodyOf(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const plainRequest = "GET /peer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

// TestProxyRefused: a connection with a spoofed, broken, missing or slow header is closed
// and counted before a server or the client gets a byte. A connection without a byte
// counts as silent.
func TestProxyRefused(t *testing.T) {
	header := proxyHeader(t, 1, "192.0.2.7:1234")
	tests := []struct {
		name    string
		mode    string
		trusted string
		sent    string
		half    bool // The client closes its side, so that the wait for more is short.
		reason  string
	}{
		{"untrusted", listeners.ProxyRequired, "10.0.0.0/8", header + plainRequest, false, "proxy_header"},
		{"untrusted, without a header", listeners.ProxyRequired, "10.0.0.0/8", plainRequest, false, "proxy_header"},
		{"spoofed", listeners.ProxyOptional, "10.0.0.0/8", header + plainRequest, false, "proxy_header"},
		{"missing", listeners.ProxyRequired, "127.0.0.1", plainRequest, false, "proxy_header"},
		{"broken", listeners.ProxyRequired, "127.0.0.1", "PROXY TCP4 me you 1 2\r\n" + plainRequest, false, "proxy_header"},
		{"broken, optional", listeners.ProxyOptional, "127.0.0.1", "PROXY TCP4 me you 1 2\r\n" + plainRequest, false, "proxy_header"},
		{"slow", listeners.ProxyRequired, "127.0.0.1", header[:10], false, "proxy_header"},
		{"cut short", listeners.ProxyOptional, "127.0.0.1", header[:10], true, "proxy_header"},
		{"silent", listeners.ProxyRequired, "127.0.0.1", "", true, "silent"},
		{"silent for long", listeners.ProxyOptional, "127.0.0.1", "", false, "silent"},
		{"silent behind a header", listeners.ProxyRequired, "127.0.0.1", header, true, "silent"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request was served") })
			s := startOn(t, false, []listeners.Config{behindProxy(tt.mode, tt.trusted)}, mux.WithHandler(handler))[0]
			conn := s.dial(t)
			send(t, conn, tt.sent)
			if tt.half {
				_ = conn.(*net.TCPConn).CloseWrite()
			}
			if got, _ := io.ReadAll(conn); len(got) > 0 {
				t.Errorf("the client got %q", got)
			}
			eventually(t, "counted", func() bool { return s.rejected("sniffing", tt.reason) == 1 })
			want := map[string]map[string]uint64{"sniffing": {tt.reason: 1}}
			if diff := cmp.Diff(want, s.Stats().Rejected); diff != "" {
				t.Errorf("rejected (-want +got):\n%s", diff)
			}
		})
	}
}

// TestProxyWithoutHeader: where no header comes, or one that speaks for the balancer
// itself, the address is the socket's.
func TestProxyWithoutHeader(t *testing.T) {
	for _, tt := range []struct{ name, trusted, header string }{
		{"trusted", "127.0.0.1", ""},
		{"not trusted", "10.0.0.0/8", ""},
		{"unknown", "127.0.0.1", "PROXY UNKNOWN\r\n"},
		{"local", "127.0.0.1", "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := startOn(t, false, []listeners.Config{behindProxy(listeners.ProxyOptional, tt.trusted)}, mux.WithHandler(peerRoutes()))[0]
			conn := s.dial(t)
			resp := roundTrip(t, conn, bufio.NewReader(conn), tt.header+plainRequest)
			b, _ := io.ReadAll(resp.Body)
			own := conn.LocalAddr().String()
			if diff := cmp.Diff("http1 "+own+" "+own+" "+s.addr, string(b)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestProxySilentClient: a client that does not send its header delays no other.
func TestProxySilentClient(t *testing.T) {
	s := startOn(t, false, []listeners.Config{behindProxy(listeners.ProxyRequired, "127.0.0.1")}, mux.WithHandler(peerRoutes()))[0]
	started := time.Now()
	for range 5 {
		s.dial(t)
	}
	bodyOf(t, s.clientVia(t, 1, proxyHeader(t, 2, "[2001:db8::1]:1")), "http://"+s.addr+"/peer")
	if waited := time.Since(started); waited > 2*time.Second {
		t.Errorf("the next client waited %v", waited)
	}
	for _, info := range s.Connections() {
		if info.Protocol == "sniffing" && info.RemoteAddr != "" {
			t.Errorf("the address %s is shown before it is known", info.RemoteAddr)
		}
	}
}

// TestProxyAddressLimit (PARITY 79): the limit counts clients, not balancers.
func TestProxyAddressLimit(t *testing.T) {
	s := startOn(t, false, []listeners.Config{behindProxy(listeners.ProxyRequired, "127.0.0.1")},
		limits(func(c *mux.Config) { c.Limits.PerAddress = 1 }))[0]
	status := func(client string) int {
		conn := s.dial(t)
		header := proxyHeader(t, 1, client)
		return roundTrip(t, conn, bufio.NewReader(conn), header+"GET /busy HTTP/1.1\r\nHost: x\r\n\r\n").StatusCode
	}
	for _, tt := range []struct {
		client string
		want   int
	}{
		{"192.0.2.1:1", http.StatusOK},
		{"192.0.2.1:2", http.StatusServiceUnavailable},
		{"192.0.2.2:1", http.StatusOK},
		{"[2001:db8::1]:1", http.StatusOK},
		{"[2001:db8::2]:1", http.StatusServiceUnavailable}, // The same network of 64 bits.
	} {
		if got := status(tt.client); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.client, got, tt.want)
		}
	}
	if got := s.rejected("http1", "per_ip_limit"); got != 2 {
		t.Errorf("%d rejected, want 2", got)
	}
}

// TestProxyAddressCrowd: of the connections of one client that the limit keeps out, only some
// are open at a time, also where a PROXY header has to name the client first.
func TestProxyAddressCrowd(t *testing.T) {
	const crowd = 200
	s := startOn(t, false, []listeners.Config{behindProxy(listeners.ProxyRequired, "127.0.0.1")},
		limits(func(c *mux.Config) { c.Limits.PerAddress, c.Sniff.Timeout = 1, time.Minute }))[0]
	header := proxyHeader(t, 1, "192.0.2.1:1")
	busy := s.dial(t)
	roundTrip(t, busy, bufio.NewReader(busy), header+"GET /busy HTTP/1.1\r\nHost: x\r\n\r\n")
	var closed atomic.Int32
	for range crowd {
		conn := s.dial(t)
		_ = conn.SetDeadline(time.Time{})
		send(t, conn, header)
		go func() {
			_, _ = conn.Read(make([]byte, 1))
			closed.Add(1)
		}()
	}
	eventually(t, "most are closed", func() bool { return closed.Load() >= crowd-40 })
	eventually(t, "those are counted", func() bool { return s.rejected("sniffing", "per_ip_limit") == uint64(closed.Load()) })
	conn := s.dial(t)
	if got := roundTrip(t, conn, bufio.NewReader(conn), proxyHeader(t, 1, "192.0.2.2:1")+"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"); got.StatusCode != http.StatusOK {
		t.Errorf("another client gets %s", got.Status)
	}
}

// TestProxyUnix: a Unix socket trusts its peers by name.
func TestProxyUnix(t *testing.T) {
	config := behindProxy(listeners.ProxyRequired, listeners.TrustUnix)
	config.Address = "unix:" + filepath.Join(t.TempDir(), "s")
	s := startOn(t, false, []listeners.Config{config}, mux.WithHandler(peerRoutes()))[0]
	conn, err := net.Dial("unix", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	resp := roundTrip(t, conn, bufio.NewReader(conn), proxyHeader(t, 2, "192.0.2.1:1")+plainRequest)
	if b, _ := io.ReadAll(resp.Body); !strings.HasPrefix(string(b), "http1 192.0.2.1:1 ") {
		t.Errorf("%q", b)
	}
}

// TestProxyListenerOfCaller: an embedder's own listener can have PROXY headers too, with
// the embedder's TLS on top.
func TestProxyListenerOfCaller(t *testing.T) {
	ca := newAuthority(t)
	inner := listen(t)
	l, err := listeners.NewProxyListener(inner, listeners.ProxyConfig{Mode: listeners.ProxyRequired, Trusted: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	m := mux.New(mux.Configure(noDelay), mux.WithHandler(peerRoutes()))
	served := make(chan error, 1)
	go func() {
		served <- m.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "server.test")}}))
	}()
	s := &server{Server: m, addr: inner.Addr().String(), roots: ca.pool}
	c := s.clientVia(t, 1, proxyHeader(t, 1, "192.0.2.1:1"))
	if got := bodyOf(t, c, "https://"+s.addr+"/peer"); !strings.HasPrefix(got, "http1 192.0.2.1:1 192.0.2.1:1 ") {
		t.Errorf("%q", got)
	}
	if resp, err := s.client(t, 1).Get("https://" + s.addr + "/peer"); err == nil {
		t.Errorf("without a header: %s", resp.Status)
	}
	eventually(t, "counted", func() bool { return s.rejected("sniffing", "proxy_header") == 1 })
	c.CloseIdleConnections()
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, mux.ErrServerClosed) {
		t.Errorf("Serve: %v", err)
	}
}

// TestProxyConfigFaults: an impossible configuration fails at the start.
func TestProxyConfigFaults(t *testing.T) {
	config := behindProxy(listeners.ProxyRequired, "10.0.0.0/99")
	config.Address = "127.0.0.1:0"
	config.Protocols = []string{"http1", "http3"}
	err := mux.New(mux.Configure(func(c *mux.Config) { c.Listeners = []listeners.Config{config} })).Listen()
	for _, want := range []string{
		`mux: listeners[0]: `, `listeners: proxy_protocol.trusted: "10.0.0.0/99" is not`,
		`listeners: protocols: unknown "http3"; want some of http1, http2, grpc, websocket`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Listen: %v, want %q", err, want)
		}
	}
}

// TestProxyInfo: the handler gets what the header says besides the address, and nothing
// without a header.
func TestProxyInfo(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, _ := mux.ConnOf(r.Context())
		if info.Proxy == nil {
			_, _ = io.WriteString(w, "none")
			return
		}
		_, _ = io.WriteString(w, info.Proxy.VPCEndpointID)
	})
	const endpoint = "vpce-08d2bf15fac5001c9"
	// Version 2, PROXY, TCP over IPv4 (sections 2.2 and 2.2.7 of the specification), and
	// AWS's own TLV, 0xEA with subtype 1.
	tlv := "\xEA\x00" + string(rune(len(endpoint)+1)) + "\x01" + endpoint
	header := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00" + string(rune(12+len(tlv))) + "\xC0\x00\x02\x07\x7F\x00\x00\x01\x04\xD2\x01\xBB" + tlv
	s := startOn(t, false, []listeners.Config{behindProxy(listeners.ProxyRequired, "127.0.0.0/8")}, mux.WithHandler(handler))[0]
	if got := bodyOf(t, s.clientVia(t, 1, header), "http://"+s.addr+"/"); got != endpoint {
		t.Errorf("endpoint %q, want %q", got, endpoint)
	}
	plain := start(t, false, mux.WithHandler(handler))
	if got := bodyOf(t, plain.client(t, 1), "http://"+plain.addr+"/"); got != "none" {
		t.Errorf("without a header: %q", got)
	}
}
