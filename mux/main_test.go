package mux_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"flag"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/coder/websocket"

	"github.com/muxserve/muxserve/mux"
)

// atOnce is the default of -parallel here. Tests wait most of the time, so more of them
// than processors run at once.
const atOnce = "8"

func TestMain(m *testing.M) {
	mux.PanicOnInvalidTransition()
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		if err := f.Value.Set(atOnce); err != nil {
			panic(err)
		}
	}
	// net/http alone waits there for its clients, beside the end of the test.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// authority issues certificates for tests. It is ECDSA throughout, because
// hundreds of RSA handshakes under the race detector take their time.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "test authority"},
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{cert, key, pool}
}

// issue returns a certificate for a server on 127.0.0.1 or a client called name.
func (a *authority) issue(t *testing.T, name string, uris ...*url.URL) tls.Certificate {
	t.Helper()
	return a.issueUntil(t, name, time.Now().Add(time.Hour), uris...)
}

func (a *authority) issueUntil(t *testing.T, name string, end time.Time, uris ...*url.URL) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: name},
		NotAfter:     end,
		DNSNames:     []string{name},
		URIs:         uris,
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// server is a mux.Server under test.
type server struct {
	*mux.Server
	addr  string
	roots *x509.CertPool // nil: plaintext
}

// noDelay makes a drain end as soon as the clients allow.
func noDelay(c *mux.Config) {
	c.Drain.Delay = 0
	c.Drain.Spread = 0
}

// newServer returns a server with the test handlers, and options on top.
func newServer(t *testing.T, withTLS bool, options ...mux.Option) (*mux.Server, *x509.CertPool) {
	t.Helper()
	options = append([]mux.Option{
		mux.Configure(noDelay),
		mux.WithHandler(routes()),
		mux.WithLogger(slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))),
	}, options...)
	options = append(options, mux.WithGRPC(func(r mux.GRPCRegistrar) {
		if _, ok := r.GetServiceInfo()[testpb.TestService_ServiceDesc.ServiceName]; !ok {
			testpb.RegisterTestServiceServer(r, testService{})
		}
	}))
	if !withTLS {
		return mux.New(options...), nil
	}
	ca := newAuthority(t)
	options = append(options, mux.WithTLS(&tls.Config{Certificates: []tls.Certificate{ca.issue(t, "server.test")}}))
	return mux.New(options...), ca.pool
}

// start serves the test handlers, with options on top, on a loopback port. The server is
// closed at the end of the test, and no connection may be left then.
func start(t *testing.T, withTLS bool, options ...mux.Option) *server {
	t.Helper()
	m, roots := newServer(t, withTLS, options...)
	s := serve(t, m)
	s.roots = roots
	return s
}

// serve serves m on a loopback port until the end of the test.
func serve(t *testing.T, m *mux.Server) *server {
	t.Helper()
	l := listen(t)
	serveToEnd(t, m, func() error { return m.Serve(l) })
	return &server{Server: m, addr: l.Addr().String()}
}

// serveToEnd runs run, which serves, and closes the server at the end of the test.
func serveToEnd(t *testing.T, m *mux.Server, run func() error) {
	t.Helper()
	served := make(chan error, 1)
	go func() { served <- run() }()
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-served; err == nil {
			t.Error("the server returned nil")
		}
		(&server{Server: m}).noneLeft(t)
	})
}

// testWriter logs to the test until it ends.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Logf("%s", p)
	}
	return len(p), nil
}

// routes are the test server's HTTP handlers.
func routes() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Method", r.Method)
		w.Header().Set("X-Proto", r.Proto)
		if info, ok := mux.ConnOf(r.Context()); ok {
			w.Header().Set("X-Protocol", info.Protocol)
		}
		if r.TLS != nil {
			w.Header().Set("X-TLS", tls.VersionName(r.TLS.Version)+" "+r.TLS.NegotiatedProtocol)
		}
		_, _ = w.Write(body)
	})
	m.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(500 * time.Millisecond):
			_, _ = io.WriteString(w, "slow")
		case <-r.Context().Done():
		}
	})
	m.HandleFunc("/busy", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	m.Handle("/ws", mux.WebSocket(echoWebSocket))
	return m
}

func echoWebSocket(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
	for {
		typ, msg, err := c.Read(ctx)
		if err != nil {
			return err
		}
		if err := c.Write(ctx, typ, msg); err != nil {
			return err
		}
	}
}

// testService echoes payloads.
type testService struct {
	testpb.UnimplementedTestServiceServer
}

func (testService) UnaryCall(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	info, _ := mux.ConnOf(ctx)
	return &testpb.SimpleResponse{Payload: r.GetPayload(), Username: info.Protocol}, nil
}

func (testService) StreamingOutputCall(r *testpb.StreamingOutputCallRequest, s grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	for range r.GetResponseParameters() {
		if err := s.Send(&testpb.StreamingOutputCallResponse{Payload: r.GetPayload()}); err != nil {
			return err
		}
	}
	return nil
}

func (testService) StreamingInputCall(s grpc.ClientStreamingServer[testpb.StreamingInputCallRequest, testpb.StreamingInputCallResponse]) error {
	var n int32
	for {
		r, err := s.Recv()
		if err == io.EOF {
			return s.SendAndClose(&testpb.StreamingInputCallResponse{AggregatedPayloadSize: n})
		}
		if err != nil {
			return err
		}
		n += int32(len(r.GetPayload().GetBody()))
	}
}

func (testService) FullDuplexCall(s grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	for {
		r, err := s.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.Send(&testpb.StreamingOutputCallResponse{Payload: r.GetPayload()}); err != nil {
			return err
		}
	}
}

func (s *server) scheme() string {
	if s.roots != nil {
		return "https"
	}
	return "http"
}

// client returns an HTTP client that speaks version 1 or 2 and nothing else.
func (s *server) client(t *testing.T, version int) *http.Client {
	t.Helper()
	p := new(http.Protocols)
	p.SetHTTP1(version == 1)
	p.SetHTTP2(version == 2 && s.roots != nil)
	p.SetUnencryptedHTTP2(version == 2 && s.roots == nil)
	tr := &http.Transport{Protocols: p, TLSClientConfig: &tls.Config{RootCAs: s.roots}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// grpcClient returns a client connection.
func (s *server) grpcClient(t *testing.T, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	creds := insecure.NewCredentials()
	if s.roots != nil {
		creds = credentials.NewClientTLSFromCert(s.roots, "")
	}
	cc, err := grpc.NewClient(s.addr, append(options, grpc.WithTransportCredentials(creds))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// dial opens a raw connection, past its TLS handshake if the server has TLS.
func (s *server) dial(t *testing.T, alpn ...string) net.Conn {
	t.Helper()
	var conn net.Conn
	var err error
	if s.roots != nil {
		conn, err = tls.Dial("tcp", s.addr, &tls.Config{RootCAs: s.roots, NextProtos: alpn})
	} else {
		conn, err = net.Dial("tcp", s.addr)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

// roundTrip writes a raw HTTP/1.1 request and reads the response.
func roundTrip(t *testing.T, conn net.Conn, r *bufio.Reader, request string) *http.Response {
	t.Helper()
	send(t, conn, request)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// bothForms runs a test in plaintext and over TLS.
func bothForms(t *testing.T, f func(t *testing.T, s *server), options ...mux.Option) {
	t.Helper()
	for _, form := range []struct {
		name string
		tls  bool
	}{{"plaintext", false}, {"tls", true}} {
		t.Run(form.name, func(t *testing.T) { f(t, start(t, form.tls, options...)) })
	}
}

// eventually waits until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("still not so: %s", what)
		}
	}
}
