package mux_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"testing"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
)

// TestReusePortResumes: a client resumes its TLS session on every socket of a listener.
func TestReusePortResumes(t *testing.T) {
	t.Parallel()
	ca, dir := newAuthority(t), t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writePair(t, ca.issue(t, "server.test"), cert, key)
	s := configured(t, func(c *mux.Config) {
		c.Listeners[0].ReusePort = 8
		c.Listeners[0].TLS = listeners.TLSConfig{Cert: cert, Key: key}
	})
	tr := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		RootCAs: ca.pool, ServerName: "server.test", ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}}
	defer tr.CloseIdleConnections()
	const connections = 24 // The kernel chooses the same socket for all of them once in 10^21 times.
	for i := range connections {
		resp, err := (&http.Client{Transport: tr}).Get("https://" + s.addr + "/livez")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.TLS.DidResume != (i > 0) {
			t.Errorf("connection %d has resumed a session: %t", i, resp.TLS.DidResume)
		}
	}
}

// TestReloadReusePort changes the number of a listener's sockets while clients connect anew for
// each request, in reloads of which half fail. The clients take all processors, so it does not
// run beside tests of timeouts.
func TestReloadReusePort(t *testing.T) {
	taken := listen(t)
	defer func() { _ = taken.Close() }()
	port := freePort(t)
	c := func(n int) mux.Config {
		c := at("127.0.0.1:" + port)
		c.Listeners[0].ReusePort = n
		return c
	}
	s := serveConfigured(t, c(12))
	answers, stop := askSteadily(t, 64, port)
	for _, n := range slices.Repeat([]int{1, 8, 3, 12}, 6) {
		before := answers.Load()
		eventually(t, "the clients are served", func() bool { return answers.Load() > before+50 || t.Failed() })
		failing := c(20)
		failing.Listeners = append(failing.Listeners, listeners.Config{Address: taken.Addr().String()})
		if _, err := s.Reload(failing, "test"); err == nil {
			t.Error("a reload to an address in use succeeds")
		}
		if _, err := s.Reload(c(n), "test"); err != nil {
			t.Error(err)
		}
	}
	stop()
}
