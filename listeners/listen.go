package listeners

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
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
// Close removes the file. Of two processes that start on one stale file in the same
// moment, the later one gets the path.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	network, target, err := splitAddress(address)
	if err != nil {
		return nil, fmt.Errorf("listeners: address: %w", err)
	}
	var lc net.ListenConfig
	if hasOption(ctx, sharedPort) {
		lc.Control = func(_, _ string, raw syscall.RawConn) error { return setReusePort(raw) }
	}
	if hasOption(ctx, quiet) {
		lc.KeepAlive = -1
	}
	l, err := lc.Listen(ctx, network, target)
	if network == "unix" && errors.Is(err, syscall.EADDRINUSE) {
		if staleErr := removeStale(ctx, target); staleErr != nil {
			return nil, fmt.Errorf("listeners: listen on %s: %w", address, errors.Join(err, staleErr))
		}
		l, err = lc.Listen(ctx, network, target)
	}
	if err != nil {
		return nil, fmt.Errorf("listeners: listen on %s: %w", address, err)
	}
	if tcp, ok := l.(*net.TCPListener); ok && hasOption(ctx, quiet) {
		return &quietListener{tcp}, nil
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
