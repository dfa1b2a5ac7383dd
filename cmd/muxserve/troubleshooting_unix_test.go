//go:build unix

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/mux/muxtest"
)

// attempt is what a client does with a server. It returns what the client prints.
type attempt func(t *testing.T, p *running) string

// trouble provokes a row of TROUBLESHOOTING.md.
type trouble struct {
	section string // how its heading begins
	row     string // what is quoted in its first cell; empty where it depends on the client
	args    []string
	config  string // text of a file; empty for none
	do      attempt
}

// How the headings begin to which several rows belong.
const (
	secEmpty = "The server says nothing and closes"
	secSlow  = "The connection is closed after 3 s"
	sec503   = "503 "
	secUnav  = "UNAVAILABLE"
	secTLS   = "The TLS handshake fails"
	secWS    = "A WebSocket is refused"
	secEnd   = "A WebSocket is closed"
	secAdmin = "The admin listener answers"
	secCut   = "A download, call or stream is cut"
	secFiles = "Connections hang"
	secStart = "The process does not start"
)

// proxyHeader is a PROXY header, version 1.
const proxyHeader = "PROXY TCP4 192.0.2.7 198.51.100.1 4000 443\r\n"

// proxied, mutual and impatient are flags of servers. CERT is replaced by the path of a
// certificate for the server's address, and OLD by that of one that has expired.
var (
	proxied   = []string{"--proxy-protocol=required", "--proxy-trusted=127.0.0.1"}
	selfMade  = []string{"--tls=self-signed"}
	mutual    = []string{"--tls=mutual", "--tls-cert=CERT", "--tls-key=CERT.key", "--tls-client-ca=CERT"}
	impatient = []string{"--drain-profile=none", "--drain-timeout=200ms"}
)

var troubles = []trouble{
	{secEmpty, "a trusted peer sent no PROXY header", proxied, "", getEcho},
	{secEmpty, "a trusted peer sent no PROXY header", proxied, "", curl("SERVICE/echo")},
	{secEmpty, "the peer is not trusted", []string{"--proxy-protocol=required", "--proxy-trusted=192.0.2.1"}, "", says("")},
	{secEmpty, "a PROXY header from a peer that is not trusted", []string{"--proxy-protocol=optional", "--proxy-trusted=192.0.2.1"}, "", getBehind(proxyHeader, nil)},
	{secEmpty, "the PROXY header is broken or too slow", proxied, "", getBehind("PROXY TCP9 what is this\r\n", nil)},
	{secEmpty, "a PROXY header on a port without proxy_protocol", nil, "", getBehind(proxyHeader, nil)},
	{secEmpty, "a second PROXY header", proxied, "", getBehind(proxyHeader+proxyHeader, nil)},
	{secEmpty, "no protocol of this server", nil, "", getBehind("SSH-2.0-OpenSSH_9.2\r\n", nil)},

	{secSlow, "the first bytes were too slow", nil, "sniff: {timeout: 2s}", says("GET /ec")}, // Time for a busy client to write.
	{secSlow, `verdict="nothing was sent"`, []string{"--log-level=debug"}, "{sniff: {timeout: 100ms}, http1: {idle_timeout: 100ms}}", says("")},

	{sec503, "max_connections of the protocol is reached", nil, "http1: {max_connections: 1}", besideOne},
	{sec503, "limits.max_connections is reached", nil, "limits: {max_connections: 1}", besideOne},
	{sec503, "limits.per_address is reached", nil, "limits: {per_address: 1}", besideOne},
	{sec503, "phase=draining", []string{"--drain-delay=20s"}, "", readyInDrain},

	{"505", "the listener does not serve the protocol", []string{"--protocols=grpc"}, "", getEcho},
	{"505", "the listener does not serve the protocol", []string{"--protocols=http1"}, "", goAway(nil)},
	{"GOAWAY with INADEQUATE", "HTTP/2 over a cipher suite that it forbids", selfMade, "", goAway(&tls.Config{
		InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
		CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA},
	})},
	{"431", "431 Request Header Fields Too Large", nil, "http1: {max_header_bytes: 1024}", func(t *testing.T, p *running) string {
		return request(t, nil, http.MethodGet, p.service.JoinPath("echo").String(), http.Header{"X-Long": {strings.Repeat("x", 16<<10)}})
	}},

	{secUnav, "max_connections of the protocol is reached", nil, "grpc: {max_connections: 1}", func(t *testing.T, p *running) string {
		holdStream(t, p)
		return call(t, p.dialGRPC(t), "x")
	}},
	{secUnav, "plaintext on a TLS port", selfMade, "", callWith(insecure.NewCredentials())},
	{secUnav, "TLS on a plaintext port", nil, "", callWith(credentials.NewTLS(anyCertificate()))},
	{secUnav, "the client does not accept the server's certificate", selfMade, "", callWith(credentials.NewTLS(nil))},
	{secUnav, "drain ended", impatient, "", func(t *testing.T, p *running) string {
		stream := holdStream(t, p)
		p.signal(t, syscall.SIGTERM)
		_, err := stream.Recv()
		return fmt.Sprint(err)
	}},

	{"UNIMPLEMENTED", "path=/no.Such/Method", []string{"--access-log"}, "", func(t *testing.T, p *running) string {
		return fmt.Sprint(p.dialGRPC(t).Invoke(t.Context(), "/no.Such/Method", new(emptypb.Empty), new(emptypb.Empty)))
	}},
	{"UNIMPLEMENTED", "path=/muxserve.demo.v1.Echo/Unary", []string{"--access-log"}, "", func(t *testing.T, p *running) string {
		return request(t, nil, http.MethodPost, p.service.JoinPath("muxserve.demo.v1.Echo/Unary").String(), nil)
	}},
	{"RESOURCE_EXHAUSTED", "path=/muxserve.demo.v1.Echo/Unary", []string{"--access-log"}, "", func(t *testing.T, p *running) string {
		return call(t, p.dialGRPC(t), strings.Repeat("x", 5<<20))
	}},

	{secTLS, "the client does not accept the server's certificate", selfMade, "", getBehind("", new(tls.Config))},
	{secTLS, "", selfMade, "", curl("SERVICE/echo")},
	{secTLS, "the server's certificate has expired", []string{"--tls-cert=OLD", "--tls-key=OLD.key"}, "", getBehind("", new(tls.Config))},
	{secTLS, "TLS on a plaintext port", nil, "", getBehind("", anyCertificate())},
	{secTLS, "TLS on a plaintext port", nil, "", curl("-k", "https://ADDRESS/echo")},
	{secTLS, "no common version", selfMade, "", getBehind("", &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})},
	{secTLS, "the client sent no certificate", mutual, "", getBehind("", oldClient(nil))},
	{secTLS, "the client's certificate was not verified", mutual, "", getBehind("", oldClient(strangersCertificate()))},
	{secTLS, "a PROXY header on a port without proxy_protocol", selfMade, "", getBehind(proxyHeader, anyCertificate())},
	{"400", "plaintext on a TLS port", selfMade, "", func(t *testing.T, p *running) string {
		return request(t, nil, http.MethodGet, "http://"+p.service.Host+"/echo", nil)
	}},

	{secWS, "403", nil, "", func(t *testing.T, p *running) string {
		return refusedWebSocket(t, p.service.Host, http.Header{"Origin": {"http://elsewhere.test"}})
	}},
	{secWS, "426", nil, "", func(t *testing.T, p *running) string {
		return request(t, nil, http.MethodGet, p.service.JoinPath("ws").String(), nil)
	}},
	{secWS, "501", nil, "", func(t *testing.T, _ *running) string {
		h := mux.WebSocket(func(context.Context, *websocket.Conn, *http.Request) error { return nil })
		s := muxtest.New(t, mux.WithHandler(http.TimeoutHandler(h, time.Minute, "")), mux.WithLogger(slog.New(slog.DiscardHandler)))
		return refusedWebSocket(t, s.Addr, nil)
	}},
	{secWS, "503", nil, "websocket: {max_connections: 1}", func(t *testing.T, p *running) string {
		if err := echoMessage(t.Context(), p.dialWebSocket(t), websocket.MessageText, []byte("x")); err != nil {
			t.Fatal(err)
		}
		return refusedWebSocket(t, p.service.Host, nil)
	}},
	{secEnd, "StatusMessageTooBig", nil, "", func(t *testing.T, p *running) string {
		c := p.dialWebSocket(t)
		_ = c.Write(t.Context(), websocket.MessageText, make([]byte, 40<<10)) // It may be refused half-way.
		return readWebSocket(t, c)
	}},
	{secEnd, "StatusGoingAway", []string{"--drain-profile=none"}, "", func(t *testing.T, p *running) string {
		c := p.dialWebSocket(t)
		p.signal(t, syscall.SIGTERM)
		return readWebSocket(t, c)
	}},

	{secAdmin, "the admin pages answer to an IP address, to localhost", nil, "", askAdmin("config", http.Header{"Host": {"admin.test"}})},
	{secAdmin, "the admin pages do not answer to pages of other sites", nil, "", askAdmin("config", http.Header{"Origin": {"http://elsewhere.test"}})},
	{secAdmin, "the bearer token is missing or wrong", []string{"--admin-token=secret"}, "", askAdmin("config/reload", nil)},

	{secCut, "drain ended", impatient, "", cutRequest(func(t *testing.T, _ *running, url string) string {
		return request(t, nil, http.MethodGet, url, nil)
	})},
	{secCut, "drain ended", impatient, "", cutRequest(func(t *testing.T, p *running, url string) string { return curl(url)(t, p) })},

	{secFiles, "cannot accept connections, trying again", nil, "limits: {max_connections: 1000}\nhttp1: {body_grace: 5m}", waitInQueue},

	{secStart, "address already in use", nil, "", func(t *testing.T, p *running) string {
		return fails(t, exitFailed, "--listen="+p.service.Host, "--admin=off")
	}},
	{secStart, "no such file or directory", nil, "", func(t *testing.T, _ *running) string {
		return fails(t, exitFailed, "--listen=127.0.0.1:0", "--admin=off", "--tls-cert=missing.pem", "--tls-key=missing.pem")
	}},
	{secStart, "unknown flag", nil, "", func(t *testing.T, _ *running) string { return fails(t, exitUsage, "--lissten=:0") }},
	{secStart, "muxserve.yaml:2", nil, "", func(t *testing.T, _ *running) string {
		return fails(t, exitUsage, "--config="+writeConfig(t, "http1:\n  max_connections: many\n"))
	}},
}

// TestTroubleshooting provokes each row of TROUBLESHOOTING.md. The client prints a line of
// the row's section, and the log or the answer has what its first cell quotes.
func TestTroubleshooting(t *testing.T) {
	t.Parallel()
	sections := strings.Split(readPage(t, "TROUBLESHOOTING.md"), "\n## ")[1:]
	var mu sync.Mutex
	provoked := make(map[[2]string]bool) // sections and their rows, and lines of clients
	ran := t.Run("rows", func(t *testing.T) {
		for _, tr := range troubles {
			t.Run(tr.section+"/"+tr.row, func(t *testing.T) {
				t.Parallel()
				s := sectionOf(t, sections, tr.section)
				cell, line := tr.provoke(t, s)
				mu.Lock()
				defer mu.Unlock()
				provoked[[2]string{s.title, cell}], provoked[[2]string{s.title, line}] = true, true
			})
		}
	})
	if !ran {
		return
	}
	_, err := exec.LookPath("curl")
	for _, text := range sections {
		s := parseSection(text)
		for _, row := range s.rows {
			if !provoked[[2]string{s.title, row[0]}] {
				t.Errorf("%s: no test provokes %s", s.title, row[0])
			}
		}
		for _, line := range s.client {
			isCurls := strings.HasPrefix(line, "curl: ")
			// Which of both ends an unread request sees depends on the moment.
			isRace := strings.HasPrefix(s.title, secEmpty) && strings.HasSuffix(line, "reset by peer")
			if !provoked[[2]string{s.title, line}] && !isRace && (err == nil || !isCurls) {
				t.Errorf("%s: no client prints %s", s.title, line)
			}
		}
	}
}

// symptom is a section of the page.
type symptom struct {
	title  string
	client []string   // what clients print
	rows   [][]string // of its table
	where  string     // the head of the first cells: what says what they quote
}

func parseSection(text string) symptom {
	title, _, _ := strings.Cut(text, "\n")
	_, block, _ := strings.Cut(text, "```text\n")
	block, rest, _ := strings.Cut(block, "```")
	where, _, _ := strings.Cut(strings.TrimLeft(rest, "\n| "), " |")
	return symptom{title, strings.Split(strings.TrimSpace(block), "\n"), tableRows(rest), where}
}

func sectionOf(t *testing.T, sections []string, title string) symptom {
	t.Helper()
	for _, text := range sections {
		if strings.HasPrefix(text, title) {
			return parseSection(text)
		}
	}
	t.Fatalf("the page has no section %q", title)
	return symptom{}
}

// cellWith returns the first cell of the row that quotes a text.
func (s symptom) cellWith(t *testing.T, quoted string) string {
	t.Helper()
	for _, cells := range s.rows {
		if strings.Contains(cells[0], "`"+quoted+"`") {
			return cells[0]
		}
	}
	t.Fatalf("%s: no row quotes %s", s.title, quoted)
	return ""
}

// lineOf returns the line of the section that a client has printed; empty for none.
func (s symptom) lineOf(said string) string {
	for _, line := range s.client {
		pattern := strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*")
		if regexp.MustCompile("(?m)^" + pattern + "$").MatchString(strings.ReplaceAll(said, "\r", "")) {
			return line
		}
	}
	return ""
}

// provoke runs a server and the client. It returns the first cell of the row, and the line
// of the page that the client has printed.
func (tr trouble) provoke(t *testing.T, s symptom) (cell, line string) {
	t.Helper()
	args := append([]string{"--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--log-format=text"}, withCertificates(t, tr.args)...)
	if tr.config != "" {
		args = append(args, "--config="+writeConfig(t, tr.config))
	}
	adjust := func(*exec.Cmd) {}
	if tr.section == secFiles {
		adjust = func(c *exec.Cmd) {
			c.Args = append([]string{"sh", "-c", `ulimit -n 40; exec "$@"`, "sh", binary}, c.Args[1:]...)
			c.Path = "/bin/sh"
		}
	}
	p := startAs(t, adjust, nil, args...)
	said := tr.do(t, p)
	if line = s.lineOf(said); line == "" {
		t.Errorf("the client says %q, and the page\n%s", said, strings.Join(s.client, "\n"))
	}
	if tr.row == "" {
		return "", line
	}
	cell = s.cellWith(t, tr.row)
	if s.where == "the answer says" {
		if !hasLine(strings.ReplaceAll(said, "\n", " "), cell) {
			t.Errorf("the client says %q, without %s", said, cell)
		}
		return cell, line
	}
	eventually(t, s.where+" "+cell, func() bool { return hasLine(p.stderr.String(), cell) })
	return cell, line
}

// hasLine reports whether a line of the text has all that a cell quotes.
func hasLine(text, cell string) bool {
	quotes := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1)
	for line := range strings.Lines(text) {
		n := 0
		for _, m := range quotes {
			if strings.Contains(line, m[1]) {
				n++
			}
		}
		if n == len(quotes) {
			return true
		}
	}
	return false
}

// withCertificates replaces CERT and OLD in flags.
func withCertificates(t *testing.T, args []string) (out []string) {
	t.Helper()
	dir := t.TempDir()
	paths := []string{"CERT", filepath.Join(dir, "cert.pem"), "OLD", filepath.Join(dir, "old.pem")}
	if strings.Contains(strings.Join(args, " "), ".key") {
		for i, expires := range []time.Duration{time.Hour, -time.Minute} {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			path := paths[2*i+1]
			writeCertificate(t, path, path+".key", key, &x509.Certificate{
				SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(expires),
				IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
			})
		}
	}
	for _, arg := range args {
		out = append(out, strings.NewReplacer(paths...).Replace(arg))
	}
	return out
}

// oldClient is the TLS of a client that speaks TLS 1.2, in which a server refuses a
// certificate before the client has sent a request. It trusts any server.
func oldClient(certificate *tls.Certificate) *tls.Config {
	c := anyCertificate()
	c.MaxVersion = tls.VersionTLS12
	// The server names the authorities that it knows. This client does not look.
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if certificate == nil {
			return new(tls.Certificate), nil
		}
		return certificate, nil
	}
	return c
}

// strangersCertificate is a certificate that no server knows.
func strangersCertificate() *tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// writeConfig returns the name of a file muxserve.yaml with this text.
func writeConfig(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "muxserve.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// request prints the status and the body of an answer as curl -i does, or the error. A nil
// transport is one that keeps no connection.
func request(t *testing.T, transport *http.Transport, method, url string, header http.Header) string {
	t.Helper()
	if transport == nil {
		transport = new(http.Transport)
	}
	transport.DisableKeepAlives = true
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		req.Header, req.Host = header, header.Get("Host")
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s %s\n%s", resp.Proto, resp.Status, body)
}

func getEcho(t *testing.T, p *running) string {
	t.Helper()
	return request(t, nil, http.MethodGet, p.service.JoinPath("echo").String(), nil)
}

// getBehind asks for /echo on a connection that begins with other bytes, by TLS where config
// is not nil.
func getBehind(before string, config *tls.Config) attempt {
	return func(t *testing.T, p *running) string {
		t.Helper()
		begun := false
		return getThrough(t, p, config, func(p []byte) []byte {
			if begun {
				return p
			}
			begun = true
			return append([]byte(before), p...) // In one write, so that the server reads both together.
		})
	}
}

// getThrough asks for /echo on a connection that writes something else.
func getThrough(t *testing.T, p *running, config *tls.Config, instead func([]byte) []byte) string {
	t.Helper()
	scheme := "http"
	if config != nil {
		scheme = "https"
	}
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		return &otherConn{conn, instead}, err
	}
	return request(t, &http.Transport{DialContext: dial, TLSClientConfig: config.Clone()}, http.MethodGet, scheme+"://"+p.service.Host+"/echo", nil)
}

// otherConn writes something else than it is given.
type otherConn struct {
	net.Conn
	instead func([]byte) []byte
}

func (c *otherConn) Write(p []byte) (int, error) {
	if _, err := c.Conn.Write(c.instead(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// dialTCP connects to the service port.
func (p *running) dialTCP(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.service.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// says sends some bytes and waits for the end of the connection.
func says(text string) attempt {
	return func(t *testing.T, p *running) string {
		t.Helper()
		conn := p.dialTCP(t)
		_, _ = io.WriteString(conn, text)
		_, err := conn.Read(make([]byte, 1))
		return fmt.Sprint(err)
	}
}

// holdRequest has a request under way until the process ends.
func holdRequest(t *testing.T, p *running) {
	t.Helper()
	_, _ = io.WriteString(p.dialTCP(t), "GET /echo?sleep=1m HTTP/1.1\r\nHost: x\r\n\r\n")
	admin := httpClient(t, false)
	eventually(t, "the request is active", func() bool { return p.connections(t, admin, "active") == 1 })
}

// besideOne asks for /echo while another request holds the only place.
func besideOne(t *testing.T, p *running) string {
	t.Helper()
	holdRequest(t, p)
	return getEcho(t, p)
}

// readyInDrain asks for /readyz until a drain has begun.
func readyInDrain(t *testing.T, p *running) (said string) {
	t.Helper()
	p.signal(t, syscall.SIGTERM)
	eventually(t, "/readyz has turned", func() bool {
		said = request(t, nil, http.MethodGet, p.service.JoinPath("readyz").String(), nil)
		return !strings.Contains(said, "200 OK")
	})
	return said
}

// goAway opens an HTTP/2 connection and prints the GOAWAY that it gets.
func goAway(config *tls.Config) attempt {
	return func(t *testing.T, p *running) string {
		t.Helper()
		conn := p.dialTCP(t)
		if config != nil {
			conn = tls.Client(conn, config)
		}
		if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
			t.Fatal(err)
		}
		framer := http2.NewFramer(conn, conn)
		_ = framer.WriteSettings()
		// GET http://x/, mostly by HPACK's static table.
		block := []byte{0x82, 0x86, 0x84, 0x41, 0x01, 'x'}
		_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true, EndStream: true})
		for {
			frame, err := framer.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if f, ok := frame.(*http2.GoAwayFrame); ok {
				return fmt.Sprintf("GOAWAY %v %q", f.ErrCode, f.DebugData())
			}
		}
	}
}

// holdStream opens a stream of a call, which is answered once.
func holdStream(t *testing.T, p *running) grpc.BidiStreamingClient[demov1.EchoRequest, demov1.EchoResponse] {
	t.Helper()
	stream, err := demov1.NewEchoClient(p.dialGRPC(t)).BidiStream(t.Context())
	if err == nil {
		err = stream.Send(&demov1.EchoRequest{Message: "x"})
	}
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// call makes a call, and prints its error.
func call(t *testing.T, cc *grpc.ClientConn, message string) string {
	t.Helper()
	_, err := demov1.NewEchoClient(cc).Unary(t.Context(), &demov1.EchoRequest{Message: message})
	return fmt.Sprint(err)
}

func callWith(creds credentials.TransportCredentials) attempt {
	return func(t *testing.T, p *running) string {
		t.Helper()
		cc, err := grpc.NewClient(p.service.Host, grpc.WithTransportCredentials(creds.Clone()))
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Close()
		return call(t, cc, "x")
	}
}

// refusedWebSocket prints why a handshake was refused, and the answer's body.
func refusedWebSocket(t *testing.T, host string, header http.Header) string {
	t.Helper()
	c, resp, err := websocket.Dial(t.Context(), "ws://"+host+"/ws", &websocket.DialOptions{
		HTTPHeader: header, HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	})
	if err == nil {
		_ = c.CloseNow()
		t.Fatal("the handshake was accepted")
	}
	var body []byte
	if resp != nil {
		body, _ = io.ReadAll(resp.Body)
	}
	return fmt.Sprintf("%v\n%s", err, body)
}

func readWebSocket(t *testing.T, c *websocket.Conn) string {
	t.Helper()
	_, _, err := c.Read(t.Context())
	return fmt.Sprint(err)
}

// askAdmin asks the admin listener, for a reload by POST.
func askAdmin(path string, header http.Header) attempt {
	return func(t *testing.T, p *running) string {
		t.Helper()
		method := http.MethodGet
		if strings.HasSuffix(path, "reload") {
			method = http.MethodPost
		}
		return request(t, nil, method, p.admin.JoinPath(path).String(), header)
	}
}

// cutRequest asks for an answer that the drain does not wait for. The exit code is 3.
func cutRequest(ask func(t *testing.T, p *running, url string) string) attempt {
	return func(t *testing.T, p *running) string {
		t.Helper()
		u := p.service.JoinPath("echo")
		u.RawQuery = "sleep=1m"
		said := make(chan string, 1)
		go func() {
			defer close(said) // Also where curl is missing, and the test is skipped.
			said <- ask(t, p, u.String())
		}()
		admin := httpClient(t, false)
		eventually(t, "the request is active", func() bool { return t.Skipped() || p.connections(t, admin, "active") == 1 })
		p.signal(t, syscall.SIGTERM)
		if code := p.wait(t); code != exitCut && !t.Skipped() {
			t.Errorf("exit code %d", code)
		}
		answer := <-said
		if t.Skipped() {
			t.SkipNow() // Another goroutine has said so, which ends that one alone.
		}
		return answer
	}
}

// waitInQueue opens connections until the process has no descriptors. A client that comes
// then waits.
func waitInQueue(t *testing.T, p *running) string {
	t.Helper()
	for range 60 {
		_, _ = io.WriteString(p.dialTCP(t), "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
	}
	eventually(t, "the process has no descriptors", func() bool { return strings.Contains(p.stderr.String(), "too many open files") })
	impatient := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Second}
	resp, err := impatient.Get(p.service.JoinPath("livez").String())
	if err == nil {
		resp.Body.Close()
		return resp.Status
	}
	return err.Error()
}

// fails runs muxserve to its end, which must have this exit code. It returns what was said.
func fails(t *testing.T, code int, args ...string) string {
	t.Helper()
	got, stderr := runBinary(t, args...)
	if got != code {
		t.Errorf("exit code %d, want %d", got, code)
	}
	return stderr
}

// curl runs curl, where it is installed. SERVICE is the address of the service port with its
// scheme, and ADDRESS without.
func curl(args ...string) attempt {
	return func(t *testing.T, p *running) string {
		t.Helper()
		path, err := exec.LookPath("curl")
		if err != nil {
			t.Skip(err) // .ci/run installs it. Go's own clients provoke the same rows.
		}
		all := []string{"-sSi", "--max-time", "60", "--noproxy", "*"}
		for _, arg := range args {
			all = append(all, strings.NewReplacer("SERVICE", p.service.String(), "ADDRESS", p.service.Host).Replace(arg))
		}
		out, err := exec.CommandContext(t.Context(), path, all...).CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Error(err)
		}
		return string(out)
	}
}
