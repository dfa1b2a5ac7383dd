package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/muxserve/muxserve/testdata/clients/process"
	"github.com/muxserve/muxserve/testdata/fleet/sim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRestart is one restart with 200 clients: nothing is lost, as in the simulation, and
// each connection that the clients count is one that a server counts.
func TestRestart(t *testing.T) {
	if _, err := exec.LookPath("haproxy"); err != nil {
		t.Skip(err) // .ci/run installs it.
	}
	binary, err := process.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	sc := *scenarios()[0]
	sc.webSockets, sc.channels, sc.keepAlives = 100, 50, 50
	sc.restarted, sc.every, sc.settle = 1, 500*time.Millisecond, 4*time.Second
	sc.balancer.Interval = 500 * time.Millisecond // The time for a check, too.
	sc.drain.Delay, sc.drain.Spread, sc.drain.Timeout = 4*time.Second, 3*time.Second, time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // Its end ends the processes.
	defer cancel()
	o, err := sc.play(ctx, binary)
	if err != nil {
		t.Fatal(err)
	}
	if o.refused+o.cut+o.failed != 0 {
		t.Errorf("%d refused, %d cut, %d operations failed: %q", o.refused, o.cut, o.failed, o.faults)
	}
	// The server had a third of them, and HTTP/1.1 clients may not have wanted another one.
	if least := (sc.webSockets + sc.channels) / 3 / 2; o.reconnects < least || o.reconnects != o.accepted {
		t.Errorf("clients count %d reconnects, the servers %d; want the same and at least %d", o.reconnects, o.accepted, least)
	}
	if r := sc.simulate(1); r.Loss() != 0 || r.Reconnects == 0 {
		t.Errorf("the simulation loses %d of %d", r.Loss(), r.Reconnects)
	}
}

// TestHerdWarning: muxserve's warning counts with the costs of the simulation.
func TestHerdWarning(t *testing.T) {
	binary, err := process.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "muxserve.yaml")
	if err := os.WriteFile(config, []byte("limits: {max_connections: 100000}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for tls, flag := range map[sim.TLS]string{sim.Plain: "--tls=off", sim.TLSFull: "--tls=self-signed"} {
		cmd := exec.CommandContext(t.Context(), binary, "check", "--config="+config, "--drain-spread=5s", flag)
		cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		want := fmt.Sprintf("20000 reconnects a second, and a replica (GOMAXPROCS 1) has time for %d ", time.Second/sim.Cost(sim.GRPC, tls))
		if !strings.Contains(string(out), want) {
			t.Errorf("%s: %q is missing in:\n%s", flag, want, out)
		}
	}
}

// TestCompare: what differs too much is an error.
func TestCompare(t *testing.T) {
	sc := scenarios()[0]
	r := sc.simulate(1)
	good := outcome{reconnects: r.Reconnects, accepted: r.Reconnects, peak: r.PeakReconnects}
	tests := []struct {
		name   string
		change func(*outcome)
		want   string
	}{
		{"the same", func(*outcome) {}, ""},
		{"within the tolerance", func(o *outcome) { o.peak += o.peak / 10 }, ""},
		{"a higher peak", func(o *outcome) { o.peak += o.peak / 5 }, "peak of reconnects"},
		{"a lower peak", func(o *outcome) { o.peak -= o.peak / 5 }, "peak of reconnects"},
		{"a loss", func(o *outcome) { o.refused = 1 }, "connections lost"},
		{"a cut", func(o *outcome) { o.cut = 1 }, "connections lost"},
		{"a connection that a server alone has seen", func(o *outcome) { o.accepted++ }, "clients count"},
	}
	for _, tt := range tests {
		o := good
		tt.change(&o)
		err := sc.compare(io.Discard, []outcome{o}, 1)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestBusiest(t *testing.T) {
	s := func(tenths ...int) []time.Duration {
		var moments []time.Duration
		for _, n := range tenths {
			moments = append(moments, time.Duration(n)*100*time.Millisecond)
		}
		return moments
	}
	for _, tt := range []struct {
		moments []time.Duration
		want    int
	}{
		{nil, 0},
		{s(0), 1},
		{s(0, 10, 20), 1},
		{s(30, 0, 12, 9, 18), 3},
	} {
		if got := busiest(slices.Clone(tt.moments), time.Second); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.moments, got, tt.want)
		}
	}
}

// TestRecipe: HAProxy has the recipe's own checks and retries where the simulation's
// balancer is [sim.HAProxy], and others where a scenario changes them.
func TestRecipe(t *testing.T) {
	text, err := recipeText()
	if err != nil {
		t.Fatal(err)
	}
	h := &haproxy{socket: "s", bind: new(process.Port)}
	same := h.configure(text, sim.HAProxy(sim.LeastConn), nil)
	for _, want := range []string{"balance leastconn\n", " check inter 2000ms fall 3 rise 1 ", "retries 2\n", "option redispatch\n"} {
		if !strings.Contains(same, want) {
			t.Errorf("%q is missing in:\n%s", want, same)
		}
	}
	for _, want := range []string{" check inter 2s fall 3 rise 1 ", "retries 2\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in the recipe", want)
		}
	}
	late := h.configure(text, scenarios()[1].balancer, nil)
	for _, want := range []string{" check inter 500ms fall 10 rise 1 ", "retries 0\n"} {
		if !strings.Contains(late, want) {
			t.Errorf("%q is missing in:\n%s", want, late)
		}
	}
}
