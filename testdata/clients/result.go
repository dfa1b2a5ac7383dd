package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/muxserve/muxserve/testdata/clients/record"
)

// result is what came of a row.
type result struct {
	row
	sent, answered int
	err            error
	duration       time.Duration
	seen           []record.Counts // nil over TLS
}

// ok reports whether nothing was lost and each client saw what one server would
// have sent.
func (r result) ok() bool { return r.err == nil && r.answered == r.sent && r.faults() == nil }

// faults returns what is wrong with the connections that were recorded.
func (r result) faults() []string {
	var faults []string
	for _, c := range r.http2() {
		// A client that speaks first sees its server's SETTINGS. Another may see some before
		// them.
		if c.Settings < 1 || c.Settings > 2 || c.Settings > 1 && c.Eager {
			faults = append(faults, fmt.Sprintf("%d SETTINGS on a connection, eager: %t", c.Settings, c.Eager))
		}
		if c.Acks < 1 || c.Acks > c.ClientSettings {
			faults = append(faults, fmt.Sprintf("%d ACKs for %d SETTINGS", c.Acks, c.ClientSettings))
		}
		if c.GoAwayErrors != 0 {
			faults = append(faults, "GOAWAY with an error")
		}
	}
	return faults
}

// http2 returns the recorded connections that spoke HTTP/2, and were meant to.
func (r result) http2() []record.Counts {
	var seen []record.Counts
	for _, c := range r.seen {
		if c.HTTP2 && !r.partial {
			seen = append(seen, c)
		}
	}
	return seen
}

const layout = "%-11s %-40s %-18s %8s %8s %9s %8s %9s\n"

// maxFaults bounds how many lines of what went wrong with a row are printed.
const maxFaults = 5

func printHeader(w io.Writer) {
	fmt.Fprintf(w, layout, "client", "form", "server", "sent", "answered", "SETTINGS", "ACKs", "time")
}

// print prints the row, and below it what went wrong, if not all of it.
func (r result) print(w io.Writer) {
	fmt.Fprintf(w, layout, r.client, r.form, r.server, fmt.Sprint(r.sent), fmt.Sprint(r.answered),
		r.each(func(c record.Counts) int { return c.Settings }),
		r.each(func(c record.Counts) int { return c.Acks }),
		r.duration.Round(100*time.Millisecond))
	faults := r.faults()
	if r.err != nil {
		faults = append(strings.Split(strings.TrimSpace(r.err.Error()), "\n"), faults...)
	}
	for i, fault := range faults {
		if i == maxFaults {
			fmt.Fprintf(w, "  FAILED: and %d lines more\n", len(faults)-i)
			break
		}
		fmt.Fprintln(w, "  FAILED:", fault)
	}
}

// each returns how many of a thing were seen on each HTTP/2 connection: one
// number, or the least and the most.
func (r result) each(count func(record.Counts) int) string {
	seen := r.http2()
	if len(seen) == 0 {
		return "-"
	}
	least, most := count(seen[0]), count(seen[0])
	for _, c := range seen {
		least, most = min(least, count(c)), max(most, count(c))
	}
	if least == most {
		return fmt.Sprintf("%d each", least)
	}
	return fmt.Sprintf("%d to %d", least, most)
}
