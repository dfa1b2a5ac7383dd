package mux

import (
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
)

// passing is a body above another.
type passing struct{ io.ReadCloser }

// TestLimitsOf: net/http's MaxBytesReaders are found by their fields, and among the callers.
func TestLimitsOf(t *testing.T) {
	newBody := func() *body1 {
		return &body1{
			ReadCloser: io.NopCloser(strings.NewReader(strings.Repeat("x", 200))), watch: new(bodyWatch1),
			own: new(http.Request), handlers: new(http.Request),
		}
	}
	limit := func(r io.ReadCloser, n int64) io.ReadCloser { return http.MaxBytesReader(nil, r, n) }
	for name, tt := range map[string]struct {
		wrap   func(io.ReadCloser) io.ReadCloser
		limits int
		left   int64
		hits   bool
	}{
		"none":             {func(r io.ReadCloser) io.ReadCloser { return r }, 0, math.MaxInt64, false},
		"below the limit":  {func(r io.ReadCloser) io.ReadCloser { return limit(r, 10) }, 1, 10, false},
		"above the limit":  {func(r io.ReadCloser) io.ReadCloser { return limit(r, 9) }, 1, 9, true},
		"the inner one":    {func(r io.ReadCloser) io.ReadCloser { return limit(limit(r, 9), 100) }, 2, 9, true},
		"the outer one":    {func(r io.ReadCloser) io.ReadCloser { return limit(limit(r, 100), 9) }, 2, 9, true},
		"none of two":      {func(r io.ReadCloser) io.ReadCloser { return limit(limit(r, 100), 10) }, 2, 10, false},
		"of another body":  {func(io.ReadCloser) io.ReadCloser { return limit(newBody(), 9) }, 0, 0, false},
		"of no body":       {func(io.ReadCloser) io.ReadCloser { return limit(nil, 9) }, 0, 0, false},
		"something above":  {func(r io.ReadCloser) io.ReadCloser { return passing{limit(r, 10)} }, 0, 0, true},
		"something below":  {func(r io.ReadCloser) io.ReadCloser { return limit(passing{r}, 10) }, 0, 0, true},
		"something else":   {func(r io.ReadCloser) io.ReadCloser { return passing{r} }, 0, 0, false},
		"between of three": {func(r io.ReadCloser) io.ReadCloser { return limit(passing{limit(r, 100)}, 10) }, 0, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBody()
			b.handlers.Body = tt.wrap(b)
			if limits, left := limitsOf(b.handlers.Body, b); limits != tt.limits || left != tt.left {
				t.Errorf("%d limits, %d left; want %d and %d", limits, left, tt.limits, tt.left)
			}
			if name == "of no body" {
				return
			}
			_, _ = io.ReadFull(b.handlers.Body, make([]byte, 100)[:10])
			if got := b.limited.Load(); got != tt.hits {
				t.Errorf("the limit counts as hit: %v, want %v", got, tt.hits)
			}
		})
	}
}

// TestLimitIsNotInTheRequest: a limit that the handler's request does not lead to counts as
// hit where its reader may have shortened a buffer, until more is read.
func TestLimitIsNotInTheRequest(t *testing.T) {
	b := &body1{ReadCloser: io.NopCloser(strings.NewReader(strings.Repeat("x", 200))), watch: new(bodyWatch1), own: new(http.Request), handlers: new(http.Request)}
	b.handlers.Body = http.MaxBytesReader(nil, b, 1000)
	local := http.MaxBytesReader(nil, b.handlers.Body, 50)
	for _, step := range []struct {
		r      io.Reader
		buffer []byte
		hits   bool
	}{
		{local, make([]byte, 20), false},
		{local, make([]byte, 40)[:20], true},
		{local, make([]byte, 9), false},
		{local, make([]byte, 100), true}, // One byte is left of it.
		{b.handlers.Body, make([]byte, 100)[:10], false},
		{b, make([]byte, 100)[:10], false},
	} {
		_, _ = step.r.Read(step.buffer)
		if got := b.limited.Load(); got != step.hits {
			t.Errorf("%d of %d bytes: %v, want %v", len(step.buffer), cap(step.buffer), got, step.hits)
		}
	}
}
