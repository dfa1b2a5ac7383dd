// Restarts shows that nobody notices a restart: it drives every protocol against
// real muxserves, behind a real HAProxy and without one, restarts, upgrades and
// drains them meanwhile, and prints one table of what was sent, answered, retried
// and lost. It fails when anything is lost. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
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

// options are the program's flags, and where it works.
type options struct {
	rate     int // operations a second
	restarts int
	upgrades int
	streams  int
	duplex   int
	cycles   int
	delay    time.Duration
	spread   time.Duration
	binary   string
	recipe   string
	asIs     bool

	scenarios []scenario
	keep      bool

	dir string
	out io.Writer
}

// The flags' defaults are the long form.
func parse(args []string) (*options, error) {
	o := new(options)
	flags := flag.NewFlagSet("restarts", flag.ContinueOnError)
	flags.IntVar(&o.rate, "rate", 1000, "operations a second, of all clients together")
	flags.IntVar(&o.restarts, "restarts", 100, "rolling restarts behind HAProxy")
	flags.IntVar(&o.upgrades, "upgrades", 50, "binary upgrades in place")
	flags.IntVar(&o.duplex, "duplex", 500, "further streams that move on while that process drains")
	flags.IntVar(&o.streams, "streams", 5000, "streams that are open when a process drains")
	flags.IntVar(&o.cycles, "cycles", 1000, "starts and drains in one process")
	flags.DurationVar(&o.delay, "delay", 2*time.Second, "the drain delay of the servers")
	flags.DurationVar(&o.spread, "spread", time.Second, "the drain spread of the servers that are restarted or upgraded")
	flags.StringVar(&o.binary, "muxserve", "", "a muxserve that is built already; by default it is built from the module around")
	flags.StringVar(&o.recipe, "haproxy", "../../cmd/muxserve/deploy/haproxy.cfg", "the configuration of HAProxy whose addresses are replaced")
	flags.BoolVar(&o.asIs, "as-is", false, "leave its health checks and retries as they are; they want -delay 8s")
	names := flags.String("run", "restarts,upgrades,kill-child,kill-parent,streams,cycles", "the scenarios to run, separated by commas")
	flags.BoolVar(&o.keep, "keep", false, "keep the directory with the logs")
	if err := flags.Parse(args); err != nil {
		return nil, fmt.Errorf("restarts: %w", err)
	}
	for name, value := range map[string]int{"rate": o.rate, "restarts": o.restarts, "upgrades": o.upgrades, "streams": o.streams, "cycles": o.cycles} {
		if value <= 0 {
			return nil, fmt.Errorf("restarts: -%s: %d is not positive", name, value)
		}
	}
	for name := range strings.SplitSeq(*names, ",") {
		s, ok := find(name)
		if !ok {
			return nil, fmt.Errorf("restarts: -run: no scenario %q", name)
		}
		o.scenarios = append(o.scenarios, s)
	}
	return o, nil
}

// drainTimeout is when the drains of restarts begin to cut. Nothing that the
// clients do takes as long.
const drainTimeout = 25 * time.Second

// drainFlags are the flags of the servers that are restarted.
func (o *options) drainFlags() []string {
	return []string{
		"--drain-delay=" + o.delay.String(),
		"--drain-spread=" + o.spread.String(),
		"--drain-timeout=" + drainTimeout.String(),
	}
}

// scenario is one part of the program.
type scenario struct {
	name string
	run  func(context.Context, *options) error
}

func scenarios() []scenario {
	return []scenario{
		{"restarts", rolling},
		{"upgrades", upgrades},
		{"kill-child", killChild},
		{"kill-parent", killParent},
		{"streams", many},
		{"cycles", cycles},
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	o.out = out
	if o.dir, err = os.MkdirTemp("", "muxserve-restarts-"); err != nil {
		return fmt.Errorf("restarts: %w", err)
	}
	if o.keep {
		fmt.Fprintln(out, "logs in", o.dir)
	} else {
		defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	}
	if o.binary == "" {
		if o.binary, err = process.Build(ctx, o.dir); err != nil {
			return err
		}
	}
	printHeader(out)
	var errs []error
	for _, s := range o.scenarios {
		if err := s.run(ctx, o); err != nil {
			errs = append(errs, fmt.Errorf("restarts: %s: %w", s.name, err))
		}
	}
	return errors.Join(errs...)
}

func find(name string) (scenario, bool) {
	for _, s := range scenarios() {
		if s.name == name {
			return s, true
		}
	}
	return scenario{}, false
}
