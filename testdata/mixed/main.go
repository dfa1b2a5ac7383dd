// Mixed sends gRPC calls and other requests, in random order, to muxes behind
// connect-go, HAProxy, nginx and httputil.ReverseProxy, and prints a table of what was
// answered and by which server. It fails when anything is lost. See README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"

	"github.com/muxserve/muxserve/testdata/clients/selfsigned"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A line is one line of the table; String is its beginning.
type line interface {
	String() string
	run(ctx context.Context, s setup) *result
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("mixed", flag.ContinueOnError)
	var s setup
	flags.IntVar(&s.requests, "requests", 2000, "how many calls and requests each row has")
	flags.Uint64Var(&s.seed, "seed", 1, "the seed of their order")
	inFlight := flags.Int("in-flight", 10_000, "how many calls are in flight when the GET comes")
	only := flags.String("run", "", "the regular expression of the rows to run; all if empty")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("mixed: %w", err)
	}
	pattern, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("mixed: -run: %w", err)
	}
	dir, err := os.MkdirTemp("", "muxserve-mixed-")
	if err != nil {
		return fmt.Errorf("mixed: %w", err)
	}
	defer os.RemoveAll(dir)
	s.dir = dir
	if s.cert, s.key, err = selfsigned.Write(dir); err != nil {
		return err
	}
	var all []line
	for _, r := range rows() {
		all = append(all, r)
	}
	for _, r := range scriptRows() {
		all = append(all, r)
	}
	for _, r := range nativeRows() {
		all = append(all, r)
	}
	all = append(all, watchedRow{*inFlight})
	var failed, ran int
	printHeader(os.Stdout)
	for _, r := range all {
		if !pattern.MatchString(r.String()) {
			continue
		}
		ran++
		res := r.run(ctx, s)
		res.print(os.Stdout, r.String())
		if !res.ok() {
			failed++
		}
	}
	if failed > 0 || ran == 0 {
		return fmt.Errorf("mixed: %d of %d rows failed", failed, ran)
	}
	return nil
}
