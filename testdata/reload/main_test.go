package main

import (
	"io"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParse(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-rate=0"}, {"-addresses=-1"}, {"-run=nothing"}, {"-unknown"}} {
		if err := run(t.Context(), args, io.Discard); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
	o, err := parse([]string{"-run=limits,addresses"})
	if err != nil {
		t.Fatal(err)
	}
	if len(o.scenarios) != 2 || o.scenarios[1].name != "addresses" || o.certificates != 200 || o.addresses != 50 {
		t.Errorf("options %+v", o)
	}
}
