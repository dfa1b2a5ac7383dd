package listeners

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Sockets are the listening sockets of a process that may have got some of them
// from the process before it, or from a service manager, and may pass them on. The zero
// value has inherited nothing. All methods may be called concurrently.
type Sockets struct {
	// mu guards what follows.
	mu        sync.Mutex
	inherited []*inheritedSocket // that nobody has asked for yet
	open      []*socket          // that Listen has returned, in that order
	keep      bool               // another process owns the files of Unix sockets
	owned     bool               // the files of inherited ones are this process's; see OwnFiles
}

// inheritedSocket is a socket that this process was started with.
type inheritedSocket struct {
	net.Listener

	// address is the one that the process before was configured with, or "fd:NAME".
	address string
	// activated is true for a socket of the service manager, which keeps it open itself.
	activated bool
	// unlink says that this process is to remove the file of a Unix socket, once it owns it.
	unlink bool
}

// String names the socket, by its address and by what it is bound to.
func (s *inheritedSocket) String() string {
	if bound := s.Addr().String(); !strings.HasSuffix(s.address, bound) {
		return s.address + " (" + bound + ")"
	}
	return s.address
}

// Inherited returns the sockets that this process was started with: by the
// process before it in a binary upgrade (see [Sockets.Pass]), or by a service
// manager that follows sd_listen_fds(3). Without any it has none and is as good.
//
// Each must be a stream socket that listens; the error names every one that is
// not, and none is left open then. Inherited is called once, and before anything
// else could have opened a file under a descriptor's number.
func Inherited(getenv func(string) string) (*Sockets, error) {
	passed, err := passedSockets(getenv, os.Getpid())
	if err != nil {
		return nil, fmt.Errorf("listeners: inherited sockets: %w", err)
	}
	s := new(Sockets)
	var faults []error
	for i, p := range passed {
		l, err := adopt(firstPassed+i, p.Address)
		if err != nil {
			faults = append(faults, fmt.Errorf("listeners: inherited socket %s: %w", p.Address, err))
			continue
		}
		s.inherited = append(s.inherited, &inheritedSocket{l, p.Address, p.activated, p.Unlink})
	}
	if err := errors.Join(faults...); err != nil {
		for _, in := range s.inherited {
			_ = in.Close()
		}
		return nil, err
	}
	return s, nil
}

// Listen returns the inherited socket that address means, and opens one as the
// function [Listen] does where there is none. An inherited socket is meant by
// the address that the process before had for it, by the address that it is bound to, or by
// [inheritedPrefix] and its name. ctx bounds name resolution alone.
//
// The listener supports SetDeadline and SyscallConn. Closing it removes the file of
// a Unix socket that this process has made, unless the socket was handed over. What
// the process before has made is removed after [Sockets.OwnFiles] alone.
func (s *Sockets) Listen(ctx context.Context, address string) (net.Listener, error) {
	if in := s.take(ctx, address); in != nil {
		return s.add(in.Listener, address, in.unlink, true)
	}
	if strings.HasPrefix(address, inheritedPrefix) {
		return nil, fmt.Errorf("listeners: listen on %s: the service manager has passed no socket of this name; it has passed %s", address, s.names())
	}
	l, err := Listen(ctx, address)
	if err != nil {
		return nil, err
	}
	return s.add(l, address, true, false)
}

// names lists the sockets of the service manager that are left, for an error.
func (s *Sockets) names() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, in := range s.inherited {
		if in.activated {
			names = append(names, in.String())
		}
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, ", ")
}

// add takes l over and returns what Listen promises.
func (s *Sockets) add(l net.Listener, address string, unlink, inherited bool) (net.Listener, error) {
	inner, ok := l.(innerSocket)
	if !ok {
		return nil, errors.Join(fmt.Errorf("listeners: listen on %s: a %T cannot be passed on", address, l), l.Close())
	}
	k := &socket{innerSocket: inner, owner: s, address: address, inherited: inherited}
	if u, ok := l.(*net.UnixListener); ok {
		// From here on Close decides, because the answer may change while it runs.
		u.SetUnlinkOnClose(false)
		if path := u.Addr().String(); unlink && path != "" && !strings.HasPrefix(path, "@") {
			k.path = path
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = append(s.open, k)
	return k, nil
}

// CloseUnused ends the time of adoption: inherited sockets that nobody has asked
// for are closed. dropped names those of the process before, whose addresses are
// not configured any more. One that the service manager has passed is an error,
// because its unit and the configuration do not agree; the error names each.
func (s *Sockets) CloseUnused() (dropped []string, err error) {
	s.mu.Lock()
	unused := s.inherited
	s.inherited = nil
	s.mu.Unlock()
	var faults []string
	for _, in := range unused {
		if in.activated {
			faults = append(faults, in.String())
		} else {
			dropped = append(dropped, in.String())
		}
		_ = in.Close()
	}
	if faults != nil {
		err = fmt.Errorf("listeners: the service manager has passed sockets that no address asks for: %s", strings.Join(faults, ", "))
	}
	return dropped, err
}

// OwnFiles makes the files of the inherited Unix sockets this process's own, which
// their listeners remove from then on. It is called when the process before has been told
// that this one serves. Until then that one may go on serving, if this one fails or is
// told to end, and its clients find it by these files.
func (s *Sockets) OwnFiles() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owned = true
}

// KeepFiles leaves the files of Unix sockets in place when their listeners are
// closed, because another process serves them now.
func (s *Sockets) KeepFiles() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep = true
}

// Close closes every listener that Listen has returned, at once. Where another
// process has the socket too, nothing is lost by that: what the kernel has
// queued is the other's.
func (s *Sockets) Close() error {
	s.mu.Lock()
	open := slices.Clone(s.open)
	s.mu.Unlock()
	var err error
	for _, k := range open {
		err = errors.Join(err, k.Close())
	}
	return err
}

// innerSocket is what *net.TCPListener and *net.UnixListener have in common.
type innerSocket interface {
	net.Listener
	deadliner
	syscall.Conn
}

// socket is a listener that its Sockets keep an eye on.
type socket struct {
	innerSocket

	owner   *Sockets
	address string // as it was asked for
	path    string // of the file that Close removes; "" for none

	// inherited says that the file is the process before's until this one owns the files.
	inherited bool
}

var (
	_ innerSocket = (*net.TCPListener)(nil)
	_ innerSocket = (*net.UnixListener)(nil)
)

// Close closes the listener. The file of a Unix socket goes first: once the
// socket is closed, it may be another process's that has begun to listen there.
func (k *socket) Close() error {
	s := k.owner
	s.mu.Lock()
	at := slices.Index(s.open, k)
	mine := at >= 0 && !s.keep && (s.owned || !k.inherited)
	if at >= 0 {
		s.open = slices.Delete(s.open, at, at+1)
	}
	s.mu.Unlock()
	var err error
	if mine && k.path != "" {
		if err = os.Remove(k.path); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	return errors.Join(err, k.innerSocket.Close())
}
