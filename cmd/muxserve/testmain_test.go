package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"go.uber.org/goleak"
)

// binary is the path of the muxserve that the end-to-end tests run.
var binary string

// buildArgs are arguments of go build: the binary is built with the race
// detector if the tests are.
var buildArgs []string

// atOnce is how many tests run in parallel unless -parallel says otherwise. They wait for
// their processes most of the time, so there are more of them than processors.
const atOnce = "8"

// TestMain builds the binary once and fails on goroutines that the tests leave behind.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		if err := f.Value.Set(atOnce); err != nil {
			panic(err)
		}
	}
	dir, err := os.MkdirTemp("", "muxserve-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "muxserve")
	if runtime.GOOS == "windows" {
		binary += ".exe"
	}
	code := 1
	build := exec.Command("go", append(append([]string{"build", "-o", binary}, buildArgs...), ".")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
	} else {
		code = m.Run()
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}
