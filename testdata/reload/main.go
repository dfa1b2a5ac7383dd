// Reload shows that nobody notices a change of the configuration: it drives every
// protocol against a real muxserve, changes its certificates, limits, settings and
// addresses meanwhile, and prints one table of what was sent, answered, retried and
// refused. It fails when anything is lost. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
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
	rate         int // operations a second
	handshakes   int // a second
	certificates int
	limits       int
	settings     int
	addresses    int
	pause        time.Duration
	binary       string

	scenarios []scenario

	dir string
	out io.Writer
}

// scenario is one part of the program. It works in a directory of its own.
type scenario struct {
	name string
	run  func(context.Context, *options, string) error
}

func scenarios() []scenario {
	return []scenario{
		{"certificates", certificates},
		{"limits", limits},
		{"settings", serverSettings},
		{"addresses", addresses},
	}
}

// The flags' defaults are the long form.
func parse(args []string) (*options, error) {
	o := new(options)
	flags := flag.NewFlagSet("reload", flag.ContinueOnError)
	flags.IntVar(&o.rate, "rate", 1000, "operations a second, of all clients together")
	flags.IntVar(&o.handshakes, "handshakes", 500, "TLS handshakes a second, while certificates change")
	flags.IntVar(&o.certificates, "certificates", 200, "changes of the certificate")
	flags.IntVar(&o.limits, "limits", 200, "changes of limits and other keys that apply at once")
	flags.IntVar(&o.settings, "settings", 50, "changes of keys for which the protocols' servers are built anew")
	flags.IntVar(&o.addresses, "addresses", 50, "changes of the addresses")
	flags.DurationVar(&o.pause, "pause", 200*time.Millisecond, "the time from one change to the next")
	flags.StringVar(&o.binary, "muxserve", "", "a muxserve that is built already; by default it is built from the module around")
	names := flags.String("run", "certificates,limits,settings,addresses", "the scenarios to run, separated by commas")
	if err := flags.Parse(args); err != nil {
		return nil, fmt.Errorf("reload: %w", err)
	}
	for name, value := range map[string]int{
		"rate": o.rate, "handshakes": o.handshakes, "certificates": o.certificates, "limits": o.limits, "settings": o.settings, "addresses": o.addresses,
	} {
		if value <= 0 {
			return nil, fmt.Errorf("reload: -%s: %d is not positive", name, value)
		}
	}
	for name := range strings.SplitSeq(*names, ",") {
		s, ok := find(name)
		if !ok {
			return nil, fmt.Errorf("reload: -run: no scenario %q", name)
		}
		o.scenarios = append(o.scenarios, s)
	}
	return o, nil
}

func find(name string) (scenario, bool) {
	for _, s := range scenarios() {
		if s.name == name {
			return s, true
		}
	}
	return scenario{}, false
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	o.out = out
	if o.dir, err = os.MkdirTemp("", "muxserve-reload-"); err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	if o.binary == "" {
		if o.binary, err = process.Build(ctx, o.dir); err != nil {
			return err
		}
	}
	printHeader(out)
	var errs []error
	for _, s := range o.scenarios {
		dir := filepath.Join(o.dir, s.name)
		err := os.Mkdir(dir, 0o700)
		if err == nil {
			err = s.run(ctx, o, dir)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("reload: %s: %w", s.name, err))
		}
	}
	return errors.Join(errs...)
}
