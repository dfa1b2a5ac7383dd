package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// unlogged stands for the lines of an access log that the row does not count.
const unlogged = -1

// result is what came of a row.
type result struct {
	sent        int
	connections int // How many the backends were given.
	logged      int // How many lines the access log has, or unlogged.
	duration    time.Duration
	log         string // What the proxy has printed.

	again atomic.Int64 // How many calls the clients had to make again.

	mu       sync.Mutex // guards all below
	by       map[string]int
	answered int // As they should be.
	faults   []string
}

// count counts a call or request.
func (r *result) count(o op, by string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err != nil:
		r.faults = append(r.faults, err.Error())
		return
	case !o.fits(by):
		r.faults = append(r.faults, fmt.Sprintf("op %d was served by %q", o, by))
		return
	}
	if r.by == nil {
		r.by = make(map[string]int)
	}
	r.by[by]++
	r.answered++
}

// fail notes what is wrong with the row as a whole.
func (r *result) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, err.Error())
}

// ok reports whether nothing was lost and each request was logged once.
func (r *result) ok() bool {
	return len(r.faults) == 0 && r.answered == r.sent && (r.logged == r.sent || r.logged == unlogged)
}

// unsupported counts the faults that tell of status 415.
func (r *result) unsupported() int {
	n := 0
	for _, f := range r.faults {
		if strings.Contains(f, "415") {
			n++
		}
	}
	return n
}

const layout = "%7s %8s %5s %5s %7s %7s %7s %7s %6s %7s\n"

// maxLog bounds what is printed of a proxy's log, in bytes.
const maxLog = 2000

// maxFaults bounds how many lines of what went wrong with a row are printed.
const maxFaults = 5

func printHeader(w io.Writer) {
	fmt.Fprintf(w, "%-26s %-13s %-10s %-10s", "client or proxy", "handler", "server", "clients")
	fmt.Fprintf(w, layout, "sent", "answered", "again", "415", byNative, byShared, byHandler, "logged", "conns", "time")
}

// print prints the row, and below it what went wrong, if not all of it.
func (r *result) print(w io.Writer, name string) {
	logged := "-"
	if r.logged != unlogged {
		logged = fmt.Sprint(r.logged)
	}
	fmt.Fprint(w, name)
	fmt.Fprintf(w, layout, fmt.Sprint(r.sent), fmt.Sprint(r.answered), fmt.Sprint(r.again.Load()), fmt.Sprint(r.unsupported()),
		fmt.Sprint(r.by[byNative]), fmt.Sprint(r.by[byShared]), fmt.Sprint(r.by[byHandler]),
		logged, fmt.Sprint(r.connections), r.duration.Round(100*time.Millisecond))
	seen := make(map[string]bool)
	for _, fault := range r.faults {
		if seen[fault] {
			continue
		}
		seen[fault] = true
		if len(seen) > maxFaults {
			fmt.Fprintf(w, "  FAILED: and more; %d in all\n", len(r.faults))
			break
		}
		fmt.Fprintln(w, "  FAILED:", fault)
	}
	if !r.ok() && r.log != "" {
		fmt.Fprintf(w, "  the proxy's log: %s\n", r.log[max(0, len(r.log)-maxLog):])
	}
	if len(r.faults) == 0 && !r.ok() {
		fmt.Fprintf(w, "  FAILED: %d sent, %d answered, %d logged\n", r.sent, r.answered, r.logged)
	}
}
