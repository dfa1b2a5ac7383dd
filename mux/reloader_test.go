package mux_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
)

// TestReloadPlan: the plan has every key that differs and how it is applied, and no
// secrets.
func TestReloadPlan(t *testing.T) {
	s := configured(t, func(*mux.Config) {})
	c := s.Config()
	address := c.Listeners[0].Address
	if p, err := s.Plan(c); err != nil || len(p) != 0 {
		t.Errorf("no change: %v, %v", p, err)
	}
	c.HTTP1.MaxAge = time.Minute
	c.HTTP1.Progress.MinBodyRate = 7
	c.GRPC.MaxRecvBytes = 5
	c.Listeners[0].Protocols = []string{"http1"}
	c.Listeners[0].TLS = listeners.TLSConfig{Mode: "manual", Cert: "cert.pem", Key: "-----BEGIN SECRET", KeyPassphrase: "secret"}
	c.Listeners = append(c.Listeners, listeners.Config{Address: "127.0.0.1:1"})
	p, err := s.Plan(c)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, change := range p {
		got[change.Path] = change.Old + " -> " + change.New + " " + change.Apply
		if change.How == "" {
			t.Errorf("%s: how?", change.Path)
		}
		if strings.Contains(change.New, "SECRET") || strings.Contains(change.New, "secret") {
			t.Errorf("%s shows a secret: %s", change.Path, change.New)
		}
	}
	for path, want := range map[string]string{
		"http1.max_age":          "0s -> 1m0s runtime",
		"http1.min_body_rate":    "240 -> 7 runtime",
		"grpc.max_recv_bytes":    "4194304 -> 5 restart",
		"listeners[0].protocols": "[http1 http2 grpc websocket] -> [http1] restart",
		"listeners[0].tls.mode":  "off -> manual restart",
		"listeners[1].address":   " -> 127.0.0.1:1 restart",
		"listeners[0].tls.cert":  " -> cert.pem runtime",
	} {
		if got[path] != want {
			t.Errorf("%s: %q, want %q", path, got[path], want)
		}
	}
	if _, ok := got["listeners[0].tls.key_passphrase"]; !ok {
		t.Errorf("no change of the passphrase in %v", got)
	}
	c.HTTP1.MaxAge, c.HTTP2.MaxStreams = -1, 0
	if _, err := s.Plan(c); err == nil || !strings.Contains(err.Error(), "http1.max_age") || !strings.Contains(err.Error(), "http2.max_streams") {
		t.Errorf("faults: %v", err)
	}
	if address != s.Config().Listeners[0].Address {
		t.Error("the plan has changed something")
	}
}

// TestReloadKeepsSocket: no connection is refused or lost while the listener's settings
// change many times.
func TestReloadKeepsSocket(t *testing.T) {
	t.Parallel()
	s := configured(t, func(c *mux.Config) { c.Drain.Spread = 20 * time.Millisecond })
	var stop atomic.Bool
	failed := make(chan error, 4)
	for range 4 {
		go func() {
			for !stop.Load() {
				if err := oneRequest(s.addr); err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
	}
	const changes = 40
	all := []string{"http1", "http2", "grpc", "websocket"}
	for i := range changes {
		s.reload(t, func(c *mux.Config) {
			c.Listeners[0].Protocols = all[:1+i%4]
			c.HTTP1.IdleTimeout = time.Duration(i+1) * time.Minute
		})
	}
	stop.Store(true)
	for range 4 {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	eventually(t, "one generation is left", func() bool { return s.Backends() == 1 })
}

// oneRequest makes a request on a new connection.
func oneRequest(addr string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// TestReloadFails: a failed change leaves everything as it was.
func TestReloadFails(t *testing.T) {
	s := configured(t, func(*mux.Config) {})
	taken := listen(t)
	defer taken.Close()
	refusal := errors.New("not on a Friday")
	var opened, closed int
	s.OnReload(func(_, _ mux.Config) (mux.ReloadPart, error) {
		opened++
		return mux.ReloadPart{Undo: func() { closed++ }, Commit: func() { t.Error("committed") }}, nil
	})
	s.OnReload(func(_, to mux.Config) (mux.ReloadPart, error) {
		if to.HTTP1.MaxConnections == 13 {
			return mux.ReloadPart{}, refusal
		}
		if to.HTTP1.MaxConnections == 14 {
			panic("fourteen")
		}
		return mux.ReloadPart{}, nil
	})
	before := s.Config()
	free := freeAddress(t)
	for name, edit := range map[string]func(*mux.Config){
		"not valid": func(c *mux.Config) { c.HTTP1.MaxAge = -1 },
		"address taken": func(c *mux.Config) {
			c.Listeners = append([]listeners.Config{{Address: free}}, listeners.Config{Address: taken.Addr().String()})
		},
		"no certificate": func(c *mux.Config) {
			c.Listeners[0].TLS = listeners.TLSConfig{Mode: "manual", Cert: "/nowhere.pem", Key: "/nowhere.key"}
		},
		"refused":  func(c *mux.Config) { c.HTTP1.MaxConnections = 13 },
		"panicked": func(c *mux.Config) { c.HTTP1.MaxConnections = 14 },
	} {
		c := s.Config()
		edit(&c)
		c.Limits.PerAddress = 99
		v, err := s.Reload(c, "test")
		if err == nil || v.Outcome != mux.OutcomeFailed || v.Err != err.Error() {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
		if name == "refused" && !errors.Is(err, refusal) {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(before, s.Config()); diff != "" {
			t.Errorf("%s (-before +after):\n%s", name, diff)
		}
		if got := s.status(t, "/livez"); got != http.StatusOK {
			t.Errorf("%s: %d", name, got)
		}
		if l, err := net.Listen("tcp", free); err != nil {
			t.Errorf("%s: what was bound was not given back: %v", name, err)
		} else {
			_ = l.Close()
		}
	}
	if opened != 4 || closed != opened {
		t.Errorf("a function of OnReload was asked %d times and undone %d times", opened, closed)
	}
}

// TestHistory: the last 20 versions are kept, and a rollback puts one of them in force
// again.
func TestHistory(t *testing.T) {
	s := configured(t, func(*mux.Config) {})
	first := s.Config().Limits.PerAddress
	for i := range 25 {
		s.reload(t, func(c *mux.Config) { c.Limits.PerAddress = 1000 + i })
	}
	history := s.History().Versions
	if len(history) != 20 || history[19].Number != 26 || history[0].Number != 7 {
		t.Fatalf("%d versions, from %d to %d", len(history), history[0].Number, history[len(history)-1].Number)
	}
	v, err := s.Rollback(20, "operator")
	if err != nil || v.Number != 27 || v.Origin != "operator, rollback to 20" {
		t.Errorf("%+v, %v", v, err)
	}
	if got := s.Config().Limits.PerAddress; got != 1018 {
		t.Errorf("per_address %d", got)
	}
	if _, err := s.Rollback(1, "operator"); err == nil {
		t.Errorf("rolled back to a version that is forgotten, with per_address %d", first)
	}
	c := s.Config()
	c.HTTP1.MaxAge = -1
	failed, _ := s.Reload(c, "test")
	if _, err := s.Rollback(failed.Number, "operator"); err == nil || !strings.Contains(err.Error(), "never in force") {
		t.Error(err)
	}
}

// TestReloadAtTheWrongTime: Reload fails before the server serves and from the drain on.
func TestReloadAtTheWrongTime(t *testing.T) {
	m := mux.New(mux.WithLogger(discard))
	c := m.Config()
	c.HTTP1.MaxRequests = 5
	if _, err := m.Reload(c, "test"); !errors.Is(err, mux.ErrNotServing) {
		t.Errorf("before: %v", err)
	}
	_ = m.Close()
	if _, err := m.Reload(c, "test"); !errors.Is(err, mux.ErrNotServing) {
		t.Errorf("after: %v", err)
	}
}

// TestReloadExtra: the embedder's own keys change together with the server's, are in the
// same version, and are rolled back.
func TestReloadExtra(t *testing.T) {
	s := configured(t, func(c *mux.Config) { c.Extra = "a" })
	inForce := "a"
	s.OnReload(func(from, to mux.Config) (mux.ReloadPart, error) {
		if from.Extra != inForce {
			t.Errorf("from %v, in force is %s", from.Extra, inForce)
		}
		was, is := from.Extra.(string), to.Extra.(string)
		part := mux.ReloadPart{Commit: func() { inForce = is }}
		if was != is {
			part.Changes = []mux.Change{{Path: "own", Old: was, New: is, Apply: mux.ApplyRuntime, How: "at once"}}
		}
		return part, nil
	})
	v := s.reload(t, func(c *mux.Config) { c.Extra, c.HTTP1.MaxRequests = "b", 7 })
	if len(v.Changes) != 2 || v.Changes[0].Path != "http1.max_requests" || v.Changes[1].Path != "own" || inForce != "b" {
		t.Errorf("%+v, in force %s", v, inForce)
	}
	if v := s.reload(t, func(c *mux.Config) { c.Extra = "c" }); v.Number != 3 || len(v.Changes) != 1 || inForce != "c" {
		t.Errorf("%+v, in force %s", v, inForce)
	}
	if v := s.reload(t, func(*mux.Config) {}); v.Number != 3 || v.Outcome != mux.OutcomeUnchanged {
		t.Errorf("%+v", v)
	}
	faulty := errors.New("not YAML")
	v, err := s.ReloadFunc("file", func(c mux.Config) (mux.Config, error) {
		c.Extra = "d"
		return c, faulty
	})
	if !errors.Is(err, faulty) || v.Number != 4 || v.Err != "not YAML" || inForce != "c" {
		t.Errorf("%+v, %v", v, err)
	}
	if v, err = s.Rollback(2, "operator"); err != nil || v.Number != 5 || inForce != "b" || s.Config().Extra != "b" {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestReloadMeetsClose: Close also closes servers that a concurrent reload has just made.
// Serve returns, and no goroutine is left.
func TestReloadMeetsClose(t *testing.T) {
	before := goleak.IgnoreCurrent()
	for round := range 60 {
		s := serveOn(t, mux.New(mux.Configure(noDelay), mux.WithHandler(routes()), mux.WithLogger(discard)), listen(t))
		reload := func(headerBytes int) error {
			c := s.Config()
			c.HTTP1.MaxHeaderBytes = headerBytes
			_, err := s.Reload(c, "test")
			return err
		}
		eventually(t, "the server to be ready", func() bool { return reload(5000) == nil })
		reloaded := make(chan error, 1)
		go func() { reloaded <- reload(6000) }()
		time.Sleep(time.Duration(round%20) * 100 * time.Microsecond) // Close comes at another moment each time.
		if err := s.Close(); err != nil {
			t.Errorf("round %d: Close: %v", round, err)
		}
		_ = within(t, "Reload", reloaded) // It may have been late.
		if err := within(t, "Serve", s.served); err == nil {
			t.Errorf("round %d: Serve returned nil", round)
		}
	}
	goleak.VerifyNone(t, before)
}

// TestCloseEndsSpread: Close does not wait for the moments at which a reload was to tell
// the clients of the servers that it has replaced.
func TestCloseEndsSpread(t *testing.T) {
	s := serveOn(t, mux.New(mux.Configure(patient), mux.WithHandler(routes()), mux.WithLogger(discard)), listen(t))
	for range 8 {
		conn := s.hold(t)
		t.Cleanup(func() { _ = conn.Close() })
	}
	s.reload(t, func(c *mux.Config) { c.HTTP1.MaxHeaderBytes, c.Drain.Spread = 5000, time.Hour })
	if err := within(t, "Close", s.closing()); err != nil {
		t.Errorf("Close: %v", err)
	}
	s.noStepLate(t)
}

// TestReloadCopies: a configuration belongs to its caller again after the reload.
func TestReloadCopies(t *testing.T) {
	s := configured(t, func(*mux.Config) {})
	c := s.Config()
	c.Listeners[0].Protocols = []string{"http1", "http2"}
	if _, err := s.Reload(c, "test"); err != nil {
		t.Fatal(err)
	}
	c.Listeners[0].Protocols[1] = "grpc"
	c.Listeners[0].Address = "127.0.0.1:1"
	in := s.Config().Listeners[0]
	if diff := cmp.Diff([]string{s.addr, "http1", "http2"}, append([]string{in.Address}, in.Protocols...)); diff != "" {
		t.Errorf("in force (-want +got):\n%s", diff)
	}
}

// TestChangeInJSON: nothing restarts, so the JSON of a change says what it reaches.
func TestChangeInJSON(t *testing.T) {
	t.Parallel()
	for apply, want := range map[string]string{mux.ApplyRestart: "new connections", mux.ApplyRuntime: "runtime"} {
		text, err := json.Marshal([]mux.Change{{Path: "p", Apply: apply}})
		if err != nil || !strings.Contains(string(text), `"apply":"`+want+`"`) {
			t.Errorf("%s %v, want apply %q", text, err, want)
		}
	}
}
