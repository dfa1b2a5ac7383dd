package transparency_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	gin.DefaultWriter, gin.DefaultErrorWriter = io.Discard, io.Discard
	code := m.Run()
	if code == 0 && flag.Lookup("test.run").Value.String() == "" {
		if missing := comparisons.missing(); len(missing) > 0 {
			fmt.Println("no comparison shows these rows of the table:", missing)
			code = 1
		}
		fmt.Println(comparisons.count(), "comparisons")
	}
	os.Exit(code)
}

// timeout bounds a wait for what comes at once.
const timeout = 30 * time.Second

// A program is what a service consists of.
type program struct {
	handler  http.Handler
	register func(grpc.ServiceRegistrar) // nil: no gRPC
	options  []grpc.ServerOption
	tls      *tls.Config             // nil: plaintext
	seen     func() string           // what the program has seen; nil: nothing of interest
	ready    func(*testing.T, *site) // called when the site is served; nil: nothing
	settings func(*mux.Config)       // where the comparison is not at default settings
}

// A site is a program that is served, by net/http and grpc-go on a port each or by the mux on
// one port.
type site struct {
	program
	http, grpc string      // addresses
	client     *tls.Config // of clients; nil in plaintext
	version    int         // of HTTP that clients speak

	shutdown func(context.Context) error
	mux      *mux.Server // nil: plain
}

// A scenario is what a client does, and returns all that it has seen.
type scenario func(t *testing.T, s *site) string

// plain serves a program by net/http and grpc-go.
func plain(t *testing.T, p program) *site {
	t.Helper()
	l := listen(t)
	srv := &http.Server{Handler: p.handler, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), TLSConfig: p.tls.Clone()}
	if p.tls == nil {
		srv.Protocols = new(http.Protocols)
		srv.Protocols.SetHTTP1(true)
		srv.Protocols.SetUnencryptedHTTP2(true)
	}
	go func() {
		if p.tls != nil {
			_ = srv.ServeTLS(l, "", "")
		} else {
			_ = srv.Serve(l)
		}
	}()
	t.Cleanup(func() { _ = srv.Close() })
	s := &site{program: p, http: l.Addr().String(), client: clientTLS(p.tls), shutdown: srv.Shutdown}
	if p.register != nil {
		options := p.options
		if p.tls != nil {
			options = append(options[:len(options):len(options)], grpc.Creds(credentials.NewTLS(p.tls.Clone())))
		}
		gs := grpc.NewServer(options...)
		p.register(gs)
		gl := listen(t)
		go func() { _ = gs.Serve(gl) }()
		t.Cleanup(gs.Stop)
		s.grpc = gl.Addr().String()
		s.shutdown = func(ctx context.Context) error {
			stopped := make(chan struct{})
			go func() { gs.GracefulStop(); close(stopped) }()
			err := srv.Shutdown(ctx)
			select {
			case <-stopped:
			case <-ctx.Done():
				gs.Stop()
			}
			return err
		}
	}
	if p.ready != nil {
		p.ready(t, s)
	}
	return s
}

// muxed serves a program behind the mux.
func muxed(t *testing.T, p program) *site {
	t.Helper()
	l := listen(t)
	options := []mux.Option{
		mux.WithHandler(p.handler), mux.WithLogger(slog.New(slog.DiscardHandler)), mux.WithTLS(p.tls),
		mux.Configure(func(c *mux.Config) { c.Drain, _ = lifecycle.Profile("none") }), // There is no balancer.
	}
	if p.register != nil {
		options = append(options, mux.WithGRPC(func(r mux.GRPCRegistrar) { p.register(r) }, p.options...))
	}
	if p.settings != nil {
		options = append(options, mux.Configure(p.settings))
	}
	m := mux.New(options...)
	go func() { _ = m.Serve(l) }()
	t.Cleanup(func() { _ = m.Close() })
	addr := l.Addr().String()
	s := &site{program: p, http: addr, grpc: addr, client: clientTLS(p.tls), shutdown: m.Shutdown, mux: m}
	if p.ready != nil {
		p.ready(t, s)
	}
	return s
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// alike starts a program twice, has a client do the same with each, and compares what it says
// it has seen. It returns that of the plain one.
func alike(t *testing.T, start func() program, version int, do scenario) string {
	t.Helper()
	view := func(serve func(*testing.T, program) *site) string {
		s := serve(t, start())
		s.version = version
		return s.view(t, do)
	}
	native := view(plain)
	comparisons.check(t, native, view(muxed))
	return native
}

// alikeEach starts a program twice and compares several scenarios on it, by one version of
// HTTP.
func alikeEach(t *testing.T, start func() program, version int, scenarios map[string]scenario) {
	t.Helper()
	native, other := plain(t, start()), muxed(t, start())
	native.version, other.version = version, version
	for name, do := range scenarios {
		t.Run(name, func(t *testing.T) { comparisons.check(t, native.view(t, do), other.view(t, do)) })
	}
}

// everyWay is alikeEach for both versions of HTTP, in plaintext and over TLS.
func everyWay(t *testing.T, start func() program, scenarios map[string]scenario) {
	t.Helper()
	for version := 1; version <= 2; version++ {
		for _, name := range []string{"plaintext", "TLS"} {
			t.Run(fmt.Sprintf("HTTP%d %s", version, name), func(t *testing.T) {
				alikeEach(t, func() program {
					p := start()
					if name == "TLS" {
						p.tls = serverTLS()
					}
					return p
				}, version, scenarios)
			})
		}
	}
}

// handled is a program of a handler alone.
func handled(h http.Handler) func() program { return func() program { return program{handler: h} } }

// view is what a scenario has seen on a site, without what differs from time to time.
func (s *site) view(t *testing.T, do scenario) string {
	t.Helper()
	text := do(t, s)
	if s.seen != nil {
		text += "\nprogram:\n" + s.seen()
	}
	text = strings.ReplaceAll(text, s.http, "SERVER")
	if s.grpc != "" {
		text = strings.ReplaceAll(text, s.grpc, "SERVER")
	}
	text = strings.ReplaceAll(text, "\r\n", "\n")
	text = clientAddr.ReplaceAllString(text, "CLIENT")
	return dateField.ReplaceAllString(text, "")
}

var (
	clientAddr = regexp.MustCompile(`127\.0\.0\.1:\d+`)
	dateField  = regexp.MustCompile(`(?m)^Date: .*\n`)
)

// comparisons knows what was compared.
var comparisons = ledger{seen: make(map[string]bool)}

type ledger struct {
	mu   sync.Mutex
	n    int
	seen map[string]bool // rows of the table, by what differs
}

// check fails the test unless the views are the same or differ as a row of the table says
// that they do in this test.
func (l *ledger) check(t *testing.T, native, muxed string) {
	t.Helper()
	l.mu.Lock()
	l.n++
	l.mu.Unlock()
	for i := range differences {
		d := &differences[i]
		if !d.applies(t.Name()) {
			continue
		}
		if d.pieces == "" {
			if !d.whole(native, muxed) {
				t.Errorf("the views are not those of the table's row %q: plain %q, mux %q", d.what, native, muxed)
			}
			l.note(d)
			return
		}
		pieces := regexp.MustCompile(d.pieces)
		shorter, otherShorter := pieces.ReplaceAllString(native, ""), pieces.ReplaceAllString(muxed, "")
		if native != muxed && (shorter != native || otherShorter != muxed) {
			l.note(d)
		}
		native, muxed = shorter, otherShorter
	}
	if diff := cmp.Diff(strings.Split(native, "\n"), strings.Split(muxed, "\n")); diff != "" {
		t.Errorf("(-plain +mux):\n%s", diff)
	}
}

// note keeps in mind that a row of the table is needed.
func (l *ledger) note(d *difference) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen[d.what] = true
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

// missing returns the rows of the table that no comparison has shown.
func (l *ledger) missing() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var rows []string
	for _, d := range differences {
		if !l.seen[d.what] {
			rows = append(rows, d.what)
		}
	}
	return rows
}

// url returns the URL of a path.
func (s *site) url(path string) string {
	if s.client != nil {
		return "https://" + s.http + path
	}
	return "http://" + s.http + path
}

// httpClient returns an HTTP client that speaks the site's version of HTTP.
func (s *site) httpClient(t *testing.T) *http.Client {
	t.Helper()
	tr := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: s.client.Clone()}
	tr.Protocols.SetHTTP1(s.version != 2)
	tr.Protocols.SetHTTP2(s.version == 2 && s.client != nil)
	tr.Protocols.SetUnencryptedHTTP2(s.version == 2 && s.client == nil)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// grpcClient returns a gRPC client connection.
func (s *site) grpcClient(t *testing.T, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	creds := insecure.NewCredentials()
	if s.client != nil {
		creds = credentials.NewTLS(s.client)
	}
	cc, err := grpc.NewClient(s.grpc, append([]grpc.DialOption{grpc.WithTransportCredentials(creds)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// dial opens a connection to the HTTP port that speaks HTTP/1.1.
func (s *site) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.http)
	if err != nil {
		t.Fatal(err)
	}
	if s.client != nil {
		c = tls.Client(c, s.client)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(timeout))
	return c
}

// requestContext is the context of a scenario's request.
func requestContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	t.Cleanup(cancel)
	return ctx
}

// An edit changes a request before it is sent.
type edit func(*http.Request)

// request returns a scenario that makes a request.
func request(method, path, body string, edits ...edit) scenario {
	return func(t *testing.T, s *site) string {
		t.Helper()
		var reader io.Reader
		if body != "" {
			reader = strings.NewReader(body)
		}
		r, err := http.NewRequestWithContext(requestContext(t), method, s.url(path), reader)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range edits {
			e(r)
		}
		return s.do(t, r)
	}
}

// get returns a scenario that makes a GET.
func get(path string, edits ...edit) scenario { return request(http.MethodGet, path, "", edits...) }

// field sets a field of the header.
func field(name, value string) edit { return func(r *http.Request) { r.Header.Set(name, value) } }

// do makes a request and returns all of the answer.
func (s *site) do(t *testing.T, r *http.Request) string {
	t.Helper()
	resp, err := s.httpClient(t).Do(r)
	if err != nil {
		return errText(err)
	}
	defer resp.Body.Close()
	return responseText(resp)
}

// responseText reads a response to its end and returns all of it.
func responseText(resp *http.Response) string {
	body, err := io.ReadAll(resp.Body)
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s length %d %v close %v\n", resp.Proto, resp.Status, resp.ContentLength, resp.TransferEncoding, resp.Close)
	_ = resp.Header.Write(&b)
	fmt.Fprintf(&b, "\n%s\n%s", digest(body), errText(err))
	if len(resp.Trailer) > 0 {
		b.WriteString("trailer:\n")
		_ = resp.Trailer.Write(&b)
	}
	return b.String()
}

// errText names an error as clients see it.
func errText(err error) string {
	if err == nil {
		return ""
	}
	if errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err) {
		return " error: timeout"
	}
	return " error: " + streamID.ReplaceAllString(err.Error(), "stream ID N")
}

var streamID = regexp.MustCompile(`stream ID \d+`)

// digest returns short bytes as they are, and the length and a sum of long ones.
func digest(p []byte) string {
	if len(p) <= 16<<10 {
		return string(p)
	}
	return fmt.Sprintf("%d bytes, sum %x", len(p), crc32.ChecksumIEEE(p))
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(timeout); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, timeout)
		}
	}
}

// certificate is self-signed, of all servers.
var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
})

func serverTLS() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{certificate()}, MinVersion: tls.VersionTLS12}
}

// clientTLS returns what clients of a server need, which is nil in plaintext.
func clientTLS(server *tls.Config) *tls.Config {
	if server == nil {
		return nil
	}
	roots := x509.NewCertPool()
	roots.AddCert(certificate().Leaf)
	return &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12}
}
