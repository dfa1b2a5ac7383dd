package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
)

// TestEveryProtocol makes requests to the real binary in each protocol, without and with
// TLS.
func TestEveryProtocol(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name      string
		args      []string
		tls       bool
		transport string // of gRPC
		pool      string // of gRPC
	}{
		{"plaintext", nil, false, "native", "grpc"},
		{"TLS", []string{"--tls=self-signed"}, true, "native", "grpc"},
		{"gRPC on the shared transport", []string{"--grpc-transport=shared"}, false, "shared", "http2"},
		{"gRPC on the shared transport, TLS", []string{"--grpc-transport=shared", "--tls=self-signed"}, true, "shared", "http2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, append([]string{"--ws-read-limit=2000000"}, tt.args...)...)
			t.Run("HTTP/1.1", func(t *testing.T) { testHTTP(t, p, false, tt.tls) })
			t.Run("HTTP/2", func(t *testing.T) { testHTTP(t, p, true, tt.tls) })
			t.Run("gRPC", func(t *testing.T) { testGRPC(t, p, tt.transport, tt.pool) })
			t.Run("gRPC-Web", func(t *testing.T) { testGRPCWeb(t, p) })
			t.Run("gRPC services", func(t *testing.T) { testGRPCServices(t, p) })
			t.Run("WebSocket", func(t *testing.T) { testWebSocket(t, p) })
			t.Run("probe", func(t *testing.T) { testProbe(t, p) })
			t.Run("admin", func(t *testing.T) { testAdmin(t, p) })
		})
	}
}

func testHTTP(t *testing.T, p *running, http2, secure bool) {
	client := httpClient(t, http2)
	got, err := fetchEcho(t.Context(), client, p.service.JoinPath("echo"), strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	want := answer{Method: "POST", Path: "/echo", Proto: "HTTP/1.1", Protocol: "http1", BodyBytes: 5}
	alpn := "" // net/http offers none if it is to speak HTTP/1.1 alone.
	if http2 {
		want.Proto, want.Protocol, alpn = "HTTP/2.0", "http2", "h2"
	}
	if got.ConnID == 0 {
		t.Error("no conn_id")
	}
	if (got.TLS != nil) != secure {
		t.Errorf("tls %+v", got.TLS)
	} else if secure && (got.TLS.Version != "TLS 1.3" || got.TLS.ALPN != alpn) {
		t.Errorf("tls %+v, want TLS 1.3 and ALPN %q", got.TLS, alpn)
	}
	got.ConnID, got.TLS = 0, nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for path, want := range map[string]int{"": 200, "livez": 200, "readyz": 200, "nothing": 404, "static/": 404} {
		status, _, err := fetch(t.Context(), client, http.MethodGet, p.service.JoinPath(path), nil)
		if err != nil || status != want {
			t.Errorf("/%s answered %d, %v; want %d", path, status, err, want)
		}
	}
}

func testGRPC(t *testing.T, p *running, transport, pool string) {
	client := demov1.NewEchoClient(p.dialGRPC(t))
	ctx := t.Context()
	check := func(r *demov1.EchoResponse, err error, sequence uint64) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if r.GetMessage() != "m" || r.GetSequence() != sequence || r.GetTransport() != transport || r.GetProtocol() != pool || r.GetConnId() == 0 {
			t.Errorf("got %v, want number %d by %s", r, sequence, transport)
		}
	}
	end := func(_ *demov1.EchoResponse, err error) {
		t.Helper()
		if !errors.Is(err, io.EOF) {
			t.Errorf("the stream ended with %v", err)
		}
	}
	r, err := client.Unary(ctx, &demov1.EchoRequest{Message: "m"})
	check(r, err, 1)

	down, err := client.ServerStream(ctx, &demov1.EchoRequest{Message: "m", Repeat: 2})
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(2) {
		r, err := down.Recv()
		check(r, err, i+1)
	}
	end(down.Recv())

	up, err := client.ClientStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := up.Send(&demov1.EchoRequest{Message: "m"}); err != nil {
			t.Fatal(err)
		}
	}
	r, err = up.CloseAndRecv()
	check(r, err, 3)

	both, err := client.BidiStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(3) {
		if err := both.Send(&demov1.EchoRequest{Message: "m"}); err != nil {
			t.Fatal(err)
		}
		r, err := both.Recv()
		check(r, err, i+1)
	}
	if err := both.CloseSend(); err != nil {
		t.Fatal(err)
	}
	end(both.Recv())
}

// testGRPCServices calls health and reflection, as balancers and grpcurl do.
// testGRPCWeb calls the echo service as a browser does, over both versions of HTTP.
func testGRPCWeb(t *testing.T, p *running) {
	for pool, http2 := range map[string]bool{"http1": false, "http2": true} {
		check := func(r *demov1.EchoResponse, sequence uint64) {
			t.Helper()
			if r.GetMessage() != "m" || r.GetSequence() != sequence || r.GetTransport() != "web" || r.GetProtocol() != pool || r.GetConnId() == 0 {
				t.Errorf("got %v, want number %d over %s", r, sequence, pool)
			}
		}
		unary, err := p.webClient(t, http2, demov1.Echo_Unary_FullMethodName).CallUnary(t.Context(),
			connect.NewRequest(&demov1.EchoRequest{Message: "m"}))
		if err != nil {
			t.Fatal(err)
		}
		check(unary.Msg, 1)
		stream, err := p.webClient(t, http2, demov1.Echo_ServerStream_FullMethodName).CallServerStream(t.Context(),
			connect.NewRequest(&demov1.EchoRequest{Message: "m", Repeat: 2}))
		if err != nil {
			t.Fatal(err)
		}
		received := uint64(0)
		for stream.Receive() {
			received++
			check(stream.Msg(), received)
		}
		if stream.Err() != nil || received != 2 {
			t.Errorf("%d responses, then %v", received, stream.Err())
		}
		_ = stream.Close()
	}
}

func testGRPCServices(t *testing.T, p *running) {
	conn := p.dialGRPC(t)
	health, err := healthpb.NewHealthClient(conn).Check(t.Context(), new(healthpb.HealthCheckRequest))
	if err != nil || health.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", health, err)
	}
	const echoService = "muxserve.demo.v1.Echo"
	if names := listServicesV1(t, conn); !slices.Contains(names, echoService) {
		t.Errorf("reflection v1 knows only %q", names)
	}
	testReflectionV1alpha(t, conn, echoService)
}

// testReflectionV1alpha asks as older clients do, which know no other version.
//
//nolint:staticcheck // The version is deprecated, and served all the same.
func testReflectionV1alpha(t *testing.T, conn *grpc.ClientConn, symbol string) {
	t.Helper()
	stream, err := reflectv1alpha.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	request := &reflectv1alpha.ServerReflectionRequest{
		MessageRequest: &reflectv1alpha.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: symbol},
	}
	if err := stream.Send(request); err != nil {
		t.Fatal(err)
	}
	response, err := stream.Recv()
	if err != nil || len(response.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
		t.Errorf("reflection v1alpha: %v, %v", response, err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Error(err)
	}
}

func listServicesV1(t *testing.T, conn *grpc.ClientConn) []string {
	t.Helper()
	stream, err := reflectv1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	request := &reflectv1.ServerReflectionRequest{MessageRequest: &reflectv1.ServerReflectionRequest_ListServices{}}
	if err := stream.Send(request); err != nil {
		t.Fatal(err)
	}
	response, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Error(err)
	}
	var names []string
	for _, s := range response.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	return names
}

func testWebSocket(t *testing.T, p *running) {
	c := p.dialWebSocket(t)
	c.SetReadLimit(-1)
	if err := echoMessage(t.Context(), c, websocket.MessageText, []byte("grüße")); err != nil {
		t.Error(err)
	}
	if err := echoMessage(t.Context(), c, websocket.MessageBinary, bytes.Repeat([]byte{0xff}, 1<<20)); err != nil {
		t.Error(err)
	}
	if err := c.Ping(c.CloseRead(t.Context())); err != nil {
		t.Errorf("ping: %v", err)
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("close: %v", err)
	}

	for want, data := range map[websocket.StatusCode][]byte{
		websocket.StatusInvalidFramePayloadData: []byte("\xff"),
		websocket.StatusMessageTooBig:           make([]byte, 2_000_001),
	} {
		c := p.dialWebSocket(t)
		_ = c.Write(t.Context(), websocket.MessageText, data) // It may be refused half-way.
		if _, _, err := c.Read(t.Context()); websocket.CloseStatus(err) != want {
			t.Errorf("closed with %v, want %v", err, want)
		}
	}
}

func testProbe(t *testing.T, p *running) {
	args := []string{"probe", p.service.Host}
	if p.service.Scheme == "https" {
		args = append(args, "--tls", "--insecure")
	}
	for _, more := range [][]string{nil, {"--path=/livez"}, {"--grpc"}} {
		if got := runCommand(t.Context(), nil, append(args, more...)...); got.code != exitOK {
			t.Errorf("probe %q: %+v", more, got)
		}
	}
	if got := runCommand(t.Context(), nil, append(args, "--grpc", "--service=nothing")...); got.code != exitFailed {
		t.Errorf("probe of an unknown service: %+v", got)
	}
}

func testAdmin(t *testing.T, p *running) {
	client := httpClient(t, false)
	for _, path := range []string{
		"", "livez", "readyz", "health", "metrics", "servers", "connections", "config", "debug/pprof/",
	} {
		if status := p.adminStatus(t, client, path); status != http.StatusOK {
			t.Errorf("/%s answered %d", path, status)
		}
		// The admin pages are not on the service port.
		if path == "" || path == "livez" || path == "readyz" {
			continue
		}
		status, _, err := fetch(t.Context(), client, http.MethodGet, p.service.JoinPath(path), nil)
		if err != nil || status != http.StatusNotFound {
			t.Errorf("/%s on the service port answered %d, %v", path, status, err)
		}
	}
	_, metrics, err := fetch(t.Context(), client, http.MethodGet, p.admin.JoinPath("metrics"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := `mux_phase{phase="serving"} 1`; !bytes.Contains(metrics, []byte(want)) {
		t.Errorf("%s is missing in:\n%s", want, metrics)
	}
}

func TestStaticFilesOverTheBinary(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.txt"), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "--static", dir)
	status, body, err := fetch(t.Context(), httpClient(t, false), http.MethodGet, p.service.JoinPath("static/a.txt"), nil)
	if err != nil || status != http.StatusOK || string(body) != "hello" {
		t.Errorf("%d %q %v", status, body, err)
	}
}

func TestPortFromThePlatform(t *testing.T) {
	t.Parallel()
	p := startWith(t, []string{"PORT=0", "MUXSERVE_ADMIN=127.0.0.1:0"})
	if p.service.Port() == "8080" {
		t.Errorf("it listens on %s", p.service)
	}
	// All addresses, as platforms expect.
	status, _, err := fetch(t.Context(), httpClient(t, false), http.MethodGet, &url.URL{Scheme: "http", Host: "127.0.0.1:" + p.service.Port(), Path: "/livez"}, nil)
	if err != nil || status != http.StatusOK {
		t.Errorf("%d %v", status, err)
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	busy := taken.Addr().String()
	missing := filepath.Join(t.TempDir(), "missing.pem")
	garbage := filepath.Join(t.TempDir(), "garbage.pem")
	if err := os.WriteFile(garbage, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		args   []string
		code   int
		stderr string
	}{
		{"port taken", []string{"--listen", busy, "--admin=off"}, exitFailed, busy},
		{"one of two ports taken", []string{"--listen=127.0.0.1:0", "--listen", busy, "--admin=off"}, exitFailed, busy},
		{"admin port taken", []string{"--listen=127.0.0.1:0", "--admin", busy}, exitFailed, busy},
		{"certificate missing", []string{"--listen=127.0.0.1:0", "--admin=off", "--tls-cert", missing, "--tls-key", missing}, exitFailed, missing},
		{"certificate broken", []string{"--listen=127.0.0.1:0", "--admin=off", "--tls-cert", garbage, "--tls-key", garbage}, exitFailed, garbage},
		{"unknown flag", []string{"--lissten=:0"}, exitUsage, "did you mean --listen?"},
		{"unusable flag", []string{"--ws-read-limit=x"}, exitUsage, "--ws-read-limit"},
		{"check", []string{"check"}, exitOK, ""},
		{"version", []string{"version"}, exitOK, ""},
		{"probe of a closed port", []string{"probe", "--timeout=1s", "127.0.0.1:1"}, exitFailed, "127.0.0.1:1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			code, stderr := runBinary(t, tt.args...)
			if code != tt.code || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("exit code %d and %q, want %d and %q", code, stderr, tt.code, tt.stderr)
			}
			if tt.code == exitFailed && strings.Count(stderr, "\n") != 1 {
				t.Errorf("one line would do:\n%s", stderr)
			}
		})
	}
}
