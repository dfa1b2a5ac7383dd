package h2spec

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/spec"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/testdata/conformance/internal/served"
)

// retries is how often a case that only the mux failed is run again on both sides.
// Some cases race their own frames against the server's answer, and the outcome varies at net/http too.
const retries = 2

func TestH2spec(t *testing.T) {
	for _, form := range served.Forms {
		t.Run(form.Name, func(t *testing.T) {
			t.Parallel() // The cases mostly wait.
			ours := configFor(t, served.Mux(t, form.TLS, allProtocols()...))
			atOnce := configFor(t, served.Mux(t, form.TLS, append(allProtocols(), mux.Configure(func(c *mux.Config) {
				c.GRPC.Transport = protocols.TransportShared
			}))...))
			theirs := configFor(t, netHTTP(t, form.TLS))
			compare(t, ours, atOnce, theirs)
		})
	}
}

// tally counts one server's results.
type tally struct{ passed, skipped, failed int }

func (n *tally) add(err error) {
	switch {
	case err == nil:
		n.passed++
	case errors.Is(err, spec.ErrSkipped):
		n.skipped++
	default:
		n.failed++
	}
}

func (n *tally) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped of %d", n.passed, n.failed, n.skipped, n.passed+n.failed+n.skipped)
}

// oneSettings is a case that waits for the server's SETTINGS, makes a request, and then takes
// any SETTINGS frame for the ACK of its own. The mux sends those of the chosen server there,
// as RFC 9113 section 6.5 allows. So the case asks a mux that need not wait for the
// request to choose.
const oneSettings = "http2/6.9.2/1"

// compare runs every case against both servers.
func compare(t *testing.T, ours, atOnce, theirs *config.Config) {
	t.Helper()
	all := cases()
	if len(all) != wantCases {
		t.Errorf("h2spec has %d cases, want %d", len(all), wantCases)
	}
	var mux, alone tally
	for _, c := range all {
		asked := ours
		if c.name == oneSettings {
			asked = atOnce
		}
		atMux, atNetHTTP := c.both(t, asked, theirs)
		mux.add(atMux)
		alone.add(atNetHTTP)
		switch {
		case atMux != nil && atNetHTTP == nil:
			t.Errorf("%s (%s): passes at net/http, and through the mux: %s", c.name, c.Desc, oneLine(atMux))
		case atMux != nil:
			t.Logf("%s (%s): fails at both: through the mux: %s; at net/http: %s", c.name, c.Desc, oneLine(atMux), oneLine(atNetHTTP))
		case atNetHTTP != nil:
			t.Logf("%s (%s): passes through the mux, and at net/http: %s", c.name, c.Desc, oneLine(atNetHTTP))
		}
	}
	t.Logf("mux: %v; net/http alone: %v", &mux, &alone)
}

// both runs the case against both servers at the same time, and again while
// the mux alone fails it.
func (c namedCase) both(t *testing.T, ours, theirs *config.Config) (atMux, atNetHTTP error) {
	t.Helper()
	for try := range 1 + retries {
		if try > 0 {
			t.Logf("%s: differs, run again (%d of %d): %s", c.name, try, retries, oneLine(atMux))
		}
		done := make(chan error)
		go func() { done <- c.run(theirs) }()
		atMux = c.run(ours)
		atNetHTTP = <-done
		if atMux == nil || atNetHTTP != nil {
			break
		}
	}
	return atMux, atNetHTTP
}

// oneLine says what a case saw and what it expected.
func oneLine(err error) string {
	if failed, ok := errors.AsType[*spec.TestError](err); ok {
		return cmp.Or(failed.Actual, "nothing") + ", want " + strings.Join(failed.Expected, " or ")
	}
	return err.Error()
}

// page is what both servers answer. The flow-control cases need a body of some length.
func page(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	_, _ = io.WriteString(w, strings.Repeat("h2spec ", 100))
}

// allProtocols switches everything on that the mux recognises.
func allProtocols() []mux.Option {
	return []mux.Option{
		mux.WithHandler(http.HandlerFunc(page)),
		mux.WithGRPC(func(r mux.GRPCRegistrar) { testgrpc.RegisterTestServiceServer(r, interop.NewTestServer()) }),
		mux.WithWebSocket(func(context.Context, *websocket.Conn, *http.Request) error { return nil }),
	}
}

// netHTTP serves the same page with net/http alone, with the very settings of
// the mux's own HTTP/2 server.
func netHTTP(t *testing.T, withTLS bool) served.Server {
	t.Helper()
	c := mux.DefaultConfig()
	settings := protocols.NewHTTP2Server(c.HTTP2, protocols.HTTPHooks{Logger: slog.New(slog.DiscardHandler)})
	srv := &http.Server{
		Handler:           http.HandlerFunc(page),
		ReadHeaderTimeout: c.HTTP1.HeaderTimeout,
		IdleTimeout:       settings.IdleTimeout,
		MaxHeaderBytes:    settings.MaxHeaderBytes,
		HTTP2:             settings.HTTP2,
		Protocols:         new(http.Protocols),
		ErrorLog:          settings.ErrorLog,
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(withTLS)
	srv.Protocols.SetUnencryptedHTTP2(!withTLS)
	l := served.Listen(t)
	s := served.Server{Addr: l.Addr().String()}
	ended := make(chan error, 1)
	if withTLS {
		srv.TLSConfig, s.Roots = served.Certificate(t)
		go func() { ended <- srv.ServeTLS(l, "", "") }()
	} else {
		go func() { ended <- srv.Serve(l) }()
	}
	t.Cleanup(func() {
		_ = srv.Close()
		<-ended
	})
	return s
}
