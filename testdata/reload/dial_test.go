package main

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"

	"github.com/muxserve/muxserve/testdata/clients/process"
)

// TestDial: what the first address refuses goes to the next one, and what all refuse is counted.
func TestDial(t *testing.T) {
	t.Parallel()
	nobody, err := process.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nobody.Release)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	served := l.Addr().String()
	tests := []struct {
		name              string
		known             []string
		refused, followed int64
	}{
		{"served", []string{served, nobody.String()}, 0, 0},
		{"moved", []string{nobody.String(), served}, 0, 1},
		{"gone", []string{nobody.String(), nobody.String()}, 1, 0},
	}
	for _, tt := range tests {
		counts := new(tally)
		d := &dialer{t: counts, known: func() []string { return tt.known }}
		c, err := d.dial(context.Background(), "", "")
		switch {
		case err == nil:
			_ = c.Close()
		case tt.refused == 0 || !errors.Is(err, syscall.ECONNREFUSED):
			t.Errorf("%s: %v", tt.name, err)
		}
		if counts.refused.Load() != tt.refused || counts.followed.Load() != tt.followed {
			t.Errorf("%s: %d refused, %d followed", tt.name, counts.refused.Load(), counts.followed.Load())
		}
	}
}
