package mux_test

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
)

// hangingLog is a slog.Handler that hangs while it is told to, and counts its lines then.
type hangingLog struct {
	slog.Handler

	hangs   chan struct{} // closed: it flows
	pending *atomic.Int64 // lines that it has not been given back
}

func newHangingLog(lines *syncBuffer) hangingLog {
	return hangingLog{
		slog.NewTextHandler(lines, &slog.HandlerOptions{Level: slog.LevelDebug}), make(chan struct{}), new(atomic.Int64),
	}
}

func (l hangingLog) Handle(ctx context.Context, r slog.Record) error {
	l.pending.Add(1)
	<-l.hangs
	return l.Handler.Handle(ctx, r)
}

// TestLogHoldsNothingUp: with a log and an access log that hang, requests are answered, a
// reload takes effect, a drain begins, /readyz turns, and the end of the drain's context cuts
// what is left. When the logs flow again, the lines are all there.
func TestLogHoldsNothingUp(t *testing.T) {
	t.Parallel()
	var lines, accesses syncBuffer
	log, access := newHangingLog(&lines), newHangingLog(&accesses)
	m, _ := newServer(t, false, mux.Configure(patient), mux.WithLogger(slog.New(log)), mux.WithAccessLog(slog.New(access)))
	l := listen(t)
	served := make(chan error, 1)
	go func() { served <- m.Serve(l) }()
	s := &server{Server: m, addr: l.Addr().String()}
	if status := s.status(t, "/echo"); status != http.StatusOK {
		t.Errorf("a request: %d", status)
	}
	eventually(t, "both logs hang", func() bool { return log.pending.Load() > 0 && access.pending.Load() > 0 })
	c := s.Config()
	c.HTTP1.MaxConnections = 17
	if _, err := s.Reload(c, "test"); err != nil || s.Config().HTTP1.MaxConnections != 17 {
		t.Errorf("a reload: %v", err)
	}
	busy := s.busy(t)
	defer busy.Close()
	ctx, force := context.WithCancel(t.Context())
	defer force()
	told := s.told(t)
	drained := s.drain(ctx)
	eventually(t, "the drain begins", func() bool { return s.Phase() == mux.PhaseDraining })
	within(t, "every client is told", told)
	force()
	result := within(t, "the drain is forced", drained)
	if result.report.ForcedTotal() != 1 {
		t.Errorf("forced %v", result.report.Forced)
	}
	if err := within(t, "Serve returns", served); err == nil {
		t.Error("Serve returned nil")
	}
	close(log.hangs)
	close(access.hangs)
	eventually(t, "the lines are written", func() bool {
		return strings.Contains(lines.String(), "phase=stopped") && strings.Contains(accesses.String(), "path=/busy")
	})
	for log, n := range s.Stats().LogDropped {
		if n != 0 {
			t.Errorf("%d lines of the %s log dropped", n, log)
		}
	}
}

// TestLinesAreThereAtTheEnd: when Shutdown has returned, every line is written.
func TestLinesAreThereAtTheEnd(t *testing.T) {
	t.Parallel()
	for range 20 {
		var lines syncBuffer
		m := mux.New(mux.Configure(noDelay), mux.WithLogger(recordingLog(&lines)))
		if err := m.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(lines.String(), "phase=stopped") {
			t.Fatalf("no last line in\n%s", &lines)
		}
	}
}

// TestAcceptedLineNamesThePeer: also where a PROXY header is to come, which nobody waits for.
func TestAcceptedLineNamesThePeer(t *testing.T) {
	t.Parallel()
	for name, mode := range map[string]string{"bare": "off", "PROXY": "required"} {
		var lines syncBuffer
		s := startOn(t, false, []listeners.Config{{ProxyProtocol: listeners.ProxyConfig{Mode: mode, Trusted: []string{"127.0.0.1"}}}},
			mux.WithLogger(slog.New(slog.NewTextHandler(&lines, &slog.HandlerOptions{Level: slog.LevelDebug}))))[0]
		conn := s.dial(t)
		want := "msg=\"connection accepted\" protocol=sniffing conn_id=1 remote_addr=" + conn.LocalAddr().String()
		eventually(t, name+": "+want, func() bool { return strings.Contains(lines.String(), want) })
		_ = conn.Close()
	}
}
