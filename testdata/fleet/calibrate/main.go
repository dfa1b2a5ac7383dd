// Calibrate has a small fleet of real processes restart behind a real HAProxy, has the
// simulation play the same, and compares the two. It fails where they differ by more than
// 15 %. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/muxserve/muxserve/testdata/clients/process"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// tolerance is how much the real processes and the simulation may differ.
const tolerance = 0.15

// stagger is the time between the starts of two runs beside each other, so that the peaks
// of one are not those of the others.
const stagger = 3 * time.Second

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("calibrate", flag.ContinueOnError)
	runs := flags.Int("runs", 3, "how many fleets of real processes restart, beside each other")
	seeds := flags.Int("seeds", 20, "how many runs of the simulation they are compared with")
	binary := flags.String("muxserve", "", "a muxserve that is built already; by default it is built from the module around")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("calibrate: %w", err)
	}
	if *runs < 1 || *seeds < 1 {
		return errors.New("calibrate: -runs and -seeds: at least 1")
	}
	if *binary == "" {
		dir, err := os.MkdirTemp("", "muxserve-calibrate-")
		if err != nil {
			return fmt.Errorf("calibrate: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		if *binary, err = process.Build(ctx, dir); err != nil {
			return err
		}
	}
	var faults []error
	for _, sc := range scenarios() {
		outcomes, err := sc.playBeside(ctx, *binary, *runs)
		if err != nil {
			return fmt.Errorf("calibrate: %s: %w", sc.name, err)
		}
		if err := sc.compare(out, outcomes, *seeds); err != nil {
			faults = append(faults, fmt.Errorf("calibrate: %s: %w", sc.name, err))
		}
	}
	return errors.Join(faults...)
}

// playBeside plays the scenario n times, beside each other.
func (sc *scenario) playBeside(ctx context.Context, binary string, n int) ([]outcome, error) {
	outcomes, faults := make([]outcome, n), make([]error, n)
	var playing sync.WaitGroup
	for i := range n {
		playing.Go(func() {
			if sleep(ctx, time.Duration(i)*stagger) {
				outcomes[i], faults[i] = sc.play(ctx, binary)
			}
		})
	}
	playing.Wait()
	return outcomes, errors.Join(append(faults, ctx.Err())...)
}

// row is one figure of the real runs and of the simulation's.
type row struct {
	name            string
	real, simulated []float64
	compared        bool
}

// compare prints what the real processes and the simulation say of the scenario.
func (sc *scenario) compare(out io.Writer, outcomes []outcome, seeds int) error {
	peak := row{name: "peak of reconnects a second", compared: true}
	loss := row{name: "connections lost", compared: true}
	all := row{name: "reconnects"}
	longest := row{name: "longest without service, s"}
	var faults []error
	fmt.Fprintf(out, "%s: %d servers, %d clients\n", sc.name, sc.servers, sc.clients())
	for i, o := range outcomes {
		peak.real = append(peak.real, float64(o.peak))
		loss.real = append(loss.real, float64(o.refused+o.cut))
		all.real = append(all.real, float64(o.reconnects))
		longest.real = append(longest.real, o.longest.Seconds())
		fmt.Fprintf(out, "  run %d: by the servers' account %d reconnects, at most %.0f a second; %d refused, %d cut; %d of %d operations failed; the machine stalled for %v\n",
			i+1, o.accepted, o.acceptedPeak, o.refused, o.cut, o.failed, o.operations, o.stall.Round(time.Millisecond))
		for _, f := range o.faults {
			fmt.Fprintln(out, "    cut:", f)
		}
		if o.accepted != o.reconnects {
			faults = append(faults, fmt.Errorf("run %d: clients count %d reconnects, the servers %d", i+1, o.reconnects, o.accepted))
		}
	}
	for seed := range seeds {
		r := sc.simulate(uint64(seed) + 1)
		peak.simulated = append(peak.simulated, float64(r.PeakReconnects))
		loss.simulated = append(loss.simulated, float64(r.Loss()))
		all.simulated = append(all.simulated, float64(r.Reconnects))
		longest.simulated = append(longest.simulated, r.Longest.Seconds())
	}
	fmt.Fprintf(out, "  %-28s %-28s %8s %24s %8s\n", "", "real", "median", "simulation, median", "ratio")
	for _, r := range []row{peak, loss, all, longest} {
		faults = append(faults, r.write(out))
	}
	return errors.Join(faults...)
}

// write prints the row. It returns an error where the medians differ too much and are
// compared.
func (r row) write(out io.Writer) error {
	var runs string
	for _, v := range r.real {
		runs += fmt.Sprintf("%8.4g", v)
	}
	real, simulated := median(r.real), median(r.simulated)
	ratio := real / simulated
	if real == simulated {
		ratio = 1 // Both may be 0.
	}
	fmt.Fprintf(out, "  %-28s %-28s %8.4g %8.4g (%.4g to %.4g) %8.2f\n", r.name, runs, real,
		simulated, slices.Min(r.simulated), slices.Max(r.simulated), ratio)
	if r.compared && !(math.Abs(ratio-1) <= tolerance) {
		return fmt.Errorf("%s: %.4g really and %.4g simulated", r.name, real, simulated)
	}
	return nil
}

// median returns the one in the middle, or the mean of the two.
func median(figures []float64) float64 {
	sorted := slices.Sorted(slices.Values(figures))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
