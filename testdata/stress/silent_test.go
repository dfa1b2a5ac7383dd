package stress

import (
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/testdata/clients/process"
)

// TestProbes connects and closes without a word, as balancers do. Each probe is
// counted, and none is logged.
func TestProbes(t *testing.T) {
	const probes = 1000
	p := start(t, process.Options{})
	silent := func() int64 {
		return metric(t, p, "mux_connections_rejected_total", `reason="silent"`)
	}
	eventually(t, "muxserve has logged its start", func() bool { return strings.Contains(p.Log(), "msg=serving") })
	log := p.Log()
	for range probes {
		conn, err := net.Dial("tcp", p.Addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	eventually(t, "all probes are counted", func() bool { return silent() >= probes })
	if n := silent(); n != probes {
		t.Errorf("%d probes are counted as silent, want %d", n, probes)
	}
	if got := p.Log(); got != log {
		t.Errorf("probes are logged: %q", got[len(log):])
	}
}

// TestSilentClientsAtClose holds connections that say nothing and closes the
// server: Serve must return at once, though plain cmux never does.
func TestSilentClientsAtClose(t *testing.T) {
	const clients = 100
	s := mux.New(mux.WithLogger(slog.New(slog.DiscardHandler)))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	for range clients {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	eventually(t, "all are accepted", func() bool { return s.Stats().Pools["sniffing"].Active == clients })
	started := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-served:
		if !errors.Is(err, mux.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Serve does not return")
	}
	took := time.Since(started)
	t.Logf("Serve returned %v after Close, with %d silent connections", took.Round(time.Millisecond), clients)
	if took > slack {
		t.Errorf("Serve returned %v after Close, want at once", took)
	}
}
