package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// TestMain runs the test binary as a server where it is started as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == serverArgument {
		if err := serveForm(os.Args[2:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	// A server that is built with the race detector would sleep for a second at its end.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// TestShort performs every operation on every form that is installed, and looks at no figure.
func TestShort(t *testing.T) {
	var out, progress bytes.Buffer
	file := filepath.Join(t.TempDir(), "samples.json")
	if err := run(t.Context(), []string{"-short", "-json", file}, &out, &progress); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	for i, o := range shortOperations() {
		if !strings.Contains(out.String(), "| "+o.name+" |") {
			t.Errorf("no table has a row %s", o.name)
		}
		for _, form := range r.Forms {
			if r.Results[i].Rounds[0][form] == nil && form != o.without && (o.drain == nil || form == formOurs) {
				t.Errorf("%s has no sample of %s", o.name, form)
			}
		}
	}
}

// TestUsage: what is wrong with the flags is said before anything is started.
func TestUsage(t *testing.T) {
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"-rounds=0"}, "-rounds: 0 is not positive"},
		{[]string{"-procs=0"}, "-procs: 0 is not positive"},
		{[]string{"-slice=-1s"}, "-slice: -1000000000 is not positive"},
		{[]string{"-ops=h1-keepalive,nothing"}, `-ops: there is no "nothing"`},
		{[]string{"-set=http2.stream_window=wide"}, `-set: "http2.stream_window=wide" is not the size of a window`},
		{[]string{"-forms=nothing"}, `-forms: there is no "nothing"`},
	}
	for _, tt := range tests {
		if err := run(t.Context(), tt.args, new(bytes.Buffer), new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.args, err, tt.want)
		}
	}
}

// TestFailure: a server that fails is said to have failed, and is no reason to stop.
func TestFailure(t *testing.T) {
	p := plan{
		operations: operations()[:1],
		forms:      []form{{name: "no such form"}, forms()[0]},
		rounds:     1, slices: 1, procs: 1, slice: shortSlice, sizes: shortSizes,
		dir:      t.TempDir(),
		progress: func(string, ...any) {},
	}
	if err := writeCertificate(p.dir); err != nil {
		t.Fatal(err)
	}
	r := p.measure(t.Context(), p.operations[0])
	if r.Failures["no such form"] == "" {
		t.Error("the failure is not there")
	}
	if s := r.Rounds[0][formDirect]; s == nil || s.Operations == 0 {
		t.Errorf("direct: %+v", s)
	}
}
