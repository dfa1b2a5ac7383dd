//go:build unix

package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestHealthLines: a pool that is full one moment and not the next, as under overload, has
// one line in the log at once and at most one in 5 s from then on.
func TestHealthLines(t *testing.T) {
	t.Parallel()
	const (
		limit  = 10
		rounds = 50
		pace   = 5 * time.Second
	)
	config := filepath.Join(t.TempDir(), "muxserve.yaml")
	if err := os.WriteFile(config, []byte("http1:\n  max_connections: 10\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "--config", config, "--drain-delay=0", "--drain-timeout=0s")
	admin := httpClient(t, false)
	began := time.Now()
	var open []net.Conn
	hold := func() {
		conn, err := net.Dial("tcp", p.service.Host)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := io.WriteString(conn, "GET /echo?sleep=1m HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
	}
	for range rounds { // From 10 to 5 and back, across both thresholds.
		for len(open) < limit {
			hold()
		}
		eventually(t, "the pool is full", func() bool { return p.connections(t, admin, "active") == limit })
		for _, conn := range open[limit/2:] {
			_ = conn.Close()
		}
		open = open[:limit/2]
		eventually(t, "half of them are gone", func() bool { return p.connections(t, admin, "active") == limit/2 })
	}
	most := 2 + int(time.Since(began)/pace)
	p.logged(t, "pool health changed", 1)
	if n := strings.Count(p.stderr.String(), "pool health changed"); n > most {
		t.Errorf("%d lines, want at most %d", n, most)
	}
}
