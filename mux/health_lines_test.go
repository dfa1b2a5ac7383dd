package mux_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/muxserve/muxserve/mux"
)

// TestHealthUnderOverload: at a limit of 10, with connections that come and go all the
// time, the log has a line for a pool in 5 s and not one for each of them.
func TestHealthUnderOverload(t *testing.T) {
	const (
		limit  = 10
		rounds = 100
		pace   = 5 * time.Second
	)
	var log syncBuffer
	s := start(t, false, mux.WithLogger(recordingLog(&log)), limits(func(c *mux.Config) { c.HTTP1.MaxConnections = limit }))
	began := time.Now()
	var open []net.Conn
	for range limit {
		open = append(open, s.hold(t))
	}
	for range rounds { // From 10 to 7 and back, across both thresholds and what lies below them.
		for _, conn := range open[:3] {
			conn.Close()
		}
		eventually(t, "they are gone", func() bool { return s.active("http1") == limit-3 })
		open = open[3:]
		for range 3 {
			open = append(open, s.hold(t))
		}
	}
	most := 2 + int(time.Since(began)/pace)
	lines := func() int { return strings.Count(log.String(), `msg="pool health changed" protocol=http1`) }
	eventually(t, "a line", func() bool { return lines() > 0 })
	if n := lines(); n > most {
		t.Errorf("%d lines, want at most %d:\n%s", n, most, &log)
	}
}
