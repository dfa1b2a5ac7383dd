package listeners

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
)

// Open opens the sockets of the address, ReusePort of them and at least one, and sets
// their options. Of "fd:NAME", and of an address of the process before, it opens all that
// [Sockets] has. It opens all or none: at a failure, it closes those that it has opened.
// Every error names the address.
//
// listen opens each socket. It is [Listen], [Sockets.Listen] or the like, and must pass on
// its context; nil means Listen. Where the port is 0, the first socket decides it for all.
//
// The connections have the TCP options, and the addresses of their PROXY headers (see
// [NewProxyListener]). Each of the listeners is good for [New].
func (c Config) Open(ctx context.Context, listen func(ctx context.Context, address string) (net.Listener, error)) ([]net.Listener, error) {
	o, err := c.Reopen(ctx, listen, Config{})
	if err != nil {
		return nil, err
	}
	o.Commit()
	return o.Listeners, nil
}

// Opening is what [Config.Reopen] has opened, before the caller knows whether it is used.
// The caller calls Commit or Undo once.
type Opening struct {
	// Listeners are what [Config.Open] returns.
	Listeners []net.Listener

	kept   int // of Listeners, the first ones, which were open before
	commit []func()
	undo   []func() error
}

// Commit sets the rest of the options. It cannot fail.
func (o *Opening) Commit() {
	for _, commit := range o.commit {
		commit()
	}
}

// Undo closes what was opened, and gives the sockets that were open before, or inherited,
// the options back that they had.
func (o *Opening) Undo() error {
	var err error
	for _, undo := range slices.Backward(o.undo) {
		err = errors.Join(err, undo())
	}
	for _, l := range o.Listeners[o.kept:] {
		err = errors.Join(err, l.Close())
	}
	return err
}

// Reopen is [Config.Open] where sockets of the address are open already, under the Config
// was: those in keep (see [Unwrap]). They get c's options, and stay open at a failure, as
// they were. They are used though they be more than ReusePort: a client may be in the queue
// of each. A key that was set and is not any more gives back what the socket had before it
// was set.
//
// Sockets of keep serve clients until Commit. So Reopen itself sets only what can fail:
// owner and permissions of a file, and SO_REUSEPORT where the address gets more sockets.
func (c Config) Reopen(ctx context.Context, listen func(ctx context.Context, address string) (net.Listener, error), was Config, keep ...net.Listener) (opening *Opening, err error) {
	if listen == nil {
		listen = Listen
	}
	if err := errors.Join(c.Validate(), c.checkPlatform()); err != nil {
		return nil, err
	}
	o := &Opening{Listeners: slices.Clone(keep)}
	o.kept = len(o.Listeners)
	defer func() {
		if opening == nil { // It has failed, or listen panics.
			err = errors.Join(err, o.Undo())
		}
	}()
	ctx = withOption(ctx, quiet)
	if c.UnixMode != "" {
		ctx = withOption(ctx, private)
	}
	if err := c.openRest(ctx, o, was, listen); err != nil {
		return nil, err
	}
	return o, nil
}

// openRest opens the sockets that are missing, and then gives each its options and its
// layers. At a failure the caller undoes what is done.
func (c Config) openRest(ctx context.Context, o *Opening, was Config, listen func(context.Context, string) (net.Listener, error)) error {
	if len(o.Listeners) == 0 {
		first, err := listen(ctx, c.Address)
		if err != nil {
			return err
		}
		o.Listeners = append(o.Listeners, first)
		if k, ok := first.(*socket); ok {
			more, err := k.further()
			o.Listeners = append(o.Listeners, more...)
			if err != nil {
				return err
			}
		}
	}
	for _, l := range o.Listeners {
		if err := c.setOptions(o, l, was); err != nil {
			return fmt.Errorf("listeners: listen on %s: %w", c.Address, err)
		}
	}
	// The first socket was bound without the option, which fails where another process
	// listens: that one would go on to get a part of the connections.
	ctx = withOption(ctx, sharedPort)
	for address := decidedPort(c.Address, o.Listeners[0].Addr()); len(o.Listeners) < c.ReusePort; {
		l, err := listen(ctx, address)
		if err != nil {
			return err
		}
		o.Listeners = append(o.Listeners, l)
		if err := c.setOptions(o, l, Config{}); err != nil {
			return fmt.Errorf("listeners: listen on %s: %w", address, err)
		}
	}
	for i, l := range o.Listeners {
		layered, err := NewProxyListener(c.tuned(o, l), c.ProxyProtocol)
		if err != nil {
			return fmt.Errorf("listeners: listen on %s: %w", c.Address, err)
		}
		o.Listeners[i] = layered
	}
	return nil
}

// altered is what keys have changed on a socket, so that it can be put back when they are
// not set any more. The zero value is a socket as it was opened or inherited.
type altered struct {
	File      *fileState `json:"file,omitempty"` // before unix_mode or unix_owner was set
	Backlog   bool       `json:"backlog,omitempty"`
	ReusePort bool       `json:"reuse_port,omitempty"` // it is on, and was off
}

// memory is the altered of a socket. Its methods may be called concurrently.
type memory struct {
	mu  sync.Mutex
	has altered
}

func (m *memory) remembered() *memory { return m }

func (m *memory) recall() altered {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.has
}

func (m *memory) note(a altered) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.has = a
}

// memoryOf returns a socket's memory. Listeners of other packages have none: what was, the
// Config under which they are open, has set then goes back to what a new socket has.
func memoryOf(l net.Listener, was Config) *memory {
	if m, ok := l.(interface{ remembered() *memory }); ok {
		return m.remembered()
	}
	a := altered{Backlog: was.Backlog > 0, ReusePort: was.ReusePort > 1}
	if was.setsFile() {
		a.File = newFileState()
	}
	return &memory{has: a}
}
