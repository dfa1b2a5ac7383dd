package main

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// tally counts what became of one kind of client. It is safe for concurrent use.
type tally struct {
	kind string

	sent     atomic.Int64 // operations
	answered atomic.Int64
	retried  atomic.Int64 // further attempts at what was surely not processed
	conns    atomic.Int64 // connections
	followed atomic.Int64 // connections that the old address refused and the new one took
	refused  atomic.Int64 // connections that no published address took
	failed   atomic.Int64 // operations that ended in an error

	mu      sync.Mutex    // guards what follows
	longest time.Duration // of the operations
	faults  []string      // the first of them
}

// maxFaults bounds how many faults of a kind are printed.
const maxFaults = 5

// faultf keeps what went wrong, to be printed below the row.
func (t *tally) faultf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.faults) < maxFaults {
		t.faults = append(t.faults, fmt.Sprintf(format, args...))
	}
}

// operation does one operation and counts it.
func (t *tally) operation(operate func() error) {
	t.sent.Add(1)
	started := time.Now()
	err := operate()
	took := time.Since(started)
	if err != nil {
		t.failed.Add(1)
		t.faultf("operation %d, after %v: %v", t.sent.Load(), took.Round(time.Millisecond), err)
		return
	}
	t.answered.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.longest = max(t.longest, took)
}

// ok reports whether nothing was lost.
func (t *tally) ok() bool {
	return t.failed.Load() == 0 && t.refused.Load() == 0 && t.sent.Load() > 0 && t.answered.Load() == t.sent.Load()
}

const rowLayout = "%-13s %-15s %8v %8v %7v %6v %8v %7v %6v %8v\n"

func printHeader(w io.Writer) {
	fmt.Fprintf(w, rowLayout, "scenario", "clients", "sent", "answered", "retried", "conns", "followed", "refused", "failed", "longest")
}

// write prints one row of the table, and what went wrong below it.
func (t *tally) write(w io.Writer, scenario string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(w, rowLayout, scenario, t.kind, t.sent.Load(), t.answered.Load(), t.retried.Load(), t.conns.Load(),
		t.followed.Load(), t.refused.Load(), t.failed.Load(), t.longest.Round(time.Millisecond))
	for _, f := range t.faults {
		fmt.Fprintf(w, "  FAILED: %s: %s\n", t.kind, f)
	}
}

// tallies are the rows of a scenario, one for each kind of client.
type tallies []*tally

// write prints the rows. It returns an error if anything was lost.
func (ts tallies) write(w io.Writer, scenario string) error {
	bad := 0
	for _, t := range ts {
		t.write(w, scenario)
		if !t.ok() {
			bad++
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d kinds of clients lost something", bad, len(ts))
	}
	return nil
}
