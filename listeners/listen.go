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

// staleProbeTimeout bounds the question whether anybody answers on a Unix
// socket that is already there. A connect on the same host succeeds or fails
// at once; a second is only for a machine that is out of breath.
const staleProbeTimeout = time.Second

// Listen opens the socket that address names: "host:port" for TCP or
// "unix:PATH" for a Unix-domain socket. ctx bounds name resolution alone; it
// does not close the listener later. Every error names the address.
//
// A Unix socket's file that a dead process left behind is removed first; one
// that somebody answers on is an error that wraps syscall.EADDRINUSE, and a
// file that is no socket is never touched. The file is removed when the
// listener is closed. Two processes that start on one stale file at the very
// same moment are not told apart: the later one wins the path.
//
// Called by [Config.Open], with the context that it was given there, it lets the sockets
// of one address stand beside each other, and leaves the keepalive of their connections to Open.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	network, target, err := splitAddress(address)
	if err != nil {
		return nil, fmt.Errorf("listeners: address: %w", err)
	}
	lc := net.ListenConfig{Control: controlOf(ctx)}
	if isQuiet(ctx) {
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
	if tcp, ok := l.(*net.TCPListener); ok && isQuiet(ctx) {
		return &quietListener{tcp}, nil
	}
	return l, nil
}

// removeStale removes the socket file at path if, and only if, the kernel says
// that no process listens on it. A nil error means that binding may be tried
// again.
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
	// Only a refusal proves that nobody listens. A full queue, a missing
	// permission or a socket of another type does not.
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	// Where somebody else has replaced or removed it meanwhile, binding again
	// tells.
	if after, err := os.Lstat(path); err == nil && os.SameFile(before, after) {
		err = os.Remove(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
