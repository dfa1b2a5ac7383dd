package pool_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/pool"
)

// open adds n connections to the pool named tag, and returns them.
func open(t *testing.T, set *pool.Set, tag pool.Tag, n int) []*pool.Conn {
	t.Helper()
	conns := make([]*pool.Conn, n)
	for i := range conns {
		conns[i] = add(set, pipeFrom(t, "192.0.2.1"))
		set.Move(conns[i], tag)
	}
	return conns
}

// TestHealthThresholds walks a pool up and down again: it gets worse above a
// threshold, and better at nine tenths of it.
func TestHealthThresholds(t *testing.T) {
	var set pool.Set
	set.SetLimits(pool.Limits{PerTag: map[pool.Tag]int{"http1": 100}})
	var changes []string
	set.Observe(func(e pool.Event) {
		if e.Kind == pool.EventHealthChanged {
			changes = append(changes, string(e.Tag)+" "+e.Old.String()+" "+e.New.String())
		}
	})
	var conns []*pool.Conn
	to := func(n int, want pool.Health) {
		t.Helper()
		for len(conns) < n {
			conns = append(conns, open(t, &set, "http1", 1)...)
		}
		for len(conns) > n {
			_ = conns[0].Close()
			conns = conns[1:]
		}
		if got := set.Health()["http1"].Status; got != want {
			t.Errorf("with %d of 100: %v, want %v", n, got, want)
		}
	}
	to(80, pool.Healthy)
	to(81, pool.Degraded)
	to(73, pool.Degraded)
	to(72, pool.Healthy)
	to(95, pool.Degraded)
	to(96, pool.Overloaded)
	to(86, pool.Overloaded)
	to(85, pool.Degraded)
	to(95, pool.Degraded)
	to(100, pool.Overloaded)
	to(0, pool.Healthy)
	want := []string{
		"http1 healthy degraded", "http1 degraded healthy", "http1 healthy degraded", "http1 degraded overloaded",
		"http1 overloaded degraded", "http1 degraded overloaded", "http1 overloaded degraded", "http1 degraded healthy",
	}
	if diff := cmp.Diff(want, changes); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

// TestHealthOfAll: every pool has its own health, one without a limit is healthy, and the
// total has its own limit.
func TestHealthOfAll(t *testing.T) {
	var set pool.Set
	set.SetLimits(pool.Limits{Config: pool.Config{MaxConnections: 4}, PerTag: map[pool.Tag]int{"grpc": 2, "websocket": 1}})
	conns := append(open(t, &set, "http1", 3), open(t, &set, "websocket", 1)...)
	status := func(health pool.Health, active int64, limit int, ratio float64) pool.HealthStatus {
		return pool.HealthStatus{Status: health, Active: active, Limit: limit, Ratio: ratio}
	}
	check := func(step string, want map[string]pool.HealthStatus) {
		t.Helper()
		if diff := cmp.Diff(want, set.Health()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step, diff)
		}
	}
	check("full", map[string]pool.HealthStatus{
		"total":     status(pool.Overloaded, 4, 4, 1),
		"sniffing":  status(pool.Healthy, 0, 0, 0),
		"http1":     status(pool.Healthy, 3, 0, 0),
		"grpc":      status(pool.Healthy, 0, 2, 0),
		"websocket": status(pool.Overloaded, 1, 1, 1),
	})
	set.SetLimits(pool.Limits{PerTag: map[pool.Tag]int{"http1": 2, "websocket": 4}})
	check("new limits", map[string]pool.HealthStatus{
		"total":     status(pool.Healthy, 4, 0, 0),
		"sniffing":  status(pool.Healthy, 0, 0, 0),
		"http1":     status(pool.Overloaded, 3, 2, 1.5),
		"websocket": status(pool.Healthy, 1, 4, 0.25),
	})
	set.SetLimits(pool.Limits{
		PerTag: map[pool.Tag]int{"http1": 2, "websocket": 4},
		Health: pool.HealthConfig{DegradedAbove: 0.2, OverloadedAbove: 1},
	})
	for _, c := range conns[:2] {
		_ = c.Close()
	}
	check("new thresholds", map[string]pool.HealthStatus{
		"total":     status(pool.Healthy, 2, 0, 0),
		"sniffing":  status(pool.Healthy, 0, 0, 0),
		"http1":     status(pool.Degraded, 1, 2, 0.5),
		"websocket": status(pool.Degraded, 1, 4, 0.25),
	})
}

// TestHealthUnavailable: a server that does not serve is unavailable, with or without
// connections.
func TestHealthUnavailable(t *testing.T) {
	var set pool.Set
	set.SetLimits(pool.Limits{PerTag: map[pool.Tag]int{"http1": 1, "grpc": 1}})
	conns := open(t, &set, "http1", 1)
	changes := 0
	set.Observe(func(e pool.Event) {
		if e.Kind == pool.EventHealthChanged {
			changes++
		}
	})
	set.SetUnavailable(true)
	set.SetUnavailable(true)
	open(t, &set, "custom", 1)
	for tag, h := range set.Health() {
		if h.Status != pool.Unavailable {
			t.Errorf("%s is %v", tag, h.Status)
		}
	}
	// The total, sniffing, http1, grpc and, when it came, custom.
	if changes != 5 {
		t.Errorf("%d changes, want 5", changes)
	}
	_ = conns[0].Close()
	set.SetUnavailable(false)
	for tag, h := range set.Health() {
		if h.Status != pool.Healthy {
			t.Errorf("afterwards %s is %v", tag, h.Status)
		}
	}
}

// TestHealthRecoversFromLowThresholds: a threshold of less than one connection is left
// when the pool is empty.
func TestHealthRecoversFromLowThresholds(t *testing.T) {
	var set pool.Set
	set.SetLimits(pool.Limits{
		PerTag: map[pool.Tag]int{"http1": 10},
		Health: pool.HealthConfig{DegradedAbove: 0.01, OverloadedAbove: 0.02},
	})
	conns := open(t, &set, "http1", 1)
	if got := set.Health()["http1"].Status; got != pool.Overloaded {
		t.Errorf("with one: %v", got)
	}
	_ = conns[0].Close()
	if got := set.Health()["http1"].Status; got != pool.Healthy {
		t.Errorf("empty: %v", got)
	}
}

// TestHealthConfig: faults are named by their keys in the file.
func TestHealthConfig(t *testing.T) {
	for _, tt := range []struct {
		degraded, overloaded float64
		want                 []string // parts of the message; none for a valid one
	}{
		{0.8, 0.95, nil},
		{0.5, 0.5, nil},
		{1, 1, nil},
		{0, 0.95, []string{"health.degraded_above"}},
		{-1, 1.01, []string{"health.degraded_above", "health.overloaded_above"}},
		{math.NaN(), math.Inf(1), []string{"health.degraded_above", "health.overloaded_above"}},
		{0.9, 0.8, []string{"health.overloaded_above: 0.8 must not be below"}},
	} {
		err := pool.HealthConfig{DegradedAbove: tt.degraded, OverloadedAbove: tt.overloaded}.Validate()
		if (err == nil) != (tt.want == nil) {
			t.Errorf("%v, %v: %v", tt.degraded, tt.overloaded, err)
			continue
		}
		for _, part := range tt.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%v, %v: %q does not name %q", tt.degraded, tt.overloaded, err, part)
			}
		}
	}
	if err := pool.DefaultHealthConfig().Validate(); err != nil {
		t.Error(err)
	}
}

// TestHealthJSON: health is written as a word.
func TestHealthJSON(t *testing.T) {
	got, err := json.Marshal(pool.HealthStatus{Status: pool.Overloaded, Active: 2, Limit: 2, Ratio: 1})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`{"status":"overloaded","active":2,"limit":2,"ratio":1}`, string(got)); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
}

// TestAcceptRates: connections are counted by second and by minute, in each pool they
// come into.
func TestAcceptRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var set pool.Set
		if stats := set.Stats(); len(stats) != 0 {
			t.Errorf("before anything has come: %v", stats)
		}
		for range 90 {
			for range 5 {
				open(t, &set, "http1", 1)
				open(t, &set, "grpc", 1)
			}
			time.Sleep(time.Second)
		}
		check := func(want map[string][2]float64) {
			t.Helper()
			got := make(map[string][2]float64)
			for tag, s := range set.Stats() {
				got[tag] = [2]float64{s.AcceptedPerSecond, s.AcceptedPerMinute}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("rates (-want +got):\n%s", diff)
			}
		}
		check(map[string][2]float64{"sniffing": {10, 600}, "http1": {5, 300}, "grpc": {5, 300}})
		time.Sleep(30 * time.Second)
		check(map[string][2]float64{"sniffing": {0, 300}, "http1": {0, 150}, "grpc": {0, 150}})
		time.Sleep(30 * time.Second)
		check(map[string][2]float64{"sniffing": {}, "http1": {}, "grpc": {}})
	})
}
