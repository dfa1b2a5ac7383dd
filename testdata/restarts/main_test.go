package main

import (
	"io"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestUsage: what is wrong with the flags is said before anything is built.
func TestUsage(t *testing.T) {
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"-rate=0"}, "-rate: 0 is not positive"},
		{[]string{"-restarts=-1"}, "-restarts: -1 is not positive"},
		{[]string{"-run=restarts,nothing"}, `no scenario "nothing"`},
	}
	for _, tt := range tests {
		if err := run(t.Context(), tt.args, io.Discard); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.args, err, tt.want)
		}
	}
}
