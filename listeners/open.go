package listeners

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"
)

// staleProbeTimeout bounds the connect that finds out whether a process listens on an
// existing Unix socket. On the same host it succeeds or fails at once, unless the machine
// is overloaded.
const staleProbeTimeout = time.Second

// Listen opens the socket that address names: "host:port" for TCP or "unix:PATH" for a
// Unix-domain socket. ctx bounds name resolution alone; it does not close the listener.
// Every error names the address. With the context that [Config.Open] passes, the socket
// has the options of that Config.
//
// Listen removes the file of a Unix socket that a dead process left behind. If a process
// listens there, the error wraps syscall.EADDRINUSE; a file that is no socket stays.
// Close removes the file, but not one that another socket has put there since. Of two
// processes that start on one stale file in the same moment, the later one gets the path.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	network, target, err := splitAddress(address)
	if err != nil {
		return nil, fmt.Errorf("listeners: address: %w", err)
	}
	l, err := bind(ctx, network, target)
	if errors.Is(err, syscall.EADDRINUSE) && network == "unix" {
		if staleErr := removeStale(ctx, target); staleErr != nil {
			return nil, fmt.Errorf("listeners: listen on %s: %w", address, errors.Join(err, staleErr))
		}
		l, err = bind(ctx, network, target)
	} else if errors.Is(err, syscall.EADDRINUSE) {
		l, err = bindBeside(ctx, network, target, err)
	}
	if err != nil {
		return nil, fmt.Errorf("listeners: listen on %s: %w", address, err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
		file := fileOf(target)
		file.private = hasOption(ctx, private)
		return &fileListener{UnixListener: u, file: file}, nil
	}
	if tcp, ok := l.(*net.TCPListener); ok && hasOption(ctx, quiet) {
		return &quietListener{TCPListener: tcp}, nil
	}
	return l, nil
}

// bind opens a socket with the options that ctx carries.
func bind(ctx context.Context, network, target string) (net.Listener, error) {
	var lc net.ListenConfig
	switch {
	case hasOption(ctx, sharedPort):
		lc.Control = func(_, _ string, raw syscall.RawConn) error { return setReusePort(raw, true) }
	case hasOption(ctx, private) && network == "unix":
		lc.Control = func(_, _ string, raw syscall.RawConn) error { return makePrivate(raw) }
	}
	if hasOption(ctx, quiet) {
		lc.KeepAlive = -1
	}
	return lc.Listen(ctx, network, target)
}

// replacedKey is the context key of [Replacing].
type replacedKey struct{}

// Replacing returns a context with which [Listen] may take an address that overlaps those
// of old, such as 0.0.0.0:80 beside 127.0.0.1:80. The caller closes old when the new
// sockets serve; until then the kernel gives a connection to one of both. It takes Linux,
// and sockets that the same user has opened. Elsewhere the address is in use.
func Replacing(ctx context.Context, old ...net.Listener) context.Context {
	return context.WithValue(ctx, replacedKey{}, old)
}

// bindBeside binds an address that sockets which are being replaced have in use. Neither
// they nor the new one may share their port with another process's after it.
func bindBeside(ctx context.Context, network, target string, inUse error) (net.Listener, error) {
	old, _ := ctx.Value(replacedKey{}).([]net.Listener)
	var lent []syscall.RawConn
	defer func() {
		for _, raw := range lent {
			_ = setReusePort(raw, false) // It fails for a socket that is closed.
		}
	}()
	found := false
	for _, l := range old {
		if !overlap(boundAddress(l.Addr()), target) {
			continue
		}
		found = true
		// Setting it fails for a socket that is closed by now, which has nothing in use.
		if raw, err := (layer{l}).SyscallConn(); err == nil && !reusesPort(raw) && setReusePort(raw, true) == nil {
			lent = append(lent, raw)
		}
	}
	if !found {
		return nil, inUse
	}
	l, err := bind(withOption(ctx, sharedPort), network, target)
	if err != nil {
		return nil, inUse
	}
	if raw, err := (layer{l}).SyscallConn(); err == nil && !hasOption(ctx, sharedPort) {
		lent = append(lent, raw)
	}
	return l, nil
}

// removeStale removes the socket file at path if, and only if, the kernel says that no
// process listens on it. A nil error means that binding may be tried again.
func removeStale(ctx context.Context, path string) error {
	before, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if before.Mode().Type() != fs.ModeSocket {
		return errors.New("the path is taken by a file that is not a socket")
	}
	dialer := net.Dialer{Timeout: staleProbeTimeout}
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err == nil {
		return errors.Join(errors.New("another process answers on it"), conn.Close())
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// Only a refusal proves that no process listens. A full queue, a missing permission or a
	// socket of another type does not.
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	// If another process has replaced or removed it meanwhile, binding again tells.
	if after, err := os.Lstat(path); err == nil && os.SameFile(before, after) {
		err = os.Remove(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// decidedPort returns address with the port of its first socket, if the kernel was to
// choose one.
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

// option is a context key by which Open tells Listen, through the listen function in
// between, how to open a socket.
type option int

const (
	quiet      option = iota // package net leaves the connections' keepalive alone; Open sets it
	sharedPort               // the socket stands beside others of its address
	private                  // only the process's user may connect to the Unix socket, until Open allows more
)

func withOption(ctx context.Context, o option) context.Context {
	if o == quiet && !inheritsKeepalive || o == private && !bindsPrivate {
		return ctx
	}
	return context.WithValue(ctx, o, true)
}

func hasOption(ctx context.Context, o option) bool { return ctx.Value(o) != nil }

// layer is what stands between a [Listener] and the socket's own listener. It passes on
// what the two need of each other.
type layer struct{ net.Listener }

var (
	_ deadliner    = layer{}
	_ syscall.Conn = layer{}
)

// SetDeadline passes on how a blocked Accept is woken.
func (l layer) SetDeadline(t time.Time) error {
	if d, ok := l.Listener.(deadliner); ok {
		return d.SetDeadline(t)
	}
	return fmt.Errorf("listeners: deadline of a %T: %w", l.Listener, errors.ErrUnsupported)
}

// SyscallConn gives access to the socket.
func (l layer) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := l.Listener.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, fmt.Errorf("listeners: socket of a %T: %w", l.Listener, errors.ErrUnsupported)
}

// below returns what the layer stands on.
func (l layer) below() net.Listener { return l.Listener }

// Unwrap returns the socket's listener that [Config.Open] got from its listen function,
// without the layers above it; l itself where there are none. Give it to [Config.Reopen] to
// keep the socket under other options.
func Unwrap(l net.Listener) net.Listener {
	for {
		above, ok := l.(interface{ below() net.Listener })
		if !ok {
			return l
		}
		l = above.below()
	}
}
