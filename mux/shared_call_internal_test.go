package mux

import (
	"testing"
	"time"
)

// TestGRPCTimeout: which values of the field grpc-timeout are bounds.
func TestGRPCTimeout(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"1H": time.Hour, "2M": 2 * time.Minute, "3S": 3 * time.Second, "4m": 4 * time.Millisecond, "5u": 5 * time.Microsecond, "6n": 6,
		"0n": 0, "99999999S": 99999999 * time.Second,
		"": -1, "S": -1, "1": -1, "1s": -1, "-1S": -1, "+1S": -1, "999999999S": -1, "99999999H": -1,
	} {
		got, ok := grpcTimeout(s)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	}
}
