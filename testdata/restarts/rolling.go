package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// backendCount is how many muxserves stand behind HAProxy.
const backendCount = 3

// rolling restarts muxserves behind HAProxy one after the other under load, as a
// deployment does.
func rolling(ctx context.Context, o *options) error {
	var backends []*backend
	flags := append(o.drainFlags(), "--proxy-protocol=required", "--proxy-trusted=127.0.0.1") // The recipe sends the header.
	for i := range backendCount {
		b, err := newBackend(o.binary, o.dir, fmt.Sprintf("rolling%d", i), flags...)
		if err != nil {
			return err
		}
		defer b.close()
		if err := b.start(ctx); err != nil {
			return err
		}
		backends = append(backends, b)
	}
	h, err := startHAProxy(ctx, o, backends)
	if err != nil {
		return err
	}
	defer h.close()

	clients, rows, err := newClients(ctx, h.bind.String)
	if err != nil {
		return err
	}
	l := startLoad(ctx, o.rate, clients)
	started := time.Now()
	err = restartAll(ctx, o.restarts, backends, h)
	l.finish()
	fmt.Fprintf(o.out, "%d restarts in %v\n", o.restarts, time.Since(started).Round(time.Second))
	return errors.Join(err, rows.write(o.out, "restarts"), rows.toldOfAll())
}

// restartAll restarts the backends in turn, n times in all.
func restartAll(ctx context.Context, n int, backends []*backend, h *haproxy) error {
	for i := range n {
		b := backends[i%len(backends)]
		code, err := b.drain(ctx)
		if err != nil {
			return err
		}
		if code != 0 {
			return fmt.Errorf("restarts: restart %d: exit code %d\n%s", i+1, code, b.tail())
		}
		if err := b.start(ctx); err != nil {
			return err
		}
		// The next one leaves only when this one takes its part again.
		if err := h.waitUp(ctx, i%len(backends)); err != nil {
			return err
		}
	}
	return nil
}
