package admin

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/pool/requests"
)

// growing returns a server with totals that grow by these numbers each second.
func growing(began time.Time) scripted {
	return scripted{stats: func() mux.Stats {
		seconds := uint64(time.Since(began).Seconds())
		return mux.Stats{
			Phase: lifecycle.PhaseServing,
			Pools: map[string]pool.Stats{"http1": {
				Active: 4, Accepted: 3 * seconds, BytesReceived: 100 * seconds, BytesSent: 1000 * seconds,
			}},
			Rejected: map[string]map[string]uint64{"http1": {"limit": 2 * seconds, "silent": 1}},
			Requests: map[string]requests.Stats{"http1": {
				Total: 20 * seconds, InFlight: 5, ErrorRate: 0.1, Mean: 0.012, P50: 0.01, P95: 0.02, P99: 0.03,
			}},
			Health: map[string]pool.HealthStatus{"http1": {Status: pool.Degraded}},
		}
	}}
}

// run takes samples until the end of the test.
func run(t *testing.T, p *Pages) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Run(ctx)
	}()
	synctest.Wait()
	t.Cleanup(func() {
		stop()
		<-done
	})
}

func TestSample(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		p := New(growing(began), Options{})
		run(t, p)
		time.Sleep(2 * sampleInterval)
		synctest.Wait()
		one := sample{
			Phase: lifecycle.PhaseServing,
			Protocols: map[string]protocolSample{"http1": {
				Active: 4, AcceptedPerSecond: 3, RejectedPerSecond: 2, BytesReceivedPerSecond: 100, BytesSentPerSecond: 1000,
				RequestsPerSecond: 20, InFlight: 5, ErrorRate: 0.1, Mean: 0.012, P50: 0.01, P95: 0.02, P99: 0.03,
			}},
			Health: map[string]string{"http1": "degraded"},
		}
		want := []sample{one, one}
		want[0].Time, want[1].Time = began.Add(sampleInterval), began.Add(2*sampleInterval)
		if diff := cmp.Diff(want, p.history.list()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// TestHistoryForgets: the history never covers more than five minutes.
func TestHistoryForgets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		p := New(growing(began), Options{})
		run(t, p)
		for _, tt := range []struct {
			after         time.Duration
			first, last   time.Duration // of the samples, since the beginning
			samples       int
			limit, silent uint64 // rejected recently
		}{
			{sampleInterval - 1, 0, 0, 0, 8, 1},
			{sampleInterval, sampleInterval, sampleInterval, 1, 10, 0},
			{historyLength, sampleInterval, historyLength, 60, 600, 0},
			{historyLength + sampleInterval, 2 * sampleInterval, historyLength + sampleInterval, 60, 600, 0},
			{time.Hour, time.Hour - historyLength + sampleInterval, time.Hour, 60, 600, 0},
		} {
			time.Sleep(time.Until(began.Add(tt.after)))
			synctest.Wait()
			samples := p.history.list()
			if len(samples) != tt.samples {
				t.Fatalf("after %s: %d samples, want %d", tt.after, len(samples), tt.samples)
			}
			if n := len(samples); n > 0 {
				got := [2]time.Duration{samples[0].Time.Sub(began), samples[n-1].Time.Sub(began)}
				if diff := cmp.Diff([2]time.Duration{tt.first, tt.last}, got); diff != "" {
					t.Errorf("after %s (-want +got):\n%s", tt.after, diff)
				}
			}
			recently := p.health().Protocols["http1"].RejectedRecently
			if recently["limit"] != tt.limit || recently["silent"] != tt.silent {
				t.Errorf("after %s: rejected recently %v, want %d and %d", tt.after, recently, tt.limit, tt.silent)
			}
		}
	})
}

// TestNewPool: a new pool starts at zero, and a pool that is gone is not shown.
func TestNewPool(t *testing.T) {
	t.Parallel()
	now := time.Now()
	from := moment{now, mux.Stats{Pools: map[string]pool.Stats{"old": {Accepted: 5}}}}
	to := moment{now.Add(2 * time.Second), mux.Stats{
		Phase:  lifecycle.PhaseDraining,
		Pools:  map[string]pool.Stats{"custom": {Accepted: 10, Active: 1}},
		Health: map[string]pool.HealthStatus{"custom": {Status: pool.Healthy}},
	}}
	want := sample{
		Time:      to.at,
		Phase:     lifecycle.PhaseDraining,
		Protocols: map[string]protocolSample{"custom": {Active: 1, AcceptedPerSecond: 5}},
		Health:    map[string]string{"custom": "unavailable"},
	}
	if diff := cmp.Diff(want, newSample(from, to)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
