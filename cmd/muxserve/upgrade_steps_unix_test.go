//go:build unix

package main

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

// TestUpgradeWithoutAnnounce: with the step announce skipped, the old process still
// leaves the admin port to the new one, whose answer the balancer's checks are to get.
func TestUpgradeWithoutAnnounce(t *testing.T) {
	t.Parallel()
	for _, steps := range []string{"announce", "stop-accepting"} {
		t.Run(steps, func(t *testing.T) {
			config := filepath.Join(t.TempDir(), "muxserve.yaml")
			if err := os.WriteFile(config, []byte("drain: {skip_steps: ["+steps+"]}\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			p := startWith(t, nil, textLog, "--config", config, "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--drain-delay=0", "--drain-timeout=20s")
			p.endSuccessors(t)
			// A connection that is busy keeps the old one draining.
			conn, err := net.Dial("tcp", p.service.Host)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write([]byte("GET /echo?sleep=5s HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
				t.Fatal(err)
			}
			eventually(t, "busy", func() bool { return p.adminStatus(t, freshClient(t, ""), "readyz") == http.StatusOK })
			p.upgrade(t, p.cmd.Process.Pid)
			p.logged(t, "phase=draining", 1)
			bad := 0
			const checks = 100
			for range checks {
				if p.adminStatus(t, freshClient(t, ""), "readyz") != http.StatusOK {
					bad++
				}
			}
			if bad > 0 {
				t.Errorf("%d of %d readiness checks after the upgrade were answered by the old process", bad, checks)
			}
		})
	}
}
