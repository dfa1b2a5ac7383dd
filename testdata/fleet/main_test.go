package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// short is the share of the clients in the short form.
const short = 0.002

// TestAnswers: the short form of every question gives the same tables and the same pictures
// twice, and pictures that a browser reads.
func TestAnswers(t *testing.T) {
	var first, again strings.Builder
	for _, out := range []*strings.Builder{&first, &again} {
		for _, q := range questions(short) {
			q.answer()
			out.WriteString(q.table())
			for _, c := range q.charts(q) {
				svg := c.svg()
				out.WriteString(svg)
				readable(t, c.file, svg)
			}
		}
	}
	if first.String() != again.String() {
		t.Error("the second run printed something else")
	}
	for _, q := range questions(short) {
		if !strings.Contains(first.String(), "### `"+q.name+"`") {
			t.Errorf("%s has no table", q.name)
		}
	}
}

// readable parses a picture, and expects it to show something.
func readable(t *testing.T, name, svg string) {
	t.Helper()
	elements := map[string]int{}
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%s.svg: %v", name, err)
		}
		if e, ok := token.(xml.StartElement); ok {
			elements[e.Name.Local]++
		}
	}
	if elements["svg"] != 1 || elements["path"]+elements["rect"] < 6 || elements["text"] < 6 || strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
		t.Errorf("%s.svg: %v", name, elements)
	}
}

// TestRun: the program answers what it is asked, and nothing else.
func TestRun(t *testing.T) {
	var out strings.Builder
	if err := run([]string{"-only", "death", "-scale", "0.002"}, &out); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); strings.Count(got, "### ") != 1 || !strings.HasPrefix(got, "### `death`") {
		t.Errorf("printed %.80q", got)
	}
}

// TestReadme: README.md has the tables of the questions that are quickly answered, and the
// pictures of all, as the program makes them today. The others are renewed by
// go run . -write . and take some minutes.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range questions(1) {
		_, part, ok := strings.Cut(string(readme), begin(q.name))
		part, _, closed := strings.Cut(part, end)
		if !ok || !closed || !strings.HasPrefix(part, "### `"+q.name+"`: "+q.title) || !strings.Contains(part, strings.TrimSpace(q.text)) ||
			strings.Count(part, "\n|") != len(q.rows)+2 {
			t.Errorf("README.md: the part of %s is not what the program prints; run go run . -only %s -write .", q.name, q.name)
			continue
		}
		if q.name == "death" {
			compare(t, q, part)
		}
	}
}

// TestDefaults: README.md has the figures of today's defaults, which lose nothing and ask
// no replica for more than its one processor.
func TestDefaults(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	q := spreads(1)
	q.rows = slices.DeleteFunc(q.rows, func(r row) bool {
		return r.scenarios[0].Drain.Spread != profile(strings.TrimPrefix(r.labels[0], "(default)")).Spread
	})
	if len(q.rows) != 5 {
		t.Fatalf("%d rows have the defaults, want 5", len(q.rows))
	}
	q.answer()
	for _, r := range q.rows {
		line := "| " + strings.Join(append(slices.Clone(r.labels), q.cells(r)...), " | ") + " |\n"
		if runtime.GOARCH == "amd64" && !strings.Contains(string(readme), line) {
			t.Errorf("README.md does not have\n%s", line)
		}
		if one := r.results[0]; one.Loss() != 0 || one.PeakHandshake >= 1 {
			t.Errorf("a default loses connections, or asks for too much:\n%s", line)
		}
	}
}

// compare answers a question and expects its table and pictures to be those in the
// repository.
func compare(t *testing.T, q *question, part string) {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Logf("%s is not compared: other processors round logarithms otherwise", q.name)
		return
	}
	q.answer()
	_, want, _ := strings.Cut(part, "\n|")
	_, got, _ := strings.Cut(q.table(), "\n|")
	if got != want {
		t.Errorf("README.md has another table for %s; run go run . -only %s -write .\n%s", q.name, q.name, got)
	}
	for _, c := range q.charts(q) {
		if old, err := os.ReadFile(c.file + ".svg"); err != nil || string(old) != c.svg() {
			t.Errorf("%s.svg is not what the program draws today: %v", c.file, err)
		}
	}
}

// TestPictures: every picture is in the repository, shown by README.md, and small.
func TestPictures(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range questions(short) {
		q.answer()
		for _, c := range q.charts(q) {
			svg, err := os.ReadFile(c.file + ".svg")
			if err != nil {
				t.Error(err)
				continue
			}
			readable(t, c.file, string(svg))
			if len(svg) > 60<<10 {
				t.Errorf("%s.svg has %d bytes", c.file, len(svg))
			}
			if !strings.Contains(string(readme), "]("+c.file+".svg)") {
				t.Errorf("README.md does not show %s.svg", c.file)
			}
		}
	}
}
