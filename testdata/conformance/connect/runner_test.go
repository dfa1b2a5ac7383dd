package connect

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"connectrpc.com/conformance/internal"
	"connectrpc.com/conformance/internal/app/connectconformance"
)

// outcome is what a run of the suite says.
type outcome struct {
	total, passed int
	failed        map[string]string // the reason, by the case's name
}

var (
	summary  = regexp.MustCompile(`(?m)^Total cases: (\d+)\n(\d+) passed, (\d+) failed$`)
	notRun   = regexp.MustCompile(`(?m)^Another \d+ could not be run.*$`)
	failures = regexp.MustCompile(`(?m)^FAILED: (.+):\n((?:[ \t].*\n)*)`)
)

// runSuite runs the cases of a configuration against a form of server: those that match the
// patterns, or all.
func runSuite(t *testing.T, config, form string, patterns ...string) outcome {
	t.Helper()
	faults := t.TempDir()
	t.Setenv(faultsEnv, faults)
	t.Setenv("GORACE", "log_path="+filepath.Join(faults, "race"))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var report bytes.Buffer
	_, err = connectconformance.Run(&connectconformance.Flags{
		ConfigFile: config, RunPatterns: patterns, ServerCommand: []string{self, form},
		MaxServers: 2, Parallelism: 8, Verbose: true,
	}, internal.NewPrinter(&report), internal.NewPrinter(&report))
	if err != nil {
		t.Fatalf("%s: %v\n%s", form, err, &report)
	}
	files, _ := filepath.Glob(filepath.Join(faults, "*"))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		t.Errorf("a server of the form %s: %s", form, text)
	}
	o := outcome{failed: make(map[string]string)}
	for _, f := range failures.FindAllStringSubmatch(report.String(), -1) {
		o.failed[f[1]] = f[2]
	}
	sums := summary.FindStringSubmatch(report.String())
	if line := notRun.FindString(report.String()); sums == nil || line != "" {
		t.Fatalf("%s: %s\n%s", form, line, &report)
	}
	o.total, _ = strconv.Atoi(sums[1])
	o.passed, _ = strconv.Atoi(sums[2])
	if sums[3] != strconv.Itoa(len(o.failed)) {
		t.Fatalf("%s: %s failures, of which %d were read from\n%s", form, sums[3], len(o.failed), &report)
	}
	return o
}

// retries is how often a case that fails behind the mux alone is run again. Some cases bound
// the time of a call.
const retries = 2

// compare runs the cases of a configuration against forms of a server, the first without the
// mux. total is the number of cases, so that none is lost in silence.
func compare(t *testing.T, config string, total int, native string, muxed ...string) {
	t.Helper()
	plain := runSuite(t, config, native)
	t.Logf("%s, %s: %d of %d passed", config, native, plain.passed, plain.total)
	if plain.total != total {
		t.Errorf("%s has %d cases, want %d", config, plain.total, total)
	}
	for _, form := range muxed {
		behind := runSuite(t, config, form)
		t.Logf("%s, %s: %d of %d passed", config, form, behind.passed, behind.total)
		if behind.total != plain.total {
			t.Errorf("%s: %d cases, %d of %s", form, behind.total, plain.total, native)
		}
		worse := alone(behind, plain)
		for try := 0; try < retries && len(worse) > 0; try++ {
			names := slices.Sorted(maps.Keys(worse))
			t.Logf("%s: again: %s", form, strings.Join(names, "\n\t"))
			worse = alone(runSuite(t, config, form, names...), runSuite(t, config, native, names...))
		}
		for name, reason := range worse {
			t.Errorf("%s fails %s, which passes without the mux: %s", form, name, reason)
		}
	}
}

// alone returns what has failed in the one and passed in the other.
func alone(one, other outcome) map[string]string {
	worse := maps.Clone(one.failed)
	maps.DeleteFunc(worse, func(name, _ string) bool {
		_, both := other.failed[name]
		return both
	})
	return worse
}
