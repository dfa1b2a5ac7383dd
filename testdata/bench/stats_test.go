package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSpread(t *testing.T) {
	tests := []struct {
		values []float64
		want   spread
		text   string
	}{
		{[]float64{7}, spread{7, 7, 7, 1}, "7.000"},
		{[]float64{3, 1, 2}, spread{2, 1.5, 2.5, 3}, "2.000 (1.500-2.500)"},
		{[]float64{4, 1, 3, 2, 5}, spread{3, 2, 4, 5}, "3.000 (2.000-4.000)"},
	}
	for _, tt := range tests {
		got := spreadOf(tt.values)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%v: (-want +got)\n%s", tt.values, diff)
		}
		if got.String() != tt.text {
			t.Errorf("%v: %q, want %q", tt.values, got, tt.text)
		}
	}
	if got := spreadOf(nil).String(); got != "" {
		t.Errorf("of nothing: %q", got)
	}
}

func TestQuantile(t *testing.T) {
	var thousand []int
	for i := range 1000 {
		thousand = append(thousand, i+1)
	}
	tests := []struct {
		sorted []int
		q      float64
		want   int
	}{
		{nil, 0.5, 0},
		{[]int{1}, 0.99, 1},
		{[]int{1, 2}, 0.5, 1},
		{thousand, 0.5, 500},
		{thousand, 0.99, 990},
		{thousand, 1, 1000},
	}
	for _, tt := range tests {
		if got := quantile(tt.sorted, tt.q); got != tt.want {
			t.Errorf("%v of %d values: %d, want %d", tt.q, len(tt.sorted), got, tt.want)
		}
	}
}

// TestTables: the ratio is that of one turn, its median is that of a round, and the median of those is not the ratio of the medians.
func TestTables(t *testing.T) {
	cpu := func(micros float64) *sample {
		turns := []float64{micros * microsecond / 4, micros * microsecond, micros * microsecond * 8}
		return &sample{Operations: 10, Turns: turns, Took: time.Second}
	}
	r := report{
		Date: "2026-01-02", Command: "go run .", Machine: machine{CPU: "abacus", CPUs: 2, Kernel: "6.1", Go: "go1.26", Pinned: true},
		Forms: []string{formDirect, formOurs, formCmux}, Base: formDirect, Rounds: 3, Slices: 1, SliceNano: int64(time.Millisecond),
		Results: []*result{
			{
				Operation: "ask",
				Rounds:    []round{{formDirect: cpu(10), formOurs: cpu(11)}, {formDirect: cpu(20), formOurs: cpu(20)}, {formDirect: cpu(40), formOurs: cpu(36)}},
				Failures:  map[string]string{formCmux: "it fell over"},
			},
			{
				Operation: "wait",
				Rounds:    []round{{formDirect: {Memory: &memory{Heap: 1000}}, formOurs: {Memory: &memory{Heap: 1300}}}},
			},
		},
	}
	var out strings.Builder
	r.markdown(&out)
	for _, want := range []string{
		"`go run .`, 2026-01-02. abacus, 2 processors, Linux 6.1, go1.26.",
		"| operation | direct | ours | plain-cmux |\n|---|---|---|---|\n| ask | 20.0 µs | 1.000 (0.950-1.050) | failed |\n",
		"| wait | 1000 B | 1300 B (+300) |  |\n",
		"ask failed on plain-cmux: it fell over\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "drain") {
		t.Errorf("a table that has no rows:\n%s", &out)
	}
}
