package main

import "testing"

func TestFitGODEBUG(t *testing.T) {
	t.Parallel()
	tests := []struct {
		current string
		wanted  bool
		want    string
		fits    bool
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
		got, fits := fitGODEBUG(test.current, test.wanted)
		if got != test.want || fits != test.fits {
			t.Errorf("%q, wanted %v: %q, %v; want %q, %v", test.current, test.wanted, got, fits, test.want, test.fits)
		}
		if again, fits := fitGODEBUG(got, test.wanted); !fits || again != got {
			t.Errorf("%q, wanted %v: not settled by %q", test.current, test.wanted, got)
		}
	}
}
