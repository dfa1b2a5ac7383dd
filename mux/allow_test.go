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
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// only configures a port that serves these protocols.
func only(names ...string) listeners.Config { return listeners.Config{Protocols: names} }

// grpcAttempts is how often a gRPC client may connect before it is served. grpc-go backs
// off only where it cannot connect. Where GOAWAY follows the server's SETTINGS it dials
// again at once, thousands of times.
const grpcAttempts = 3

// attempts tries each protocol with a client that speaks no other one. An empty result
// means that the server served it.
var attempts = map[string]func(t *testing.T, s *server) string{
	"http1": func(t *testing.T, s *server) string { return attemptHTTP(t, s, 1) },
	"http2": func(t *testing.T, s *server) string { return attemptHTTP(t, s, 2) },
	"grpc": func(t *testing.T, s *server) string {
		var dials atomic.Int32
		dial := func(ctx context.Context, addr string) (net.Conn, error) {
			if dials.Add(1) > grpcAttempts {
				return nil, errors.New("refused each time")
			}
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
		_, err := testpb.NewTestServiceClient(s.grpcClient(t, grpc.WithContextDialer(dial))).UnaryCall(t.Context(), &testpb.SimpleRequest{})
		if err != nil {
			return err.Error()
		}
		return ""
	},
	"websocket": func(t *testing.T, s *server) string {
		c, _, err := websocket.Dial(t.Context(), strings.Replace(s.scheme(), "http", "ws", 1)+"://"+s.addr+"/ws",
			&websocket.DialOptions{HTTPClient: s.client(t, 1)})
		if err != nil {
			return err.Error()
		}
		_ = c.CloseNow()
		return ""
	},
}

func attemptHTTP(t *testing.T, s *server, version int) string {
	t.Helper()
	resp, err := s.client(t, version).Get(s.scheme() + "://" + s.addr + "/echo")
	if err != nil {
		return err.Error()
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return resp.Status
	}
	return ""
}

// TestProtocolsPerListener (PARITY 5): one configuration opens several ports with
// different protocols, in plaintext and over TLS. A port refuses and counts the protocols
// that it does not serve.
func TestProtocolsPerListener(t *testing.T) {
	sets := [][]string{{"http1"}, {"http2"}, {"grpc"}, {"websocket"}, {}, {"http1", "grpc"}, {"http2", "websocket"}}
	for _, withTLS := range []bool{false, true} {
		for _, set := range sets {
			t.Run(fmt.Sprintf("tls %t, %v", withTLS, set), func(t *testing.T) {
				t.Parallel()
				// The port under test stands beside others, which must not affect it.
				configs := []listeners.Config{only("http1"), only(set...), only("grpc"), {}}
				s := startOn(t, withTLS, configs)[1]
				for name, attempt := range attempts {
					served := len(set) == 0 || slices.Contains(set, name)
					if refusal := attempt(t, s); (refusal == "") != served {
						t.Errorf("%s: %q, want it served: %t", name, refusal, served)
					}
				}
			})
		}
	}
}

// TestFourPorts: one port for each protocol, and one with TLS that serves all of them.
func TestFourPorts(t *testing.T) {
	all := listeners.Config{TLS: listeners.TLSConfig{Mode: listeners.ModeSelfSigned}}
	ports := startOn(t, false, []listeners.Config{only("http1"), only("http2"), only("grpc"), only("websocket"), all})
	for i, name := range []string{"http1", "http2", "grpc", "websocket"} {
		if refusal := attempts[name](t, ports[i]); refusal != "" {
			t.Errorf("%s on its port: %s", name, refusal)
		}
	}
	conn, err := tls.Dial("tcp", ports[4].addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.ConnectionState().NegotiatedProtocol; got != "h2" {
		t.Errorf("ALPN %q, want h2", got)
	}
	if rejected := ports[0].Stats().Rejected; len(rejected) > 0 {
		t.Errorf("rejected: %v", rejected)
	}
}

// TestALPNOffersWhatIsServed (PARITY 3): a TLS port with HTTP/1.1 switched off does not
// offer HTTP/1.1 in ALPN.
func TestALPNOffersWhatIsServed(t *testing.T) {
	own := func(names ...string) listeners.Config {
		c := only(names...)
		c.TLS.Mode = listeners.ModeSelfSigned
		return c
	}
	configs := []listeners.Config{
		only("http2", "grpc"), only("grpc"), only("http1"), only("websocket"), only("websocket", "grpc"),
		own("http2", "grpc"), own("http1", "websocket"), own(),
	}
	ports := startOn(t, true, configs)
	// The client prefers the first protocol and also has the second.
	for i, want := range []string{"h2", "h2", "http/1.1", "http/1.1", "h2", "h2", "http/1.1", "h2"} {
		conn, err := tls.Dial("tcp", ports[i].addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1", "h2"}})
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.ConnectionState().NegotiatedProtocol; got != want {
			t.Errorf("%v: ALPN %q, want %q", configs[i].Protocols, got, want)
		}
		_ = conn.Close()
	}
	conn := ports[0].dial(t)
	resp := roundTrip(t, conn, bufio.NewReader(conn), "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp.StatusCode != http.StatusHTTPVersionNotSupported {
		t.Errorf("HTTP/1.1 without ALPN: %s", resp.Status)
	}
	_, err := tls.Dial("tcp", ports[2].addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err == nil || !strings.Contains(err.Error(), "no application protocol") {
		t.Errorf("h2 alone to a port without it: %v", err)
	}
}

// TestHTTP1WordsOfRefusal: a refused HTTP/1.1 client is told which protocols the port
// serves.
func TestHTTP1WordsOfRefusal(t *testing.T) {
	tests := []struct {
		name    string
		allowed []string
		request string
		want    int
		upgrade string // in the response
		closed  bool
		text    string
	}{
		{"no HTTP/1.1", []string{"http2", "grpc"}, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n", 505, "", true, "This port serves HTTP/2, gRPC."},
		{"no HTTP/1.1, half a head", []string{"grpc"}, "GET /echo HTTP/1.1\r\n", 505, "", true, "This port serves gRPC."},
		{"no HTTP/1.1, handshake", []string{"http2"}, handshake, 505, "", true, "This port serves HTTP/2."},
		{"WebSocket alone", []string{"websocket"}, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", 426, "websocket", false, "This port serves WebSocket."},
		{"no WebSocket", []string{"http1"}, handshake, 403, "", false, "This port does not serve WebSocket."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := startOn(t, false, []listeners.Config{only(tt.allowed...)})[0]
			conn := s.dial(t)
			resp := roundTrip(t, conn, bufio.NewReader(conn), tt.request)
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.want || resp.Header.Get("Upgrade") != tt.upgrade || resp.Close != tt.closed {
				t.Errorf("%s, close %t, %v", resp.Status, resp.Close, resp.Header)
			}
			if diff := cmp.Diff(tt.text+"\n", string(body)); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
			total := uint64(0)
			for _, reasons := range s.Stats().Rejected {
				total += reasons["no_match"]
			}
			if total != 1 {
				t.Errorf("rejected: %v, want one no_match", s.Stats().Rejected)
			}
		})
	}
}

// TestRefusedRequestGoesOn: after a refused request, the connection serves allowed
// requests. The refusal counts once.
func TestRefusedRequestGoesOn(t *testing.T) {
	ports := startOn(t, false, []listeners.Config{only("websocket"), only("http1")})
	conn := ports[0].dial(t)
	r := bufio.NewReader(conn)
	for range 2 {
		if resp := roundTrip(t, conn, r, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != http.StatusUpgradeRequired {
			t.Errorf("HTTP/1.1: %s", resp.Status)
		} else {
			_, _ = io.Copy(io.Discard, resp.Body)
		}
	}
	if resp := roundTrip(t, conn, r, handshake); resp.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("handshake: %s", resp.Status)
	}
	conn = ports[1].dial(t)
	r = bufio.NewReader(conn)
	if resp := roundTrip(t, conn, r, handshake); resp.StatusCode != http.StatusForbidden {
		t.Errorf("handshake: %s", resp.Status)
	} else {
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	if resp := roundTrip(t, conn, r, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != http.StatusOK || resp.Header.Get("X-Protocol") != "http1" {
		t.Errorf("request after it: %s %v", resp.Status, resp.Header)
	}
	if got := ports[0].rejected("http1", "no_match"); got != 2 {
		t.Errorf("%d rejected, want one for each connection", got)
	}
}

// TestHTTP2WordsOfRefusal: a refused HTTP/2 client gets SETTINGS and HTTP_1_1_REQUIRED,
// whether it waits for SETTINGS or not.
func TestHTTP2WordsOfRefusal(t *testing.T) {
	for _, withTLS := range []bool{false, true} {
		ports := startOn(t, withTLS, []listeners.Config{only("http1"), only("grpc", "websocket")})
		for _, s := range ports {
			for _, waits := range []bool{false, true} {
				c := greet(t, s, waits)
				if code := c.goneAway(); code != http2.ErrCodeHTTP11Required || c.goAway.LastStreamID != 0 || c.settings == nil {
					t.Errorf("tls %t, waits %t: GOAWAY %v, last stream %d", withTLS, waits, code, c.goAway.LastStreamID)
				}
				if _, err := c.ReadFrame(); err != io.EOF {
					t.Errorf("tls %t, waits %t: %v behind GOAWAY", withTLS, waits, err)
				}
			}
		}
		if got := ports[0].rejected("http2", "no_match"); got != 4 {
			t.Errorf("tls %t: %d rejected, want 4", withTLS, got)
		}
	}
}

// greet opens HTTP/2 with a GET, which can wait for the server's SETTINGS.
func greet(t *testing.T, s *server, waits bool) *h2Client {
	t.Helper()
	conn := s.dial(t) // Without ALPN, which would not agree on h2.
	c := newH2Client(t, conn, conn)
	if waits {
		for c.settings == nil && c.goAway == nil {
			c.step()
		}
	}
	if c.goAway == nil {
		c.get(1, "/echo")
	}
	return c
}

// TestGRPCIsARequest: on a port without gRPC, the handler gets a gRPC call like any other
// request.
func TestGRPCIsARequest(t *testing.T) {
	s := startOn(t, false, []listeners.Config{only("http2")})[0]
	resp, err := s.client(t, 2).Post("http://"+s.addr+"/echo", "application/grpc", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); string(b) != "body" || resp.Header.Get("X-Protocol") != "http2" {
		t.Errorf("%s %q %v", resp.Status, b, resp.Header)
	}
}

// TestGRPCWithoutHTTP2: a port with gRPC alone serves calls through a proxy, also with
// the shared transport.
func TestGRPCWithoutHTTP2(t *testing.T) {
	for _, transport := range []string{"auto", "native", "shared"} {
		s := startOn(t, false, []listeners.Config{only("grpc")}, mux.Configure(func(c *mux.Config) {
			c.GRPC.Transport = protocols.GRPCTransport(transport)
		}))[0]
		for _, via := range []bool{false, true} {
			client := testpb.NewTestServiceClient(s.grpcClient(t))
			ctx := t.Context()
			if via {
				ctx = metadata.AppendToOutgoingContext(ctx, "via", "2 proxy")
			}
			resp, err := client.UnaryCall(ctx, &testpb.SimpleRequest{})
			if err != nil || resp.GetUsername() != "grpc" {
				t.Errorf("%s, through a proxy %t: on %q, %v", transport, via, resp.GetUsername(), err)
			}
		}
	}
}

// TestUpgradeH2CNeedsHTTP2: a port without HTTP/2 ignores the h2c upgrade and serves the
// request as HTTP/1.1.
func TestUpgradeH2CNeedsHTTP2(t *testing.T) {
	s := startOn(t, false, []listeners.Config{only("http1")}, mux.Configure(func(c *mux.Config) { c.HTTP2.UpgradeH2C = true }))[0]
	conn := s.dial(t)
	resp := roundTrip(t, conn, bufio.NewReader(conn), "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"+
		"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
	if resp.StatusCode != http.StatusOK || resp.Header.Get("X-Proto") != "HTTP/1.1" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
}

// TestHandshakesAlone: where only WebSockets are served, what a handler answers to a
// handshake is no way to its content. Refusals and redirections pass.
func TestHandshakesAlone(t *testing.T) {
	routes := http.NewServeMux()
	for path, answer := range map[string]http.HandlerFunc{
		"/nothing": func(http.ResponseWriter, *http.Request) {},
		"/file":    func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secret") },
		"/copy":    func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, strings.NewReader("secret")) },
		"/flush": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Set-Cookie", "secret=1")
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, "secret")
		},
		"/unchanged": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", "secret")
			w.WriteHeader(http.StatusNotModified)
		},
		"/missing": http.NotFound,
		"/moved":   http.RedirectHandler("/ws", http.StatusFound).ServeHTTP,
	} {
		routes.HandleFunc(path, answer)
	}
	routes.Handle("/ws", mux.WebSocket(echoWebSocket))
	s := startOn(t, false, []listeners.Config{only("websocket")}, mux.WithHandler(routes))[0]
	for path, want := range map[string]int{
		"/nothing": 426, "/file": 426, "/copy": 426, "/flush": 426, "/unchanged": 426, "/livez": 426,
		"/missing": 404, "/moved": 302, "/ws": 101,
	} {
		conn := s.dial(t)
		r := bufio.NewReader(conn)
		for range 2 { // The connection goes on.
			resp := roundTrip(t, conn, r, strings.Replace(handshake, "/ws", path, 1))
			if resp.StatusCode != want {
				t.Errorf("%s: %s, want %d", path, resp.Status, want)
			}
			if want == http.StatusSwitchingProtocols {
				break
			}
			body, err := io.ReadAll(resp.Body)
			if all := fmt.Sprint(resp.Header, string(body)); err != nil || strings.Contains(all, "secret") {
				t.Errorf("%s: %s, %v", path, all, err)
			}
			if want == http.StatusUpgradeRequired && resp.Header.Get("Upgrade") != "websocket" {
				t.Errorf("%s: %v", path, resp.Header)
			}
		}
	}
}

// foldings are fields that are two tokens of a handshake by Unicode's rules alone.
var foldings = map[string][2]string{
	"long s":         {"Upgrade", "web\u017focket"},
	"Kelvin sign":    {"Upgrade", "websoc\u212aet"},
	"no-break space": {"\u00a0Upgrade", "websocket"},
	"wide space":     {"Upgrade", "websocket\u3000"},
}

// TestNoFoldedHandshake: a handshake by Unicode's rules is none, whatever library a
// handler asks, and whichever protocols the listener serves.
func TestNoFoldedHandshake(t *testing.T) {
	routes := http.NewServeMux()
	routes.Handle("/ws", mux.WebSocket(echoWebSocket))
	routes.HandleFunc("/own", func(w http.ResponseWriter, r *http.Request) {
		if c, err := websocket.Accept(w, r, nil); err == nil {
			_ = c.CloseNow()
		}
	})
	ports := startOn(t, false, []listeners.Config{only("http1"), only("websocket"), only()}, mux.WithHandler(routes))
	for _, s := range ports {
		for name, fields := range foldings {
			for _, path := range []string{"/ws", "/own"} {
				conn := s.dial(t)
				request := strings.NewReplacer("/ws", path, "Connection: Upgrade", "Connection: "+fields[0], "Upgrade: websocket", "Upgrade: "+fields[1]).Replace(handshake)
				if resp := roundTrip(t, conn, bufio.NewReader(conn), request); resp.StatusCode != http.StatusUpgradeRequired {
					t.Errorf("%s, %s: %s", name, path, resp.Status)
				}
			}
		}
	}
	if n := ports[0].Stats().Requests["websocket"].Total; n != 0 {
		t.Errorf("%d WebSockets", n)
	}
}

// TestServersByAddress: each server is shown with the addresses that serve its protocol.
func TestServersByAddress(t *testing.T) {
	all := startOn(t, false, []mux.ListenerConfig{{Protocols: []string{"http1"}}, {Protocols: []string{"http1", "http2"}}})
	one, both := all[0].addr, all[1].addr
	eventually(t, "both listeners are served", func() bool { return len(all[0].Servers()[0].Addresses) == 2 })
	want := map[string][]string{"http1": {one, both}, "http2": {both}, "grpc": nil, "websocket": nil}
	for _, info := range all[0].Servers() {
		if diff := cmp.Diff(want[info.Protocol], info.Addresses); diff != "" {
			t.Errorf("%s (-want +got):\n%s", info.Protocol, diff)
		}
		status := "serving"
		if len(info.Addresses) == 0 {
			status = "not_served"
		}
		if of, ok := all[0].ServerOf(info.Protocol); info.Status != status || !ok || of.Status != status {
			t.Errorf("%s is %s, by ServerOf %s, want %s", info.Protocol, info.Status, of.Status, status)
		}
	}
}
