package mux_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"path/filepath"
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
