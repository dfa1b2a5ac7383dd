package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/testdata/clients/selfsigned"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// counted is a listener that counts what it accepts.
type counted struct {
	net.Listener

	accepted atomic.Int64
}

// Accept implements [net.Listener].
func (l *counted) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return conn, err
}

type echo struct {
	demov1.UnimplementedEchoServer
}

// ServerStream sends a message and holds its connection until the client goes: an idle one
// would make room.
func (echo) ServerStream(r *demov1.EchoRequest, s demov1.Echo_ServerStreamServer) error {
	if err := s.Send(&demov1.EchoResponse{Message: r.GetMessage()}); err != nil {
		return err
	}
	<-s.Context().Done()
	return nil
}

// hold does the same for a request.
func hold(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

func (echo) Unary(_ context.Context, r *demov1.EchoRequest) (*demov1.EchoResponse, error) {
	return &demov1.EchoResponse{Message: r.GetMessage()}, nil
}

// startFull serves in this process, so that its listener can count.
func startFull(t *testing.T, options ...mux.Option) *counted {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &counted{Listener: l}
	s := mux.New(append(options,
		mux.WithLogger(slog.New(slog.DiscardHandler)),
		mux.WithHandler(http.HandlerFunc(hold)),
		mux.WithGRPC(func(r mux.GRPCRegistrar) { demov1.RegisterEchoServer(r, echo{}) }))...)
	served := make(chan error, 1)
	go func() { served <- s.Serve(c) }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-served; !errors.Is(err, mux.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	return c
}

// holdHTTP takes the one place of a server for all protocols, until release is called.
func holdHTTP(t *testing.T, addr string) (release func()) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("the connection that holds the place: %v, %v", resp, err)
	}
	return func() { _ = conn.Close() }
}

// holdGRPC takes the one place for gRPC, until release is called.
func holdGRPC(t *testing.T, addr string) (release func()) {
	t.Helper()
	conn := dialGRPC(t, addr)
	stream, err := demov1.NewEchoClient(conn).ServerStream(t.Context(), &demov1.EchoRequest{}, grpc.WaitForReady(true))
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		t.Fatalf("the connection that holds the place: %v", err)
	}
	return func() { _ = conn.Close() }
}

const (
	// fullTime is how long a server is full.
	fullTime = 10 * time.Second
	// freeTime is how long a client may take to find out that there is room: its
	// sixth wait is 1 s x 1.6^5, and up to a fifth more (gRPC Connection Backoff Protocol).
	freeTime = 30 * time.Second
)

// fullServer is one way for a server to be full.
type fullServer struct {
	name      string
	configure func(*mux.Config)
	hold      func(t *testing.T, addr string) (release func())
	// most is how many connections a client may open in fullTime.
	most int64
	// code is what calls end with that wait for a connection.
	code codes.Code
}

// fullServers tell by how a client learns that there is no room. Where it finds no
// server, it backs off: it connects at 0 s and about 1, 2.6, 5.2 and 9.3 s, or a fifth earlier.
// Where it finds one that answers its calls UNAVAILABLE, it keeps the connection for the
// second after which that says GOAWAY, however often it calls.
var fullServers = []fullServer{
	{"no room", func(c *mux.Config) { c.Limits.MaxConnections = 1 }, holdHTTP, 6, codes.DeadlineExceeded},
	{"no room for gRPC", func(c *mux.Config) { c.GRPC.MaxConnections = 1 }, holdGRPC, 12, codes.Unavailable},
}

// TestBackoff: clients of a full server do not reconnect in a loop, learn that it is
// UNAVAILABLE, and are served on the same channel as soon as there is room.
func TestBackoff(t *testing.T) {
	callers := map[string]func(*testing.T, string) caller{"grpc-go": newGRPCGo, "grpc-js": newGRPCJS}
	for _, full := range fullServers {
		for name, newCaller := range callers {
			t.Run(name+", "+full.name, func(t *testing.T) {
				t.Parallel()
				full.test(t, newCaller)
			})
		}
	}
}

func (f fullServer) test(t *testing.T, newCaller func(*testing.T, string) caller) {
	t.Helper()
	l := startFull(t, mux.Configure(f.configure))
	release := f.hold(t, l.Addr().String())
	before := l.accepted.Load()
	call := newCaller(t, l.Addr().String())

	got := call(t, order{Deadline: fullTime})
	if diff := cmp.Diff(map[codes.Code]int{codes.Unavailable: 1}, got); diff != "" {
		t.Errorf("a call that does not wait (-want +got):\n%s", diff)
	}
	got = call(t, order{Wait: true, Repeat: fullTime})
	if f.code != codes.DeadlineExceeded && got[codes.DeadlineExceeded] == 1 {
		// The time was up while the last call waited for the next connection.
		delete(got, codes.DeadlineExceeded)
	}
	if got[f.code] == 0 || len(got) != 1 {
		t.Errorf("calls that wait: %v, want %v alone", got, f.code)
	}
	connections := l.accepted.Load() - before
	t.Logf("%d connections in %v, calls that waited: %v", connections, fullTime, got)
	if connections > f.most {
		t.Errorf("%d connections in %v, want at most %d", connections, fullTime, f.most)
	}
	release()
	got = call(t, order{Wait: true, Deadline: freeTime})
	for deadline := time.Now().Add(freeTime); got[codes.Unavailable] > 0 && time.Now().Before(deadline); {
		// The server has not seen the holder go, or the connection is still the refused one.
		got = call(t, order{Wait: true, Deadline: freeTime})
	}
	if diff := cmp.Diff(map[codes.Code]int{codes.OK: 1}, got); diff != "" {
		t.Errorf("a call when there is room (-want +got):\n%s", diff)
	}
}

// TestBrowserAtLimit: a client of HTTP/2 that is not gRPC's is told 503 and when to come back, as one of HTTP/1.1 is.
func TestBrowserAtLimit(t *testing.T) {
	cert, key, err := selfsigned.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	secure := mux.WithTLS(&tls.Config{Certificates: []tls.Certificate{pair}})
	plain := mux.WithTLS(nil)
	tests := []struct {
		name    string
		form    mux.Option
		scheme  string
		version int
		option  string
	}{
		{"HTTP/1.1", plain, "http://", 1, "--http1.1"},
		{"HTTP/2", plain, "http://", 2, "--http2-prior-knowledge"},
		{"HTTP/1.1, TLS", secure, "https://", 1, "--http1.1"},
		{"HTTP/2, TLS", secure, "https://", 2, "--http2"},
	}
	limits := map[string]func(*mux.Config){
		"protocol": func(c *mux.Config) { c.HTTP1.MaxConnections, c.HTTP2.MaxConnections = 1, 1 },
		"total":    func(c *mux.Config) { c.Limits.MaxConnections = 1 },
	}
	for _, tt := range tests {
		for limit, edit := range limits {
			t.Run(tt.name+"/"+limit, func(t *testing.T) {
				l := startFull(t, tt.form, mux.Configure(edit))
				url := tt.scheme + l.Addr().String() + "/other"
				keepBusy(t, tt.scheme+l.Addr().String()+"/hold", tt.version, pair)
				out, err := command(t.Context(), "curl", "--silent", "--show-error", "--noproxy", "*", "--cacert", cert, tt.option,
					"--output", "/dev/null", "--write-out", "%{http_code} %header{retry-after}", url)
				if err != nil {
					t.Fatal(err)
				}
				if status, retryAfter, _ := strings.Cut(out, " "); status != "503" || retryAfter == "" {
					t.Errorf("curl: %q, want 503 and Retry-After", out)
				}
			})
		}
	}
}

// keepBusy makes a request in that version of HTTP that lasts until the end of the test.
func keepBusy(t *testing.T, url string, version int, trusted tls.Certificate) {
	t.Helper()
	p := new(http.Protocols)
	p.SetHTTP1(version == 1)
	p.SetHTTP2(version == 2)
	p.SetUnencryptedHTTP2(version == 2)
	roots := x509.NewCertPool()
	roots.AddCert(trusted.Leaf)
	tr := &http.Transport{Protocols: p, TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(tr.CloseIdleConnections)
	resp, err := (&http.Client{Transport: tr}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
}
