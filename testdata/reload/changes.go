package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/muxserve/muxserve/testdata/clients/process"
)

// limits changes keys that apply at once.
func limits(ctx context.Context, o *options, dir string) error {
	return changeKeys(ctx, o, dir, "limits", o.limits, false, func(i int) string {
		more := 1000 + i
		return fmt.Sprintf("limits: {max_connections: %d}\nhttp1: {max_connections: %d}\nwebsocket: {read_limit: %d}\nsniff: {timeout: %dms}\n"+
			"health: {degraded_above: 0.%d}\n", more, more, 40_000+i, 3000+i, 60+i%20)
	})
}

// serverSettings changes keys that net/http and grpc-go fix at construction, one protocol after the other.
func serverSettings(ctx context.Context, o *options, dir string) error {
	return changeKeys(ctx, o, dir, "settings", o.settings, true, func(i int) string {
		const protocols = 3
		at := func(place int) int { return (i + protocols - 1 - place) / protocols }
		return fmt.Sprintf("http1: {idle_timeout: %ds}\nhttp2: {max_streams: %d}\ngrpc: {max_recv_bytes: %d}\n",
			100+at(0), 100+at(1), 4_000_000+at(2))
	})
}

// changeKeys changes a file n times under load; more returns its variable part, which differs from one number to the next. moved says
// whether clients have to leave their connections for it.
func changeKeys(ctx context.Context, o *options, dir, name string, n int, moved bool, more func(i int) string) error {
	p, err := process.Reserve()
	if err != nil {
		return err
	}
	defer p.Release()
	f := file{addresses: []string{p.String()}, more: more(0)}
	return underLoad(ctx, o, dir, name, f, moved, func(s *server) error {
		for i := range n {
			f.more = more(i + 1)
			if err := s.change(ctx, f); err != nil {
				return err
			}
			if err := wait(ctx, o.pause); err != nil {
				return err
			}
		}
		return nil
	})
}

// underLoad starts muxserve and the clients, and prints what came of it.
func underLoad(ctx context.Context, o *options, dir, name string, f file, moved bool, during func(*server) error) error {
	s, err := startServer(ctx, o, dir, f)
	if err != nil {
		return err
	}
	l, err := startLoad(ctx, o.rate, s.known)
	if err != nil {
		return errors.Join(err, s.stop())
	}
	err = during(s)
	err = errors.Join(err, l.finish(o, name, moved))
	fmt.Fprintf(o.out, "%d changes, the longest of %v\n", s.changes, s.longest.Round(time.Millisecond))
	if s.slowest > 0 {
		fmt.Fprintf(o.out, "an address that was left refused after %v at most\n", s.slowest.Round(time.Millisecond))
	}
	return errors.Join(err, s.stop())
}

// addresses changes where muxserve listens. In turn it moves to another port in one change, gets a second port, and leaves the first.
func addresses(ctx context.Context, o *options, dir string) error {
	var ports [3]*process.Port
	for i := range ports {
		p, err := process.Reserve()
		if err != nil {
			return err
		}
		defer p.Release()
		ports[i] = p
	}
	a := func(i int) string { return ports[i%len(ports)].String() }
	f := file{addresses: []string{a(0)}}
	return underLoad(ctx, o, dir, "addresses", f, true, func(s *server) error {
		for i, at := 0, 0; i < o.addresses; i++ {
			old, next := s.known(), []string{a(at + 1)}
			switch i % 3 {
			case 0: // It moves.
				at++
			case 1: // It gets a second port.
				next = []string{a(at), a(at + 1)}
			case 2: // It leaves the first.
				at++
			}
			if err := s.move(ctx, old, next); err != nil {
				return fmt.Errorf("change %d, from %v to %v: %w", i+1, old, next, err)
			}
			if err := wait(ctx, o.pause); err != nil {
				return err
			}
		}
		return nil
	})
}

// move changes the addresses. Clients learn of the new ones when the change begins, and forget the old ones when it has been made.
func (s *server) move(ctx context.Context, from, to []string) error {
	s.publish(slices.Concat(from, to)...)
	if err := s.change(ctx, file{addresses: to}); err != nil {
		return err
	}
	s.publish(to...)
	for _, address := range to {
		if err := connect(ctx, address); err != nil {
			return fmt.Errorf("the new address: %w", err)
		}
	}
	for _, address := range from {
		if slices.Contains(to, address) {
			continue
		}
		if err := s.released(ctx, address); err != nil {
			return err
		}
	}
	return nil
}

// releaseTime is how soon an address that was left must refuse connections. What its kernel queue holds is taken in before, and
// who goes on connecting, as released does, makes that longer.
const (
	releaseTime  = 3 * time.Second
	releaseProbe = 50 * time.Millisecond
)

// released waits until an address refuses connections.
func (s *server) released(ctx context.Context, address string) error {
	for started := time.Now(); ; {
		err := connect(ctx, address)
		took := time.Since(started)
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			s.slowest = max(s.slowest, took)
			return nil
		case err != nil:
			return fmt.Errorf("the old address: %w", err)
		case took > releaseTime:
			return fmt.Errorf("the old address %s takes connections after %v", address, took)
		}
		if err := wait(ctx, releaseProbe); err != nil {
			return err
		}
	}
}

// connect connects and hangs up.
func connect(ctx context.Context, address string) error {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return c.Close()
}
