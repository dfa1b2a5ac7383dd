// Package muxtest serves a [mux.Server] in a test, with clients for its protocols, as
// [net/http/httptest] does for net/http. It is a package of its own so that a program which
// does not import it does not link package testing.
package muxtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

// Server is a server on a loopback port. [New] makes it; the end of the test closes it, and
// the clients that it has returned.
type Server struct {
	*mux.Server

	// URL is http://127.0.0.1:port, or https.
	URL string
	// Addr is 127.0.0.1:port.
	Addr string
	// TLS is for clients of a server with TLS; nil without. It must not be modified.
	TLS *tls.Config

	tb testing.TB
}

// New serves a server with the options until the end of the test, and returns when it is
// ready. The options cannot change the address. Without others, it logs to the test, and a
// drain does not wait for a balancer.
func New(tb testing.TB, options ...mux.Option) *Server {
	tb.Helper()
	return serve(tb, "", options)
}

// NewTLS is [New] with TLS, by a certificate that the clients trust.
func NewTLS(tb testing.TB, options ...mux.Option) *Server {
	tb.Helper()
	return serve(tb, "self-signed", options)
}

func serve(tb testing.TB, tlsMode string, options []mux.Option) *Server {
	tb.Helper()
	log := &testLog{tb: tb}
	before := []mux.Option{
		mux.WithLogger(slog.New(slog.NewTextHandler(log, nil))),
		mux.Configure(func(c *mux.Config) { c.Drain, _ = lifecycle.Profile("none") }),
	}
	after := mux.Configure(func(c *mux.Config) {
		c.Listeners = mux.DefaultConfig().Listeners
		c.Listeners[0].Address = "127.0.0.1:0"
		c.Listeners[0].TLS.Mode = tlsMode
	})
	m := mux.New(append(append(before, options...), after)...)
	if err := m.Listen(); err != nil {
		tb.Fatalf("muxtest: %v", err)
	}
	ready, served := make(chan struct{}), make(chan error, 1)
	m.OnPhase(func(p mux.Phase) {
		if p == mux.PhaseServing {
			close(ready)
		}
	})
	go func() { served <- m.ListenAndServe() }()
	tb.Cleanup(func() {
		defer log.end()
		if err := m.Close(); err != nil {
			tb.Errorf("muxtest: %v", err)
		}
		if err := <-served; !errors.Is(err, mux.ErrServerClosed) {
			tb.Errorf("muxtest: %v", err)
		}
	})
	select {
	case <-ready:
	case err := <-served:
		served <- err // For the end of the test.
		tb.FailNow()
	}
	s := &Server{Server: m, Addr: m.Addrs()[0].String(), tb: tb}
	s.URL = "http://" + s.Addr
	if tlsMode != "" {
		s.URL = "https://" + s.Addr
		s.TLS = &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
		for _, certificates := range m.Certificates() {
			s.TLS.RootCAs.AddCert(certificates[0])
		}
	}
	return s
}

// Client returns a client that speaks HTTP/1.1.
func (s *Server) Client() *http.Client {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return s.client(p)
}

// HTTP2Client returns a client that speaks HTTP/2, with prior knowledge where there is no
// TLS.
func (s *Server) HTTP2Client() *http.Client {
	p := new(http.Protocols)
	p.SetHTTP2(s.TLS != nil)
	p.SetUnencryptedHTTP2(s.TLS == nil)
	return s.client(p)
}

func (s *Server) client(p *http.Protocols) *http.Client {
	transport := &http.Transport{Protocols: p, TLSClientConfig: s.TLS.Clone()}
	s.tb.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// GRPC returns a gRPC client connection.
func (s *Server) GRPC(options ...grpc.DialOption) *grpc.ClientConn {
	s.tb.Helper()
	creds := insecure.NewCredentials()
	if s.TLS != nil {
		creds = credentials.NewTLS(s.TLS)
	}
	cc, err := grpc.NewClient(s.Addr, append([]grpc.DialOption{grpc.WithTransportCredentials(creds)}, options...)...)
	if err != nil {
		s.tb.Fatalf("muxtest: %v", err)
	}
	s.tb.Cleanup(func() { _ = cc.Close() })
	return cc
}

// WebSocket opens a WebSocket at a path. o may be nil.
func (s *Server) WebSocket(path string, o *websocket.DialOptions) *websocket.Conn {
	s.tb.Helper()
	var options websocket.DialOptions
	if o != nil {
		options = *o
	}
	if options.HTTPClient == nil {
		options.HTTPClient = s.Client()
	}
	c, _, err := websocket.Dial(context.WithoutCancel(s.tb.Context()), strings.Replace(s.URL, "http", "ws", 1)+path, &options) //nolint:bodyclose // It is the WebSocket's.
	if err != nil {
		s.tb.Fatalf("muxtest: %v", err)
	}
	s.tb.Cleanup(func() { _ = c.CloseNow() })
	return c
}

// testLog writes to the log of a test that has not ended.
type testLog struct {
	mu sync.Mutex
	tb testing.TB // nil once it has
}

// Write implements [io.Writer].
func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tb != nil {
		l.tb.Logf("%s", strings.TrimSuffix(string(p), "\n"))
	}
	return len(p), nil
}

func (l *testLog) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tb = nil
}
