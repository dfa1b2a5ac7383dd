package main

import "testing"

func TestFitGODEBUG(t *testing.T) {
	t.Parallel()
	tests := []struct {
		current string
		wanted  bool
		want    string
		stays   bool
	}{
		{"", false, "", true},
		{"", true, "http2xconnect=1", false},
		{"gctrace=1", false, "gctrace=1", true},
		{"gctrace=1", true, "gctrace=1,http2xconnect=1", false},
		{"http2xconnect=0", true, "http2xconnect=0,http2xconnect=1", false},
		{"http2xconnect=1", true, "http2xconnect=1", true},
		{"http2xconnect=1", false, "", false},
		{"gctrace=1,http2xconnect=1,madvdontneed=1", false, "gctrace=1,madvdontneed=1", false},
		{"http2xconnect=10", false, "http2xconnect=10", true}, // It cannot be helped.
	}
	for _, test := range tests {
		got, stays := fitGODEBUG(test.current, test.wanted)
		if got != test.want || stays != test.stays {
			t.Errorf("%q, wanted %v: %q, %v; want %q, %v", test.current, test.wanted, got, stays, test.want, test.stays)
		}
		if again, stays := fitGODEBUG(got, test.wanted); !stays || again != got {
			t.Errorf("%q, wanted %v: not settled by %q", test.current, test.wanted, got)
		}
	}
}
