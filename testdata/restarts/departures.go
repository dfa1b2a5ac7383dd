package main

import (
	"slices"
	"sync"
	"time"
)

// departures are the moments at which clients reconnected. Safe for concurrent use.
type departures struct {
	mu    sync.Mutex
	times []time.Time // guarded by mu
}

func (d *departures) add(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.times = append(d.times, t)
}

func (d *departures) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.times)
}

// busiest returns how many fall into the busiest stretch of that length, wherever it begins.
func (d *departures) busiest(stretch time.Duration) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	slices.SortFunc(d.times, time.Time.Compare)
	most, first := 0, 0
	for last, t := range d.times {
		for t.Sub(d.times[first]) >= stretch {
			first++
		}
		most = max(most, last-first+1)
	}
	return most
}

// period returns the time from the first to the last.
func (d *departures) period() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.times) == 0 {
		return 0
	}
	return slices.MaxFunc(d.times, time.Time.Compare).Sub(slices.MinFunc(d.times, time.Time.Compare))
}
