package main

import (
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// closedLoop lets every worker perform its operation again and again for as long as
// d, at least once. It returns how many operations there were and how long they took.
func closedLoop(workers []worker, d time.Duration) (operations int, took time.Duration, err error) {
	var (
		total   atomic.Int64
		errs    = make([]error, len(workers))
		running sync.WaitGroup
		started = time.Now()
	)
	for i, perform := range workers {
		running.Go(func() {
			for done := 0; ; {
				n, err := perform()
				done += n
				if err != nil || time.Since(started) >= d {
					errs[i] = err
					total.Add(int64(done))
					return
				}
			}
		})
	}
	running.Wait()
	return int(total.Load()), time.Since(started), errors.Join(errs...)
}

// openLoop has operations performed at the moments that rate, in operations a second, sets, whether
// the server keeps up or not. It returns how long after its moment each was done, in ascending order.
func openLoop(workers []worker, rate float64, d time.Duration) ([]time.Duration, error) {
	count := max(int(rate*d.Seconds()), 1)
	due := make(chan time.Time, count) // So that the pace never waits for a worker.
	go pace(due, count, rate)
	var (
		mu        sync.Mutex // guards what follows
		latencies = make([]time.Duration, 0, count)
		errs      []error
		running   sync.WaitGroup
	)
	for _, perform := range workers {
		running.Go(func() {
			var own []time.Duration
			var failed error
			for moment := range due {
				if failed != nil {
					continue // The others, and the pace, go on.
				}
				_, failed = perform()
				own = append(own, time.Since(moment))
			}
			mu.Lock()
			defer mu.Unlock()
			latencies = append(latencies, own...)
			errs = append(errs, failed)
		})
	}
	running.Wait()
	slices.Sort(latencies)
	return latencies, errors.Join(errs...)
}

// pace sends the moments on due, each when it has come, and closes it. It sleeps in the kernel: the
// runtime's own timers wake an idle process up to a millisecond late.
func pace(due chan<- time.Time, count int, rate float64) {
	defer close(due)
	started := time.Now()
	for i := range count {
		moment := started.Add(time.Duration(float64(i) / rate * float64(time.Second)))
		if time.Until(moment) > 0 {
			// A worker that was woken up waits for this very processor, which the kernel call below would keep.
			runtime.Gosched()
		}
		if wait := time.Until(moment); wait > 0 {
			t := unix.NsecToTimespec(wait.Nanoseconds())
			_ = unix.Nanosleep(&t, nil) // To wake up early does no harm.
		}
		due <- moment
	}
}
