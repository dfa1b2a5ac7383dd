package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"
)

// plan says what is measured, and for how long.
type plan struct {
	operations []operation
	forms      []form
	rounds     int
	slices     int // of each form in a round
	procs      int // GOMAXPROCS of the servers
	slice      time.Duration
	sizes      sizes
	dir        string
	profiles   string // a directory, or empty
	contention string // the same
	settings   string // of the mux; see windowSettings
	progress   func(format string, args ...any)
}

// sample is what one form has shown in one round.
type sample struct {
	Operations int           `json:"operations,omitempty"`
	CPU        time.Duration `json:"cpu_ns,omitempty"`
	// Turns are the nanoseconds of processor time that an operation took in each slice.
	Turns     []float64     `json:"turns_ns,omitempty"`
	Took      time.Duration `json:"took_ns,omitempty"`
	Mallocs   uint64        `json:"mallocs,omitempty"`
	Allocated uint64        `json:"allocated_bytes,omitempty"`
	// P50 and P99 are latencies at Rate operations a second.
	Rate float64       `json:"rate,omitempty"`
	P50  time.Duration `json:"p50_ns,omitempty"`
	P99  time.Duration `json:"p99_ns,omitempty"`
	// Transfer is how long one took over a link.
	Transfer time.Duration `json:"transfer_ns,omitempty"`
	// Memory is that of one idle connection.
	Memory *memory `json:"memory,omitempty"`
	// Drained is how long it took, and Cut how many connections were not let go.
	Drained time.Duration `json:"drained_ns,omitempty"`
	Cut     int           `json:"cut,omitempty"`
}

// memory is what something holds, in bytes.
type memory struct {
	Heap  float64 `json:"heap"`
	Stack float64 `json:"stack"`
	RSS   float64 `json:"rss"`
}

// round holds a sample of each form that could perform the operation.
type round map[string]*sample

// result is all that was measured of one operation.
type result struct {
	Operation string            `json:"operation"`
	Rounds    []round           `json:"rounds"`
	Failures  map[string]string `json:"failures,omitempty"` // by form
}

// measure performs one operation in all rounds.
func (p *plan) measure(ctx context.Context, o operation) *result {
	r := &result{Operation: o.name, Failures: make(map[string]string)}
	for i := range p.rounds {
		p.progress("%s: round %d of %d", o.name, i+1, p.rounds)
		switch {
		case o.open != nil:
			r.Rounds = append(r.Rounds, p.requestRound(ctx, o, r))
		default:
			r.Rounds = append(r.Rounds, p.idleRound(ctx, o, r))
		}
	}
	return r
}

// fail takes note of a form that cannot do it.
func (r *result) fail(form string, err error) { r.Failures[form] = err.Error() }

// contestant is one form in one round.
type contestant struct {
	*sample
	process *process
	session *session // nil where it is made for each slice
	failed  error
	locks   string // the file for what its goroutines have waited for; empty for none
}

// requestRound measures an operation that is performed again and again, on servers of its own: what one
// process has by luck, as where its memory lies, the next one has not.
func (p *plan) requestRound(ctx context.Context, o operation, r *result) round {
	var contestants []*contestant
	defer func() {
		for _, c := range contestants {
			c.end()
		}
	}()
	for _, f := range p.forms {
		if f.name == o.without {
			continue
		}
		c, err := p.enter(ctx, o, f)
		if err != nil {
			r.fail(f.name, err)
			continue
		}
		contestants = append(contestants, c)
	}
	if len(contestants) == 0 {
		return nil
	}
	base := contestants[0] // Which is direct, unless that was not asked for.
	turns, slice := p.slices, p.slice
	switch {
	case o.way.roundTrip > 0:
		turns, slice = 1, transferSlices*p.slice
	case o.alone:
		turns, slice = 1, p.slice*time.Duration(p.slices) // To open so many connections takes longer than to measure.
	}
	for range turns {
		shuffle(contestants)
		for _, c := range contestants {
			c.attempt(func() error { return c.slice(ctx, o, p.sizes, slice) })
		}
	}
	if !o.bulk {
		p.latencies(contestants, base)
	}
	samples := make(round)
	for _, c := range contestants {
		if c.failed != nil {
			r.fail(c.process.form, c.failed)
			continue
		}
		samples[c.process.form] = c.sample
	}
	return samples
}

func shuffle(order []*contestant) {
	rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] }) //nolint:gosec // Nobody gains by guessing the order.
}

// enter starts a form, and lets it warm up.
func (p *plan) enter(ctx context.Context, o operation, f form) (_ *contestant, err error) {
	c := &contestant{sample: new(sample)}
	if c.process, err = p.startProcess(ctx, f.name, o.way); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.end()
		}
	}()
	if !o.alone {
		if c.session, err = o.open(ctx, c.process, p.sizes); err != nil {
			return nil, err
		}
		if _, _, err = closedLoop(c.session.workers, p.slice); err != nil {
			return nil, err
		}
	}
	if p.contention != "" {
		c.locks = filepath.Join(p.contention, o.name+"."+f.name+".locks.pprof")
		if _, err = c.process.ask(command{Do: doContention}); err != nil {
			return nil, err
		}
	}
	if p.profiles != "" {
		_, err = c.process.ask(command{Do: doProfile, File: filepath.Join(p.profiles, o.name+"."+f.name+".pprof")})
	}
	return c, err
}

func (c *contestant) end() {
	if c.session != nil {
		c.session.close()
	}
	_, _ = c.process.ask(command{Do: doStopProfile}) // Which fails where there is none.
	if c.locks != "" {
		if _, err := c.process.ask(command{Do: doLocks, File: c.locks}); err != nil {
			c.failed = errors.Join(c.failed, err)
		}
	}
	_ = c.process.stop()
}

// attempt does nothing more once something has failed.
func (c *contestant) attempt(f func() error) {
	if c.failed == nil {
		c.failed = f()
	}
}

// settle is what a server gets to finish what it does behind an answer, such as to close a connection.
const settle = 2 * time.Millisecond

// slice measures for a while, and adds to the sample.
func (c *contestant) slice(ctx context.Context, o operation, s sizes, d time.Duration) (err error) {
	session := c.session
	if session == nil {
		if session, err = o.open(ctx, c.process, s); err != nil {
			return err
		}
		defer session.close()
	}
	before, err := c.process.ask(command{Do: doBegin})
	if err != nil {
		return err
	}
	n, took, err := closedLoop(session.workers, d)
	if err != nil {
		return err
	}
	if o.way.roundTrip > 0 {
		c.Transfer = took / time.Duration(n)
		return nil
	}
	time.Sleep(settle)
	after, err := c.process.ask(command{Do: doEnd})
	if err != nil {
		return err
	}
	c.Operations += n
	c.Took += took
	c.CPU += after.CPU - before.CPU
	c.Turns = append(c.Turns, float64(after.CPU-before.CPU)/float64(n))
	c.Mallocs += after.Mallocs - before.Mallocs
	c.Allocated += after.Allocated - before.Allocated
	return nil
}

const (
	// load is the part of what direct can do that is asked of every form when latencies are measured.
	load = 0.25
	// transferSlices is how long transfers go on over a link, in slices; most of them take longer.
	transferSlices = 4
	// latencySlices is how long that is done, in slices: a p99 needs a thousand operations.
	latencySlices = 5
)

// latencies measures them, at one rate for all forms.
func (p *plan) latencies(contestants []*contestant, base *contestant) {
	rate := load * base.perSecond()
	shuffle(contestants)
	for _, c := range contestants {
		c.attempt(func() error {
			latencies, err := openLoop(c.session.workers, rate, latencySlices*p.slice)
			if err != nil {
				return err
			}
			c.Rate, c.P50, c.P99 = rate, quantile(latencies, 0.5), quantile(latencies, 0.99)
			return nil
		})
	}
}

// perSecond is the throughput of the closed loop.
func (s *sample) perSecond() float64 { return float64(s.Operations) / s.Took.Seconds() }

// idleRound measures memory, or a drain, on servers of their own.
func (p *plan) idleRound(ctx context.Context, o operation, r *result) round {
	samples := make(round)
	for _, f := range p.forms {
		if o.drain != nil && f.name != formOurs {
			continue
		}
		s, err := p.idleSample(ctx, o, f)
		if err != nil {
			r.fail(f.name, err)
			continue
		}
		samples[f.name] = s
	}
	return samples
}

func (p *plan) idleSample(ctx context.Context, o operation, f form) (s *sample, err error) {
	server, err := p.startProcess(ctx, f.name, o.way)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	count := p.sizes.idle
	if f.name == formHAProxy {
		count = min(count, haproxyConnections()-warmIdle)
	}
	if o.drain != nil {
		a, err := measureDrain(ctx, server, count, o.drain...)
		return &sample{Drained: a.Drained, Cut: a.Cut}, err
	}
	m, err := measureIdle(ctx, server, count, o.idle)
	if err != nil {
		return nil, fmt.Errorf("bench: %s: %w", f.name, err)
	}
	return &sample{Memory: &m}, nil
}
