package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// An idleConn is a connection that has been used once and waits.
type idleConn struct {
	close func()
	// leave returns when the server has ended the connection, having said on it what a client has to say to that.
	leave func() error
}

// idleOpener makes one.
type idleOpener func(context.Context, *process) (idleConn, error)

func idleHTTP1(ctx context.Context, p *process) (idleConn, error) {
	conn, err := dial(ctx, p, portHTTP1)
	if err != nil {
		return idleConn{}, err
	}
	c := &http1Client{conn: conn}
	if err := c.small(); err != nil {
		return idleConn{}, errors.Join(err, conn.Close())
	}
	return idleConn{
		close: func() { _ = conn.Close() },
		leave: func() error {
			_, err := conn.Read(make([]byte, 1))
			return ended(err)
		},
	}, nil
}

// idleStream makes one of HTTP/2, after a request and an answer. A greeted client waits for
// the server's SETTINGS first: by that muxserve tells gRPC libraries from others.
func idleStream(port string, r http2Request, isGreeted bool) idleOpener {
	return func(ctx context.Context, p *process) (idleConn, error) {
		c, err := openHTTP2(ctx, p, port)
		if err != nil {
			return idleConn{}, err
		}
		var n int
		if isGreeted {
			err = c.greeted(ctx)
		}
		if err == nil {
			n, err = c.do(r, &http2Answer{done: make(chan error, 1)})
		}
		if err == nil && n == 0 {
			err = fmt.Errorf("%w: empty", errAnswer)
		}
		if err != nil {
			c.close()
			return idleConn{}, err
		}
		return idleConn{
			close: c.close,
			leave: func() error {
				c.ended.Wait()
				return ended(c.err)
			},
		}, nil
	}
}

func idleWebSocket(ctx context.Context, p *process) (idleConn, error) {
	c, err := openWebSocket(ctx, p, "/echo")
	if err != nil {
		return idleConn{}, err
	}
	return idleConn{
		close: func() { _ = c.conn.Close() },
		leave: func() error {
			defer c.conn.Close()
			return ended(c.receive())
		},
	}, nil
}

// ended returns nil for the error of a connection that the server has ended.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("bench: idle connection: %w", err)
}

// idlers is how many idle connections are opened at the same time: fewer than a listener's queue holds.
const idlers = 64

// openIdle opens connections, the openers in turn.
func openIdle(ctx context.Context, p *process, count int, open ...idleOpener) ([]idleConn, error) {
	conns, errs := make([]idleConn, count), make([]error, idlers)
	var wg sync.WaitGroup
	for worker := range idlers {
		wg.Go(func() {
			for i := worker; i < count && errs[worker] == nil; i += idlers {
				conns[i], errs[worker] = open[i%len(open)](ctx, p)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		closeIdle(conns)
		return nil, err
	}
	return conns, nil
}

func closeIdle(conns []idleConn) {
	for _, c := range conns {
		if c.close != nil {
			c.close()
		}
	}
}

// warmIdle is how many connections are opened first, so that what a server makes once is made. They stay, since
// nobody can tell when a server has done with connections that are closed.
const warmIdle = 64

// measureIdle returns what one of many idle connections holds.
func measureIdle(ctx context.Context, p *process, count int, open idleOpener) (perConn memory, err error) {
	warm, err := openIdle(ctx, p, warmIdle, open)
	if err != nil {
		return memory{}, err
	}
	defer closeIdle(warm)
	before, err := p.ask(command{Do: doMemory})
	if err != nil {
		return memory{}, err
	}
	conns, err := openIdle(ctx, p, count, open)
	if err != nil {
		return memory{}, err
	}
	defer closeIdle(conns)
	after, err := p.ask(command{Do: doMemory})
	each := func(after, before int64) float64 { return float64(after-before) / float64(count) }
	return memory{Heap: each(after.Heap, before.Heap), Stack: each(after.Stack, before.Stack), RSS: each(after.RSS, before.RSS)}, err
}

// measureDrain returns how long a server takes to drain idle connections of every kind, whose clients leave when they are told to.
func measureDrain(ctx context.Context, p *process, count int, open ...idleOpener) (account, error) {
	conns, err := openIdle(ctx, p, count, open...)
	if err != nil {
		return account{}, err
	}
	defer closeIdle(conns)
	errs := make([]error, count)
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() { errs[i] = c.leave() })
	}
	a, err := p.ask(command{Do: doDrain})
	if err != nil {
		closeIdle(conns)
	}
	wg.Wait()
	return a, errors.Join(err, errors.Join(errs...))
}
