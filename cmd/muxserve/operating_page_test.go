package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/lifecycle"
)

// readPage returns a page of this directory.
func readPage(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// tableUnder returns the rows of the first table behind a line of a page that begins so.
func tableUnder(t *testing.T, page, head string) [][]string {
	t.Helper()
	_, below, found := strings.Cut(readPage(t, page), "\n"+head)
	if !found {
		t.Fatalf("%s has no %q", page, head)
	}
	below, _, _ = strings.Cut(below, "\n\n")
	rows := tableRows(head + below)
	if len(rows) == 0 {
		t.Fatalf("%s: the table %q is empty", page, head)
	}
	return rows
}

// signalTests has a test for each row of the table of signals, by how the row begins.
var signalTests = map[string]string{
	"SIGTERM, SIGINT, SIGQUIT": "TestSignals",
	"a second one of these":    "TestSecondSignalForces",
	"Ctrl-C at a terminal":     "TestCtrlC",
	"SIGHUP":                   "TestReload",
	"SIGUSR2":                  "TestUpgradeUnderLoad",
	"SIGPIPE":                  "TestSignals",
}

func TestOperatingSignals(t *testing.T) {
	t.Parallel()
	tests := testsOfModule(t)
	for _, row := range tableUnder(t, "OPERATING.md", "| signal |") {
		if test := signalTests[row[0]]; !tests[test] {
			t.Errorf("%s: there is no test %q", row[0], test)
		}
	}
	var got []string
	for _, row := range tableUnder(t, "OPERATING.md", "| exit code |") {
		got = append(got, row[0])
	}
	want := []string{fmt.Sprint(exitOK), fmt.Sprint(exitFailed), fmt.Sprint(exitUsage), fmt.Sprint(exitCut), fmt.Sprint(exitSignalled) + " + signal"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("exit codes (-code +page):\n%s", diff)
	}
}

// TestOperatingDrain: the page has the steps of a drain in their order, and the numbers of
// each profile. What it quotes of a recipe stands there.
func TestOperatingDrain(t *testing.T) {
	t.Parallel()
	var steps []string
	for _, row := range tableUnder(t, "OPERATING.md", "| step |") {
		steps = append(steps, strings.Trim(row[0], "`"))
	}
	if diff := cmp.Diff(lifecycle.Steps(), steps); diff != "" {
		t.Errorf("steps (-code +page):\n%s", diff)
	}
	var recipes strings.Builder
	files, err := filepath.Glob("deploy/*.*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		recipes.WriteString(readPage(t, name))
	}
	var names []string
	for _, row := range tableUnder(t, "OPERATING.md", "| profile |") {
		name := strings.Trim(row[0], "`")
		if name == "(none given)" {
			name = ""
		} else {
			names = append(names, name)
		}
		c, err := lifecycle.Profile(name)
		if err != nil {
			t.Error(err)
			continue
		}
		longest := (c.Longest() + time.Second - 1).Truncate(time.Second)
		want := []string{row[0], briefly(c.Delay), briefly(c.Spread), briefly(c.Timeout), briefly(longest), row[5]}
		if diff := cmp.Diff(want, row); diff != "" {
			t.Errorf("profile %q (-code +page):\n%s", name, diff)
		}
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[5], -1) {
			if !strings.Contains(recipes.String(), m[1]) {
				t.Errorf("no recipe has %q", m[1])
			}
		}
	}
	if diff := cmp.Diff(lifecycle.Profiles(), names); diff != "" {
		t.Errorf("profiles (-code +page):\n%s", diff)
	}
}

// briefly is a time as the configuration shows it.
func briefly(d time.Duration) string {
	return regexp.MustCompile(`([hm])0[ms]0?s?$`).ReplaceAllString(d.String(), "$1")
}

// TestOperatingNames: messages of the log on the page are those of LOGS.md, with their level,
// and metrics on the pages for operators exist.
func TestOperatingNames(t *testing.T) {
	t.Parallel()
	logs := readPage(t, "LOGS.md")
	for _, row := range tableUnder(t, "OPERATING.md", "| message |") {
		if want := "| " + row[1] + " | " + strings.Trim(row[0], "`") + " |"; !strings.Contains(logs, want) {
			t.Errorf("LOGS.md has no %s", want)
		}
	}
	var sources strings.Builder
	for _, pattern := range []string{"../../mux/muxprom/*.go", "internal/admin/metrics.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			sources.WriteString(readPage(t, name))
		}
	}
	for _, page := range []string{"OPERATING.md", "LIMITS.md", "TROUBLESHOOTING.md"} {
		metrics := regexp.MustCompile(`\bmux_[a-z0-9_]+`).FindAllString(readPage(t, page), -1)
		if len(metrics) == 0 {
			t.Errorf("%s names no metric", page)
		}
		for _, name := range metrics {
			if !strings.Contains(sources.String(), `"`+name+`"`) {
				t.Errorf("%s: there is no metric %s", page, name)
			}
		}
	}
}
