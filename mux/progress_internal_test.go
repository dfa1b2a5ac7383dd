package mux

import (
	"io"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestPartsOfResponse: whatever a handler does to its response over HTTP/2 counts as parts
// that have gone through, of a frame at most.
func TestPartsOfResponse(t *testing.T) {
	long := strings.Repeat("x", 2*writeStep+1)
	for name, step := range map[string]struct {
		do   func(r *recorder2)
		want uint64
	}{
		"nothing":     {func(*recorder2) {}, 0},
		"write":       {func(r *recorder2) { _, _ = r.Write([]byte("x")) }, 1},
		"long write":  {func(r *recorder2) { _, _ = r.Write([]byte(long)) }, 3},
		"string":      {func(r *recorder2) { _, _ = r.WriteString("x") }, 1},
		"long string": {func(r *recorder2) { _, _ = r.WriteString(long) }, 3},
		"copy":        {func(r *recorder2) { _, _ = io.Copy(r, strings.NewReader(long)) }, 3},
		"flush":       {func(r *recorder2) { r.Flush() }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			r := &recorder2{recorder: recorder{ResponseWriter: w}}
			step.do(r)
			if got := r.written.Load(); got != step.want || r.writing.Load() {
				t.Errorf("%d parts, want %d; waiting %v", got, step.want, r.writing.Load())
			}
			if n, err := io.Copy(io.Discard, w.Body); err != nil || n != r.sent {
				t.Errorf("%d bytes have arrived of %d, %v", n, r.sent, err)
			}
		})
	}
}
