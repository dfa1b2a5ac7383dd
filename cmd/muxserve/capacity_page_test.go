package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/muxserve/muxserve/lifecycle"
)

// The directory of the simulation whose figures CAPACITY.md has.
const fleet = "../../testdata/fleet"

// capacityPage returns CAPACITY.md.
func capacityPage(t *testing.T) string { return readText(t, "CAPACITY.md") }

func readText(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// tableBehind returns the first table behind a mark, with its head, and without its rule.
func tableBehind(t *testing.T, page, mark string) [][]string {
	t.Helper()
	_, rest, found := strings.Cut(page, mark)
	if !found {
		t.Fatalf("no %q", mark)
	}
	var rows [][]string
	for line := range strings.Lines(rest) {
		inner, isRow := strings.CutPrefix(strings.TrimSpace(line), "|")
		if !isRow && len(rows) > 0 {
			break
		}
		if !isRow {
			continue
		}
		cells := strings.Split(strings.TrimSuffix(inner, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	if len(rows) < 3 {
		t.Fatalf("no table behind %q", mark)
	}
	return slices.Delete(rows, 1, 2)
}

// TestCapacityTables: each row that CAPACITY.md takes over is one that the simulation has
// printed, with the same columns.
func TestCapacityTables(t *testing.T) {
	t.Parallel()
	page, printed := capacityPage(t), readText(t, filepath.Join(fleet, "README.md"))
	marks := regexp.MustCompile(`<!-- rows of (\w+) -->`).FindAllStringSubmatch(page, -1)
	if len(marks) < 6 {
		t.Fatalf("%d tables of the simulation", len(marks))
	}
	for _, m := range marks {
		own, theirs := tableBehind(t, page, m[0]), tableBehind(t, printed, "### `"+m[1]+"`")
		// Columns are in the same order, because some have the same name.
		var columns []int
		for at, name := range theirs[0] {
			if len(columns) < len(own[0]) && own[0][len(columns)] == name {
				columns = append(columns, at)
			}
		}
		if len(columns) != len(own[0]) {
			t.Errorf("%s: columns %q are not all among %q", m[1], own[0], theirs[0])
			continue
		}
		var all []string
		for _, row := range theirs {
			var cells []string
			for _, at := range columns {
				cells = append(cells, row[at])
			}
			all = append(all, strings.Join(cells, " | "))
		}
		for _, row := range own {
			if line := strings.Join(row, " | "); !slices.Contains(all, line) {
				t.Errorf("%s: no such row: %s\nall: %s", m[1], line, strings.Join(all, "\n     "))
			}
		}
	}
}

// TestCapacityPictures: all pictures of the page exist.
func TestCapacityPictures(t *testing.T) {
	t.Parallel()
	pictures := regexp.MustCompile(`!\[[^]]+\]\(([^)]+\.svg)\)`).FindAllStringSubmatch(capacityPage(t), -1)
	if len(pictures) < 5 {
		t.Errorf("%d pictures", len(pictures))
	}
	for _, p := range pictures {
		if _, err := os.Stat(p[1]); err != nil {
			t.Error(err)
		}
	}
}

// TestCapacityCosts: the processor times are those of the simulation.
func TestCapacityCosts(t *testing.T) {
	t.Parallel()
	source := readText(t, filepath.Join(fleet, "sim", "costs.go"))
	cost := func(name string) float64 {
		m := regexp.MustCompile(`\b` + name + `\s*= (\d+) \* time\.(Nano|Micro)second`).FindStringSubmatch(source)
		if m == nil {
			t.Fatalf("no %s in the simulation", name)
		}
		n, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		return n / map[string]float64{"Nano": 1e6, "Micro": 1e3}[m[2]]
	}
	saves := cost("costHTTP1TLS") - cost("costResumed")
	for _, row := range tableBehind(t, capacityPage(t), "`tls.ticket_keys`.\n")[1:] {
		names := map[string][2]string{
			"WebSocket": {"costWebSocket", "costWebTLS"}, "gRPC, HTTP/2": {"costGRPC", "costGRPCTLS"}, "HTTP/1.1": {"costHTTP1", "costHTTP1TLS"},
		}[row[0]]
		plain, full := cost(names[0]), cost(names[1])
		want := []string{row[0], fmt.Sprintf("%.3f", plain), fmt.Sprintf("%.3f", full-saves), fmt.Sprintf("%.3f", full)}
		if !slices.Equal(row, want) {
			t.Errorf("%q, want %q", row, want)
		}
	}
}

// TestCapacityProfiles: the profiles' numbers are those of package lifecycle.
func TestCapacityProfiles(t *testing.T) {
	t.Parallel()
	rows := tableBehind(t, capacityPage(t), "the time until it acts\n")[1:]
	var names []string
	for _, row := range rows {
		name := strings.Trim(row[0], "`")
		names = append(names, name)
		c, err := lifecycle.Profile(name)
		if err != nil {
			t.Error(err)
			continue
		}
		for i, want := range []time.Duration{c.Delay, c.Spread, c.Timeout} {
			if row[2+i] != want.String() {
				t.Errorf("%s: %q, want %v", name, row[2+i], want)
			}
		}
	}
	if want := lifecycle.Profiles(); !slices.Equal(append(names, "none"), want) {
		t.Errorf("profiles %q and none, want %q", names, want)
	}
}

// TestCapacityWarning: check says what the page shows.
func TestCapacityWarning(t *testing.T) {
	t.Parallel()
	page := capacityPage(t)
	_, example, _ := strings.Cut(page, "With this configuration\n\n")
	example, _, _ = strings.Cut(example, "\nand one processor")
	_, shown, _ := strings.Cut(page, "`muxserve check` says\n\n")
	shown, _, _ = strings.Cut(shown, "\n")
	config := filepath.Join(t.TempDir(), "muxserve.yaml")
	if err := os.WriteFile(config, []byte(strings.ReplaceAll(example, "    ", "")), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, "check", "--config", config)
	cmd.Env = []string{"GOMAXPROCS=1"}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	if got := strings.TrimSpace(stderr.String()); got == "" || got != strings.TrimSpace(shown) {
		t.Errorf("check says %q, the page %q", got, shown)
	}
}
