package listeners

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"syscall"
)

// maxReusePort bounds the sockets of one address. There is no use for more than
// one a processor; a greater number is somebody's mistake.
const maxReusePort = 1024

// Open opens the sockets of the address, of which there are as many as ReusePort
// says and one at least, and sets their options. It opens all or none: at a failure, those that
// it has opened are closed again. Every error names the address.
//
// The sockets in keep are open already, and are the address's first ones; see [Unwrap]. They are given this
// Config's options and not closed at a failure. Of more than there are to be, the last are left alone.
//
// Each other socket is asked for by a call of listen, which is [Listen], [Sockets.Listen] or the
// like; nil means Listen. Inherited sockets are so taken before new ones are opened. With
// ReusePort above 1 listen must pass on the context that it is given. Where the port
// is 0, the first socket decides it for all.
//
// The connections have the addresses that a PROXY header says, as [NewProxyListener] describes, and the
// TCP options; without either, they are those of the socket's own listener. Each of the listeners is good for [New].
func (c Config) Open(ctx context.Context, listen ListenFunc, keep ...net.Listener) ([]net.Listener, error) {
	if listen == nil {
		listen = Listen
	}
	if err := errors.Join(c.Validate(), c.checkPlatform()); err != nil {
		return nil, err
	}
	ctx = withQuiet(ctx)
	sockets := slices.Clone(keep[:min(len(keep), max(c.ReusePort, 1))])
	kept := len(sockets)
	open, err := c.openRest(ctx, sockets, listen)
	if err != nil {
		for _, l := range open[kept:] {
			err = errors.Join(err, l.Close())
		}
		return nil, err
	}
	return open, nil
}

// ListenFunc opens the socket of an address, as [Listen] does.
type ListenFunc = func(ctx context.Context, address string) (net.Listener, error)

// openRest appends the sockets that are missing, and then gives each its options and its layers. At a
// failure it returns what there is, for the caller to close.
func (c Config) openRest(ctx context.Context, sockets []net.Listener, listen ListenFunc) ([]net.Listener, error) {
	if len(sockets) == 0 {
		first, err := listen(ctx, c.Address)
		if err != nil {
			return nil, err
		}
		sockets = append(sockets, first)
	}
	for _, l := range sockets {
		if err := c.setOptions(l); err != nil {
			return sockets, fmt.Errorf("listeners: listen on %s: %w", c.Address, err)
		}
	}
	// The first socket was bound without the option, which fails where somebody else
	// listens: otherwise he would go on to get a part of the connections.
	ctx = withSharedPort(ctx)
	for address := decidedPort(c.Address, sockets[0].Addr()); len(sockets) < c.ReusePort; {
		l, err := listen(ctx, address)
		if err != nil {
			return sockets, err
		}
		sockets = append(sockets, l)
		if err := c.setOptions(l); err != nil {
			return sockets, fmt.Errorf("listeners: listen on %s: %w", address, err)
		}
	}
	for i, l := range sockets {
		layered, err := NewProxyListener(c.tuned(l), c.ProxyProtocol)
		if err != nil {
			return sockets, fmt.Errorf("listeners: listen on %s: %w", c.Address, err)
		}
		sockets[i] = layered
	}
	return sockets, nil
}

// decidedPort returns address with the port that its first socket has got, if
// the kernel was to choose one.
func decidedPort(address string, first net.Addr) string {
	tcp, ok := first.(*net.TCPAddr)
	host, port, err := net.SplitHostPort(address)
	if err != nil || !ok {
		return address
	}
	if n, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || n != 0) {
		return address
	}
	return net.JoinHostPort(host, strconv.Itoa(tcp.Port))
}

// sharedPort is the context key that tells Listen, past whoever calls it, of a
// socket that stands beside others of its address.
type sharedPort struct{}

func withSharedPort(ctx context.Context) context.Context {
	return context.WithValue(ctx, sharedPort{}, true)
}

// controlOf returns what is done to a socket before it is bound; nil for nothing.
func controlOf(ctx context.Context) func(network, address string, raw syscall.RawConn) error {
	if shared, _ := ctx.Value(sharedPort{}).(bool); !shared {
		return nil
	}
	return func(_, _ string, raw syscall.RawConn) error { return setReusePort(raw) }
}
