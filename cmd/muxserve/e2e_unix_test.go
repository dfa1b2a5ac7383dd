//go:build unix

package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/protobuf/types/known/durationpb"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
)

func (p *running) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// slowRequest requests an answer after d, in the background.
func slowRequest(ctx context.Context, c *http.Client, service *url.URL, d time.Duration) <-chan error {
	u := service.JoinPath("echo")
	u.RawQuery = "sleep=" + d.String()
	ended := make(chan error, 1)
	go func() {
		_, err := fetchEcho(ctx, c, u, nil)
		ended <- err
	}()
	return ended
}

// TestDrain sends SIGTERM during a slow request of each HTTP version, a gRPC stream on
// each transport and a WebSocket. All of them end properly.
func TestDrain(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"off", "self-signed"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			p := start(t, "--tls", mode, "--drain-delay=200ms", "--drain-spread=1s")
			ctx, admin := t.Context(), httpClient(t, false)

			const messages = 6
			stream, err := demov1.NewEchoClient(p.dialGRPC(t)).ServerStream(ctx, &demov1.EchoRequest{
				Message: "m", Repeat: messages, Interval: durationpb.New(400 * time.Millisecond),
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
			ws := p.dialWebSocket(t)
			if err := echoMessage(ctx, ws, websocket.MessageText, []byte("hello")); err != nil {
				t.Fatal(err)
			}
			const wait = 2 * time.Second
			slow1 := slowRequest(ctx, httpClient(t, false), p.service, wait)
			slow2 := slowRequest(ctx, httpClient(t, true), p.service, wait)
			eventually(t, "both requests are active", func() bool { return p.connections(t, admin, "active") >= 2 })

			p.signal(t, syscall.SIGTERM)
			eventually(t, "not ready", func() bool { return p.adminStatus(t, admin, "readyz") == http.StatusServiceUnavailable })
			if status := p.adminStatus(t, admin, "livez"); status != http.StatusOK {
				t.Errorf("/livez answers %d during the drain", status)
			}
			if _, _, err := ws.Read(ctx); websocket.CloseStatus(err) != websocket.StatusGoingAway {
				t.Errorf("the WebSocket ended with %v, want 1001", err)
			}
			for name, ended := range map[string]<-chan error{"HTTP/1.1": slow1, "HTTP/2": slow2} {
				if err := <-ended; err != nil {
					t.Errorf("the slow %s request: %v", name, err)
				}
			}
			for i := 1; i < messages; i++ {
				if _, err := stream.Recv(); err != nil {
					t.Fatalf("message %d of %d: %v", i+1, messages, err)
				}
			}
			if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
				t.Errorf("the stream ended with %v", err)
			}
			if code := p.wait(t); code != exitOK {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// TestSecondSignalForces expects 128 plus the number of the second signal.
func TestSecondSignalForces(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		first, second syscall.Signal
		want          int
	}{
		"SIGTERM":             {syscall.SIGTERM, syscall.SIGTERM, 143},
		"SIGINT":              {syscall.SIGINT, syscall.SIGINT, 130},
		"SIGTERM and SIGQUIT": {syscall.SIGTERM, syscall.SIGQUIT, 131},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t)
			admin := httpClient(t, false)
			slow := slowRequest(t.Context(), httpClient(t, false), p.service, time.Minute)
			eventually(t, "the request is active", func() bool { return p.connections(t, admin, "active") == 1 })
			p.signal(t, tt.first)
			eventually(t, "not ready", func() bool { return p.adminStatus(t, admin, "readyz") == http.StatusServiceUnavailable })
			p.signal(t, tt.second)
			if code := p.wait(t); code != tt.want {
				t.Errorf("exit code %d, want %d", code, tt.want)
			}
			if err := <-slow; err == nil {
				t.Error("the request of a minute was answered")
			}
		})
	}
}

func TestDrainThatCutsExitsWith3(t *testing.T) {
	t.Parallel()
	p := start(t, "--drain-delay=0", "--drain-timeout=300ms")
	slow := slowRequest(t.Context(), httpClient(t, true), p.service, time.Minute)
	admin := httpClient(t, false)
	eventually(t, "the request is active", func() bool { return p.connections(t, admin, "active") == 1 })
	p.signal(t, syscall.SIGTERM)
	if code := p.wait(t); code != exitCut {
		t.Errorf("exit code %d, want %d", code, exitCut)
	}
	if err := <-slow; err == nil {
		t.Error("the request of a minute was answered")
	}
	if !strings.Contains(p.stderr.String(), "drain.timeout") {
		t.Error("no warning about a timeout that is too short")
	}
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	// The system's limit for a socket's path is about 100 bytes, and t.TempDir may be
	// longer.
	dir, err := os.MkdirTemp("", "mux") //nolint:usetesting // Its paths are too long, see above.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	service, admin := "unix:"+filepath.Join(dir, "s"), "unix:"+filepath.Join(dir, "a")
	p := startWith(t, nil, "--listen", service, "--admin", admin, "--drain-delay=0", "--drain-timeout=5s")
	for _, args := range [][]string{{"probe", service}, {"probe", "--grpc", service}, {"probe", "--path=/health", admin}} {
		if got := runCommand(t.Context(), nil, args...); got.code != exitOK {
			t.Errorf("%q: %+v", args, got)
		}
	}
	p.signal(t, syscall.SIGTERM)
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestReload replaces the certificate and then breaks it. The server reloads it on
// SIGHUP, or because it watches the file.
func TestReload(t *testing.T) {
	t.Parallel()
	for name, told := range map[string]bool{"SIGHUP": true, "watch": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
			writePair(t, cert, key, 1)
			p := start(t, "--tls-cert", cert, "--tls-key", key, fmt.Sprint("--watch=", !told))
			if got := serialOf(t, p.service.Host); got != 1 {
				t.Fatalf("serial number %d at the start", got)
			}
			reload := func() {
				if told {
					p.signal(t, syscall.SIGHUP)
				}
			}
			writePair(t, cert, key, 2)
			reload()
			eventually(t, "the new certificate is used", func() bool { return serialOf(t, p.service.Host) == 2 })

			if err := os.WriteFile(cert, []byte("broken"), 0o600); err != nil {
				t.Fatal(err)
			}
			reload()
			eventually(t, "the failure is logged", func() bool { return strings.Contains(p.stderr.String(), "certificates not reloaded") })
			if got := serialOf(t, p.service.Host); got != 2 {
				t.Errorf("serial number %d after a reload that failed", got)
			}
		})
	}
}

// writePair writes a new certificate with a serial number, and its key.
func writePair(t *testing.T, certPath, keyPath string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	writeCertificate(t, certPath, keyPath, key, &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		DNSNames:     []string{"localhost"},
	})
}

// writeCertificate writes a certificate that signs itself, and its key.
func writeCertificate(t *testing.T, certPath, keyPath string, key crypto.Signer, template *x509.Certificate) {
	t.Helper()
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{
		certPath: {Type: "CERTIFICATE", Bytes: cert}, keyPath: {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// serialOf returns the serial number of a server's certificate.
func serialOf(t *testing.T, address string) int64 {
	t.Helper()
	dialer := tls.Dialer{Config: anyCertificate()}
	conn, err := dialer.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	secure, ok := conn.(*tls.Conn)
	if !ok {
		t.Fatalf("a TLS dialer returned a %T", conn)
	}
	return secure.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}
