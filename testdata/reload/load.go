package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// operationTime is the deadline of each operation.
const operationTime = 10 * time.Second

// client does operations, one after the other. It is used by one goroutine.
type client interface {
	operate(ctx context.Context, n int) error
	close()
}

// kind is a kind of client and how many there are.
type kind struct {
	name  string
	count int
	kept  bool // They keep their connections as long as they may.
	make  func(*dialer) (client, error)
}

func kinds() []kind {
	return []kind{
		{"http1 kept", 4, true, func(d *dialer) (client, error) { return newRequests(d, keepAlive), nil }},
		{"http1 new", 4, false, func(d *dialer) (client, error) { return newRequests(d, newEach), nil }},
		{"h2c", 4, true, func(d *dialer) (client, error) { return newRequests(d, h2c), nil }},
		{"grpc unary", 4, true, newCalls},
		{"grpc streams", 4, true, newStreams},
		{"websocket", 4, true, func(d *dialer) (client, error) { return &webSocket{dialer: d}, nil }},
	}
}

// load is clients of all kinds at work.
type load struct {
	rows   tallies
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// startLoad has clients of all kinds do rate operations a second together, until finish. It returns when each
// has done one.
func startLoad(ctx context.Context, rate int, known func() []string) (*load, error) {
	l := new(load)
	ctx, l.cancel = context.WithCancel(ctx)
	total := 0
	for _, k := range kinds() {
		total += k.count
	}
	interval := time.Duration(total) * time.Second / time.Duration(rate)
	var begun sync.WaitGroup
	for _, k := range kinds() {
		t := &tally{kind: k.name}
		l.rows = append(l.rows, t)
		for range k.count {
			c, err := k.make(&dialer{t: t, known: known})
			if err != nil {
				l.cancel()
				l.wg.Wait()
				return nil, fmt.Errorf("reload: %s: %w", k.name, err)
			}
			begun.Add(1)
			l.wg.Go(func() { work(ctx, t, c, interval, begun.Done) })
		}
	}
	begun.Wait()
	return l, nil
}

// work does operations until ctx ends, and closes the client. An operation that has begun is done to its end.
func work(ctx context.Context, t *tally, c client, interval time.Duration, begun func()) {
	defer c.close()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for n := 0; ; n++ {
		t.operation(func() error {
			operation, cancel := context.WithTimeout(context.WithoutCancel(ctx), operationTime)
			defer cancel()
			return c.operate(operation, n)
		})
		if n == 0 {
			begun()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// finish ends the load and prints what came of it. moved says whether the connections that are kept had to be left.
func (l *load) finish(o *options, scenario string, moved bool) error {
	l.cancel()
	l.wg.Wait()
	return errors.Join(l.rows.write(o.out, scenario), l.checkMoved(moved))
}

// checkMoved returns an error for each kind of clients that were told to leave and should not have been, or the other way round:
// then the scenario has shown nothing.
func (l *load) checkMoved(moved bool) error {
	var errs []error
	for i, k := range kinds() {
		if n := l.rows[i].conns.Load(); k.kept && (n > int64(k.count)) != moved {
			errs = append(errs, fmt.Errorf("%s: %d clients had %d connections", k.name, k.count, n))
		}
	}
	return errors.Join(errs...)
}
