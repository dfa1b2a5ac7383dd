// Command fleet answers questions about a fleet of muxserve processes behind a load
// balancer, each by a table and a picture. It simulates: see package sim.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/muxserve/muxserve/testdata/fleet/sim"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("fleet", flag.ContinueOnError)
	scale := flags.Float64("scale", 1, "a share of the clients to simulate")
	only := flags.String("only", "", "the questions to answer, with commas between them; empty: all")
	write := flags.String("write", "", "a directory: renew the tables in its README.md, and its pictures")
	timed := flags.Bool("time", false, "say how long each question took")
	if err := flags.Parse(args); err != nil {
		return err
	}
	for _, q := range questions(*scale) {
		if *only != "" && !contains(strings.Split(*only, ","), q.name) {
			continue
		}
		begun := time.Now()
		q.answer()
		table := q.table()
		fmt.Fprint(out, table)
		if *timed {
			fmt.Fprintf(os.Stderr, "%s: %d events in %v\n", q.name, q.events(), time.Since(begun).Round(time.Millisecond))
		}
		if *write == "" {
			continue
		}
		if err := renew(filepath.Join(*write, "README.md"), q.name, table); err != nil {
			return err
		}
		for _, c := range q.charts(q) {
			if err := os.WriteFile(filepath.Join(*write, c.file+".svg"), []byte(c.svg()), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

func contains(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

// question is one of the questions, with a row for each case of it.
type question struct {
	name, title, text string
	head              []string
	rows              []row
	// cells are what a row says behind its labels.
	cells  func(r row) []string
	charts func(q *question) []chart
}

// row is a case: one scenario, or some that stand side by side.
type row struct {
	labels    []string
	scenarios []sim.Scenario
	results   []*sim.Result
}

// answer runs the scenarios, as many at a time as there are processors. Each is
// deterministic for itself.
func (q *question) answer() {
	type job struct{ row, column int }
	jobs := make(chan job)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for j := range jobs {
				r := &q.rows[j.row]
				r.results[j.column] = sim.Run(r.scenarios[j.column])
			}
		})
	}
	for i := range q.rows {
		q.rows[i].results = make([]*sim.Result, len(q.rows[i].scenarios))
		for k := range q.rows[i].scenarios {
			jobs <- job{i, k}
		}
	}
	close(jobs)
	wg.Wait()
}

func (q *question) events() int {
	n := 0
	for _, r := range q.rows {
		for _, one := range r.results {
			n += one.Events
		}
	}
	return n
}

// table returns the answer in Markdown.
func (q *question) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "### `%s`: %s\n\n%s\n\n", q.name, q.title, strings.TrimSpace(q.text))
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	line(q.head)
	rule := make([]string, len(q.head))
	for i := range rule {
		rule[i] = "---"
		if i >= len(q.rows[0].labels) {
			rule[i] = "---:"
		}
	}
	line(rule)
	for _, r := range q.rows {
		line(append(append([]string{}, r.labels...), q.cells(r)...))
	}
	b.WriteString("\n")
	return b.String()
}

// renew replaces a question's part of a file, which stands between two comments.
func renew(file, name, text string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(old), begin(name))
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return fmt.Errorf("%s has no part %q", file, begin(name))
	}
	return os.WriteFile(file, []byte(before+begin(name)+text+end+after), 0o644)
}

// begin and end are the comments around a question's part of README.md.
func begin(name string) string { return "<!-- go run . -only " + name + " -->\n" }

const end = "<!-- end -->\n"

// How cells are written.

func count(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// span writes a time with three digits.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "never"
	case d == 0:
		return "0"
	case d < time.Second:
		return fmt.Sprintf("%.3g ms", float64(d)/float64(time.Millisecond))
	case d < 2*time.Minute:
		return fmt.Sprintf("%.3g s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.3g min", d.Minutes())
	default:
		return fmt.Sprintf("%.3g h", d.Hours())
	}
}

// whole writes a time that was configured.
func whole(d time.Duration) string {
	switch {
	case d == 0:
		return "0"
	case d%time.Hour == 0:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%d min", d/time.Minute)
	default:
		return fmt.Sprintf("%d s", d/time.Second)
	}
}

func load(processors float64) string { return fmt.Sprintf("%.2f", processors) }
