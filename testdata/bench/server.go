package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"time"
)

// serverOptions are the flags of a server process.
type serverOptions struct {
	form string
	dir  string // with the certificate, and the file that is downloaded
	set  string // settings of the mux; see windowSettings
}

// serveForm is the main function of a server process: it serves one form, and
// answers the generator's commands until there are no more.
func serveForm(args []string, in io.Reader, out io.Writer) error {
	var o serverOptions
	flags := flag.NewFlagSet("bench server", flag.ContinueOnError)
	flags.StringVar(&o.form, "form", formDirect, "the form to serve")
	flags.StringVar(&o.dir, "dir", "", "the directory with the certificate and the download")
	flags.StringVar(&o.set, "set", "", "settings of the mux")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	f, ok := findForm(o.form)
	if !ok {
		return fmt.Errorf("bench: no form %q", o.form)
	}
	running, err := f.start(o)
	if err != nil {
		return err
	}
	defer running.close()
	encoder, decoder := json.NewEncoder(out), json.NewDecoder(in)
	if err := encoder.Encode(account{Addresses: running.addresses}); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	for {
		var c command
		if err := decoder.Decode(&c); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("bench: %w", err)
		}
		a, err := running.answer(c)
		if err != nil {
			a.Error = err.Error()
		}
		if err := encoder.Encode(a); err != nil {
			return fmt.Errorf("bench: %w", err)
		}
	}
}

// running is a form that serves.
type running struct {
	addresses map[string]string // by port
	handlers  *handlers
	others    []int // the processes that work for the form besides this one
	// drain is nil where the form has none.
	drain   func(context.Context) (took time.Duration, cut int, err error)
	closers []func()
	profile *os.File
}

func (r *running) close() {
	for _, c := range r.closers {
		c()
	}
}

// drainTimeout is when a drain that is measured has failed.
const drainTimeout = time.Minute

func (r *running) answer(c command) (a account, err error) {
	switch c.Do {
	case doBegin:
		a.allocations() // Which stops the world, and so comes before the clock is read.
		a.CPU, err = processorTime(r.others)
	case doEnd:
		if a.CPU, err = processorTime(r.others); err == nil {
			a.allocations()
		}
	case doMemory:
		err = a.memory(r.others)
	case doBroadcast:
		err = r.handlers.hub.broadcast(c.Count)
	case doDrain:
		if r.drain == nil {
			return a, errors.New("this form cannot drain")
		}
		ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
		defer cancel()
		a.Drained, a.Cut, err = r.drain(ctx)
	case doProfile:
		err = r.startProfile(c.File)
	case doStopProfile:
		pprof.StopCPUProfile()
		err = r.profile.Close()
	case doContention:
		runtime.SetMutexProfileFraction(1)
	case doLocks:
		err = writeLocks(c.File)
	default:
		err = fmt.Errorf("no command %q", c.Do)
	}
	return a, err
}

func (r *running) startProfile(name string) (err error) {
	if r.profile, err = os.Create(name); err != nil {
		return err
	}
	return pprof.StartCPUProfile(r.profile)
}

// writeLocks writes the profile of the locks that goroutines have waited for.
func writeLocks(name string) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup("mutex").WriteTo(file, 0), file.Close())
}

func (a *account) allocations() {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	a.Mallocs, a.Allocated = stats.Mallocs, stats.TotalAlloc
}
