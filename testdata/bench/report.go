package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// report is everything of one run.
type report struct {
	Date      string    `json:"date"`
	Machine   machine   `json:"machine"`
	Command   string    `json:"command"`
	Forms     []string  `json:"forms"`
	Base      string    `json:"base"` // the form that the others are compared with
	SliceNano int64     `json:"slice_ns"`
	Slices    int       `json:"slices"`
	Rounds    int       `json:"rounds"`
	Results   []*result `json:"results"`
}

// column is a table of one metric: its rows are operations, its columns forms.
type column struct {
	title  string
	metric metric
	unit   func(float64) string
	// difference has the other forms' distance from the base shown, and not the ratio to it.
	difference bool
	// ratios compares two forms; nil for the ratios of the rounds' figures.
	ratios func(r *result, form, to string) spread
}

const microsecond = float64(time.Microsecond)

func columns() []column {
	micros := func(v float64) string { return fmt.Sprintf("%.1f µs", v/microsecond) }
	plain := func(v float64) string { return fmt.Sprintf("%.1f", v) }
	whole := func(v float64) string { return fmt.Sprintf("%.0f", v) }
	size := func(v float64) string { return fmt.Sprintf("%.0f B", v) }
	return []column{
		{title: "Server CPU per operation", metric: perTurn, unit: micros, ratios: (*result).turnRatios},
		{title: "Time of a transfer over a link", metric: measured(func(s *sample) float64 { return float64(s.Transfer) }), unit: func(v float64) string { return fmt.Sprintf("%.1f ms", v/float64(time.Millisecond)) }},
		{title: "Throughput, operations a second, closed loop", metric: func(s *sample) (float64, bool) { return s.perSecond(), s.Operations > 0 }, unit: whole},
		{title: "Latency p50 at a fixed rate", metric: measured(func(s *sample) float64 { return float64(s.P50) }), unit: micros},
		{title: "Latency p99 at a fixed rate", metric: measured(func(s *sample) float64 { return float64(s.P99) }), unit: micros},
		{title: "Allocations per operation", metric: perOperation(func(s *sample) float64 { return float64(s.Mallocs) }), unit: plain},
		{title: "Allocated bytes per operation", metric: perOperation(func(s *sample) float64 { return float64(s.Allocated) }), unit: whole},
		{title: "Heap per idle connection", metric: ofMemory(func(m *memory) float64 { return m.Heap }), unit: size, difference: true},
		{title: "Stacks per idle connection", metric: ofMemory(func(m *memory) float64 { return m.Stack }), unit: size, difference: true},
		{title: "RSS per idle connection", metric: ofMemory(func(m *memory) float64 { return m.RSS }), unit: size, difference: true},
		{title: "Time to drain", metric: measured(func(s *sample) float64 { return float64(s.Drained) }), unit: func(v float64) string { return fmt.Sprintf("%.0f ms", v/float64(time.Millisecond)) }},
	}
}

// markdown writes the tables.
func (r *report) markdown(w io.Writer) {
	fmt.Fprintf(w, "`%s`, %s. %s. %d rounds of %d turns, in each of which every form has a slice of %v, in a random order. Median of the rounds, and quartiles of the ratio to `%s`.\n",
		r.Command, r.Date, r.Machine, r.Rounds, r.Slices, time.Duration(r.SliceNano), r.Base)
	for _, c := range columns() {
		r.table(w, c)
	}
	r.againstServeHTTP(w)
	r.failures(w)
}

// table writes one of them, if any operation has the metric.
func (r *report) table(w io.Writer, c column) {
	title := false
	for _, result := range r.Results {
		if !slices.ContainsFunc(r.Forms, func(form string) bool { return result.values(form, c.metric).Count > 0 }) {
			continue
		}
		if !title {
			title = true
			fmt.Fprintf(w, "\n%s:\n\n| operation | %s |\n|---|%s\n", c.title, strings.Join(r.Forms, " | "), strings.Repeat("---|", len(r.Forms)))
		}
		fmt.Fprintf(w, "| %s |", result.Operation)
		for _, form := range r.Forms {
			fmt.Fprintf(w, " %s |", r.cell(result, form, c))
		}
		fmt.Fprintln(w)
	}
}

// cell is what the base has, and of every other form how that compares with it.
func (r *report) cell(result *result, form string, c column) string {
	if _, failed := result.Failures[form]; failed {
		return "failed"
	}
	own := result.values(form, c.metric)
	compared := c.compare(result, form, r.Base)
	switch {
	case own.Count == 0:
		return ""
	case form == r.Base || compared.Count == 0:
		return c.unit(own.Median)
	case c.difference:
		d := result.differences(form, r.Base, c.metric)
		return fmt.Sprintf("%s (%+.0f)", c.unit(own.Median), d.Median)
	default:
		return compared.String()
	}
}

// compare returns the ratios of one form to another.
func (c *column) compare(r *result, form, to string) spread {
	if c.ratios != nil {
		return c.ratios(r, form, to)
	}
	return r.ratios(form, to, c.metric)
}

// String returns the median, and the quartiles where there are any.
func (s spread) String() string {
	switch s.Count {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("%.3f", s.Median)
	}
	return fmt.Sprintf("%.3f (%.3f-%.3f)", s.Median, s.Low, s.High)
}

// againstServeHTTP compares gRPC with the way that has a single server too.
func (r *report) againstServeHTTP(w io.Writer) {
	if !slices.Contains(r.Forms, formOurs) || !slices.Contains(r.Forms, formServeHTTP) {
		return
	}
	for _, result := range r.Results {
		if s := result.turnRatios(formOurs, formServeHTTP); s.Count > 0 && strings.HasPrefix(result.Operation, "grpc-") {
			fmt.Fprintf(w, "\n%s: server CPU of `%s` to `%s`: %s.\n", result.Operation, formOurs, formServeHTTP, s)
		}
	}
}

func (r *report) failures(w io.Writer) {
	for _, result := range r.Results {
		for _, form := range slices.Sorted(maps.Keys(result.Failures)) {
			fmt.Fprintf(w, "\n%s failed on %s: %s\n", result.Operation, form, result.Failures[form])
		}
	}
}

// failed returns how many cells of the tables have no figure because of a failure.
func (r *report) failed() int {
	n := 0
	for _, result := range r.Results {
		n += len(result.Failures)
	}
	return n
}

// save writes all samples, for who wants to compare runs.
func (r *report) save(name string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	if err := os.WriteFile(name, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	return nil
}
