package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// tally counts what became of one kind of client. It is safe for concurrent use.
type tally struct {
	kind string

	sent     atomic.Int64 // Requests and messages, each counted once however often it goes out.
	answered atomic.Int64
	retried  atomic.Int64 // Further attempts at requests that were surely not processed.
	resent   atomic.Int64 // Messages without an answer when their stream was told to end, sent again on the next one.
	failed   atomic.Int64 // Requests and streams that ended in an error.
	broken   atomic.Int64 // Connections that were refused or reset.
	lost     atomic.Int64 // Messages without an answer within their time.
	doubled  atomic.Int64 // Messages that were answered twice.

	// goAway and goingAway count what was told to leave by GOAWAY and by close
	// code 1001, untold what ended without a word: streams where the client holds
	// some, else HTTP/2 connections.
	goAway    atomic.Int64
	goingAway atomic.Int64
	untold    atomic.Int64

	// oneStep and twoSteps count the HTTP/2 connections that got a first and a second
	// GOAWAY, misled the frames that named a stream they must not.
	oneStep  atomic.Int64
	twoSteps atomic.Int64
	misled   atomic.Int64

	mu     sync.Mutex
	faults []string // guarded by mu; the first of them
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

// firstFaults returns what faultf has kept so far.
func (t *tally) firstFaults() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.faults)
}

// columns are the figures of a row, in the order of the table.
func (t *tally) columns() []*atomic.Int64 {
	return []*atomic.Int64{
		&t.sent, &t.answered, &t.retried, &t.resent, &t.failed, &t.broken,
		&t.lost, &t.doubled, &t.goAway, &t.goingAway, &t.untold,
	}
}

var columnNames = []any{
	"sent", "answered", "retried", "resent", "failed", "refused/reset",
	"lost", "doubled", "GOAWAY", "1001", "untold",
}

// add adds another tally's figures and faults.
func (t *tally) add(other *tally) {
	mine := t.columns()
	for i, c := range other.columns() {
		mine[i].Add(c.Load())
	}
	t.oneStep.Add(other.oneStep.Load())
	t.twoSteps.Add(other.twoSteps.Load())
	t.misled.Add(other.misled.Load())
	for _, f := range other.firstFaults() {
		t.faultf("%s: %s", other.kind, f)
	}
}

// retriesAllowed is the share of requests that may take a second attempt, and
// fewRetries how many may where there are few requests: a request may always
// cross the end of an idle connection, but rarely does.
const (
	retriesAllowed = 1e-3
	fewRetries     = 3
)

// ok reports whether nothing was lost.
func (t *tally) ok() bool {
	for _, c := range []*atomic.Int64{&t.failed, &t.broken, &t.lost, &t.doubled, &t.untold, &t.misled} {
		if c.Load() != 0 {
			return false
		}
	}
	// A gRPC stream ends in order: what was sent before its client was told is answered.
	if strings.HasPrefix(t.kind, "grpc") && t.resent.Load() != 0 {
		return false
	}
	sent := t.sent.Load()
	return t.answered.Load() == sent && float64(t.retried.Load()) <= max(fewRetries, retriesAllowed*float64(sent))
}

const (
	nameLayout   = "%-10s %-13s"
	figureLayout = " %8v %8v %7v %6v %6v %13v %4v %7v %6v %6v %6v\n"
)

func printHeader(w io.Writer) {
	fmt.Fprintf(w, nameLayout, "scenario", "clients")
	fmt.Fprintf(w, figureLayout, columnNames...)
}

// write prints one row of the table.
func (t *tally) write(w io.Writer, scenario string) {
	fmt.Fprintf(w, nameLayout, scenario, t.kind)
	var figures []any
	for _, c := range t.columns() {
		figures = append(figures, c.Load())
	}
	fmt.Fprintf(w, figureLayout, figures...)
}

// tallies are the rows of a scenario, one for each kind of client.
type tallies []*tally

// total adds all rows up.
func (ts tallies) total() *tally {
	sum := &tally{kind: "all"}
	for _, t := range ts {
		sum.add(t)
	}
	return sum
}

// write prints the rows, their sum, and what went wrong. It returns an error if
// anything was lost.
func (ts tallies) write(w io.Writer, scenario string) error {
	bad := 0
	for _, t := range ts {
		t.write(w, scenario)
		if !t.ok() {
			bad++
		}
	}
	if len(ts) > 1 {
		ts.total().write(w, scenario)
	}
	ts.writeSteps(w)
	for _, t := range ts {
		for _, f := range t.firstFaults() {
			fmt.Fprintf(w, "  FAILED: %s: %s\n", t.kind, f)
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d kinds of clients lost something", bad, len(ts))
	}
	return nil
}

// writeSteps prints how many of the connections that got a GOAWAY got the second
// one too. A client that has closed its connection after the first gets no other.
func (ts tallies) writeSteps(w io.Writer) {
	var kinds []string
	for _, t := range ts {
		if one := t.oneStep.Load(); one > 0 {
			kinds = append(kinds, fmt.Sprintf("%s %d of %d", t.kind, t.twoSteps.Load(), one))
		}
	}
	if len(kinds) > 0 {
		fmt.Fprintf(w, "told in two steps, of the connections told by GOAWAY: %s\n", strings.Join(kinds, ", "))
	}
}

// toldOfAll returns an error for each kind of long-lived client of which none was
// told to leave: then the scenario has shown nothing.
func (ts tallies) toldOfAll() error {
	var errs []error
	for _, t := range ts {
		if strings.HasPrefix(t.kind, "http1") {
			continue // Its word is Connection: close, or the end of an idle connection.
		}
		if t.goAway.Load()+t.goingAway.Load() == 0 {
			errs = append(errs, fmt.Errorf("%s: none was told to leave", t.kind))
		}
	}
	return errors.Join(errs...)
}
