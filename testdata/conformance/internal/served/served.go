// Package served embeds a mux server, the way a program would, for the suites
// beside it to ask.
package served

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/muxserve/muxserve/mux"
)

// Server is where a server under test is reached.
type Server struct {
	Addr  string         // host:port, on 127.0.0.1
	Roots *x509.CertPool // what its certificate is verified with; nil: plaintext
}

// Forms are the two ways every suite is run in.
var Forms = []struct {
	Name string
	TLS  bool
}{{"plaintext", false}, {"tls", true}}

// Mux serves a mux server with the given options on a loopback port until the
// end of the test. That its drain is over at once then and that no connection is left is
// part of the test.
func Mux(t *testing.T, withTLS bool, options ...mux.Option) Server {
	t.Helper()
	s := Server{}
	options = slices.Concat([]mux.Option{
		mux.Configure(func(c *mux.Config) { c.Drain.Delay, c.Drain.Spread = 0, 0 }),
		mux.WithLogger(slog.New(slog.DiscardHandler)),
	}, options)
	if withTLS {
		var config *tls.Config
		config, s.Roots = Certificate(t)
		options = append(options, mux.WithTLS(config))
	}
	l := Listen(t)
	s.Addr = l.Addr().String()

	m := mux.New(options...)
	served := make(chan error, 1)
	go func() { served <- m.Serve(l) }()
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-served; !errors.Is(err, mux.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
		for name, p := range m.Stats().Pools {
			if p.Active != 0 {
				t.Errorf("pool %s: %d connections left after Close", name, p.Active)
			}
		}
	})
	return s
}

// Listen opens a loopback port.
func Listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Certificate returns the TLS configuration of a server on 127.0.0.1, and what
// its clients verify it with.
func Certificate(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	throwAway := httptest.NewUnstartedServer(nil)
	throwAway.StartTLS()
	defer throwAway.Close()
	roots := x509.NewCertPool()
	roots.AddCert(throwAway.Certificate())
	return &tls.Config{Certificates: throwAway.TLS.Certificates, MinVersion: tls.VersionTLS12}, roots
}
