// Bench measures what it costs to go through the mux instead of having a port for
// each protocol, and what the other ways of sharing one port cost. It prints
// tables in Markdown. Linux only. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/muxserve/muxserve/mux"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == serverArgument {
		if err := serveForm(os.Args[2:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// The sizes of the real run, and of the short one, which shows that everything works and no figures.
var (
	fullSizes  = sizes{workers: 16, streams: 64, idle: 10_000, broadcast: 5_000, bytes: 100 << 20, transfer: 16 << 20}
	shortSizes = sizes{workers: 2, streams: 8, idle: 40, broadcast: 20, bytes: 1 << 20, transfer: 256 << 10}
)

const (
	fullSlice  = 50 * time.Millisecond
	shortSlice = 2 * time.Millisecond
)

// arguments are the flags.
type arguments struct {
	plan
	json string
}

func parse(args []string) (*arguments, error) {
	a := &arguments{plan: plan{sizes: fullSizes}}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	ops := flags.String("ops", "", "the operations, separated by commas, * for any part of a name; all by default")
	names := flags.String("forms", "", "the forms, separated by commas, of which the first is what the others are compared with; all that are installed by default")
	flags.IntVar(&a.rounds, "rounds", 7, "how often everything is measured, on new servers each time")
	flags.IntVar(&a.slices, "slices", 20, "how many slices of each form there are in a round")
	flags.IntVar(&a.procs, "procs", 1, "how many processors each server uses, its GOMAXPROCS")
	flags.DurationVar(&a.slice, "slice", fullSlice, "how long a slice is")
	flags.StringVar(&a.json, "json", "", "the file for all samples")
	flags.StringVar(&a.profiles, "profiles", "", "the directory for CPU profiles of the servers, OPERATION.FORM.pprof, of the last round; they cost time, so the figures of such a run are none")
	flags.StringVar(&a.contention, "contention", "", "the directory for profiles of the locks that goroutines of the servers wait for, OPERATION.FORM.locks.pprof; they cost time as well")
	flags.StringVar(&a.settings, "set", "", "settings of the mux, KEY=BYTES separated by commas, of windows: "+strings.Join(slices.Sorted(maps.Keys(windowSettings())), ", "))
	short := flags.Bool("short", false, "one round of everything in tiny numbers, which shows that it works")
	if err := flags.Parse(args); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	if *short {
		a.sizes, a.rounds, a.slices, a.slice = shortSizes, 1, 1, shortSlice
	}
	for name, value := range map[string]int64{"rounds": int64(a.rounds), "slices": int64(a.slices), "procs": int64(a.procs), "slice": int64(a.slice)} {
		if value <= 0 {
			return nil, fmt.Errorf("bench: -%s: %d is not positive", name, value)
		}
	}
	var err, formErr error
	a.operations, err = chooseOperations(*ops)
	if *short && *ops == "" {
		a.operations = shortOperations()
	}
	a.forms, formErr = chooseForms(*names)
	return a, errors.Join(err, formErr, setWindows(new(mux.Config), a.settings))
}

func run(ctx context.Context, args []string, out, progress io.Writer) (err error) {
	a, err := parse(args)
	if err != nil {
		return err
	}
	a.progress = func(format string, values ...any) { fmt.Fprintf(progress, format+"\n", values...) }
	if a.dir, err = os.MkdirTemp("", "muxserve-bench-"); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(a.dir)) }()
	if err := a.prepare(); err != nil {
		return err
	}
	r := &report{
		Date: time.Now().UTC().Format(time.DateOnly), Machine: thisMachine(a.procs), Command: strings.Join(append([]string{"go run ."}, args...), " "),
		Base: a.forms[0].name, SliceNano: int64(a.slice), Slices: a.slices, Rounds: a.rounds,
	}
	for _, f := range a.forms {
		r.Forms = append(r.Forms, f.name)
	}
	for _, o := range a.operations {
		if ctx.Err() == nil {
			r.Results = append(r.Results, a.measure(ctx, o))
		}
	}
	r.markdown(out)
	if a.json != "" {
		err = r.save(a.json)
	}
	if n := r.failed(); n > 0 {
		err = errors.Join(err, fmt.Errorf("bench: %d failed", n))
	}
	return errors.Join(err, ctx.Err())
}

// prepare writes what the servers need, and leaves their processors to them.
func (a *arguments) prepare() error {
	for _, dir := range []string{a.profiles, a.contention} {
		if dir == "" {
			continue
		}
		if err := os.MkdirAll(dir, directoryMode); err != nil {
			return fmt.Errorf("bench: %w", err)
		}
	}
	if err := writeCertificate(a.dir); err != nil {
		return err
	}
	if err := writeDownload(a.dir, a.sizes.bytes); err != nil {
		return err
	}
	return pinGenerator(a.procs)
}
