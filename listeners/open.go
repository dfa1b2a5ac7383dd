package listeners

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
)

// maxReusePort bounds the sockets of one address. There is no use for more than
// one a processor; a greater number is somebody's mistake.
const maxReusePort = 1024

// Open opens the sockets of the address, of which there are as many as ReusePort
// says and one at least, and sets their options. It opens all or none: at a failure, those that
// are open are closed again. Every error names the address.
//
// Each socket is asked for by a call of listen, which is [Listen], [Sockets.Listen] or the
// like; nil means Listen. Inherited sockets are so taken before new ones are opened.
// What listen returns is Open's from then on: a failure closes it. With
// ReusePort above 1 listen must pass on the context that it is given. Where the port
// is 0, the first socket decides it for all.
//
// The connections have the addresses that a PROXY header says, as [NewProxyListener] describes, and the
// TCP options; without either, they are those of the socket's own listener. Each of the listeners is good for [New].
func (c Config) Open(ctx context.Context, listen func(ctx context.Context, address string) (net.Listener, error)) ([]net.Listener, error) {
	if listen == nil {
		listen = Listen
	}
	if err := errors.Join(c.Validate(), c.checkPlatform()); err != nil {
		return nil, err
	}
	var open []net.Listener
	address := c.Address
	for i := range max(c.ReusePort, 1) {
		l, err := c.openOne(ctx, address, listen)
		if err != nil {
			for _, l := range open {
				err = errors.Join(err, l.Close())
			}
			return nil, err
		}
		open = append(open, l)
		if i == 0 {
			// The first socket was bound without the option, which fails where somebody
			// else listens: otherwise he would go on to get a part of the connections.
			ctx, address = withSharedPort(ctx), decidedPort(address, l.Addr())
		}
	}
	return open, nil
}

// openOne opens one socket with its options.
func (c Config) openOne(ctx context.Context, address string, listen func(context.Context, string) (net.Listener, error)) (net.Listener, error) {
	l, err := listen(ctx, address)
	if err != nil {
		return nil, err
	}
	if err := c.setOptions(l); err != nil {
		return nil, errors.Join(fmt.Errorf("listeners: listen on %s: %w", address, err), l.Close())
	}
	proxied, err := NewProxyListener(c.tuned(l), c.ProxyProtocol)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listeners: listen on %s: %w", address, err), l.Close())
	}
	return proxied, nil
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
