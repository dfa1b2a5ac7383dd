package listeners

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Sockets are the listening sockets of a process. Some may come from the process before
// it or from the service manager, and all may be passed on. The zero value has inherited
// nothing. All methods may be called concurrently.
type Sockets struct {
	// mu guards what follows.
	mu        sync.Mutex
	inherited []*inheritedSocket // not asked for yet
	open      []*socket          // returned by Listen, in that order
	keep      bool               // another process owns the files of Unix sockets
	closed    bool
	owned     bool // this process owns the files of inherited ones, too
}

// inheritedSocket is a socket that this process was started with.
type inheritedSocket struct {
	net.Listener
	passedSocket
}

// String names the socket by its address and by what it is bound to.
func (s *inheritedSocket) String() string {
	if bound := s.Addr().String(); !strings.HasSuffix(s.Address, bound) {
		return s.Address + " (" + bound + ")"
	}
	return s.Address
}

// Inherited returns the sockets that this process was started with: by the process before
// it in a binary upgrade (see [Sockets.Pass]), or by a service manager that follows
// sd_listen_fds(3). There may be none.
//
// Each must be a stream socket that listens. The error names every one that is not; all
// are closed then. Call it once, before anything else can open a file under one of the
// descriptors' numbers.
func Inherited(getenv func(string) string) (*Sockets, error) {
	passed, err := passedSockets(getenv, os.Getpid())
	if err != nil {
		return nil, fmt.Errorf("listeners: inherited sockets: %w", err)
	}
	s := new(Sockets)
	var errs []error
	for i, p := range passed {
		l, err := adopt(firstPassed+i, p.Address)
		if err != nil {
			errs = append(errs, fmt.Errorf("listeners: inherited socket %s: %w", p.Address, err))
			continue
		}
		s.inherited = append(s.inherited, &inheritedSocket{l, p})
	}
	if err := errors.Join(errs...); err != nil {
		for _, in := range s.inherited {
			_ = in.Close()
		}
		return nil, err
	}
	return s, nil
}

// Listen returns the inherited socket for address, or opens one as the function [Listen]
// does. An inherited socket is found by the address that the process before had for it,
// by the address that it is bound to, or by "fd:" and its name. Where there are several of
// a name, Listen returns the first; [Config.Open] opens all. ctx bounds name resolution
// alone.
//
// The listener supports SetDeadline and SyscallConn. Closing it removes the file of a
// Unix socket that this process has made, but not after [Sockets.KeepFiles]. The file of
// an inherited socket is removed only after [Sockets.OwnFiles]. A file that another socket
// has put there is never removed.
func (s *Sockets) Listen(ctx context.Context, address string) (net.Listener, error) {
	if in := s.take(ctx, address); in != nil {
		return s.adopt(in, address)
	}
	if strings.HasPrefix(address, inheritedPrefix) {
		return nil, fmt.Errorf("listeners: listen on %s: the service manager has passed no socket of this name; it has passed %s", address, s.activated())
	}
	l, err := Listen(ctx, address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, s.explain(err, address)
	}
	if err != nil {
		return nil, err
	}
	k := &socket{owner: s, address: address}
	if u, ok := l.(*fileListener); ok {
		l, k.file = u.UnixListener, u.file
	}
	return s.add(k, l)
}

// further returns the inherited sockets that have the socket's name, or share its address,
// too. At a failure it returns those that it has, for the caller to close.
func (k *socket) further() (more []net.Listener, err error) {
	isFurther := func(in *inheritedSocket) bool { return in.Address == k.address }
	if !strings.HasPrefix(k.address, inheritedPrefix) {
		bound := boundAddress(k.Addr())
		isFurther = func(in *inheritedSocket) bool { return boundAddress(in.Addr()) == bound }
	}
	for in := k.owner.takeFirst(isFurther); in != nil; in = k.owner.takeFirst(isFurther) {
		next, err := k.owner.adopt(in, k.address)
		if err != nil {
			return more, err
		}
		more = append(more, next)
	}
	return more, nil
}

// explain adds to an error about an address in use that the process itself uses it.
func (s *Sockets) explain(err error, address string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.open {
		if bound := boundAddress(k.Addr()); overlap(bound, address) {
			return fmt.Errorf("%w; this process itself listens on %s: %s", err, bound, ownAddressCure)
		}
	}
	for _, in := range s.inherited {
		if overlap(boundAddress(in.Addr()), address) {
			return fmt.Errorf("%w; this process was started with the socket %s: %s", err, in, ownAddressCure)
		}
	}
	return err
}

// ownAddressCure is what to do about an address that the process itself keeps.
const ownAddressCure = "give that address up first, in a reload of its own"

// boundAddress returns the address of a socket in the form of [Config].Address.
func boundAddress(a net.Addr) string {
	if a.Network() == "unix" {
		return unixPrefix + a.String()
	}
	return a.String()
}

// adopt returns an inherited socket for an address. Where the process before has not said
// which file is the socket's, as the service manager never does, it is the one that is
// there now.
func (s *Sockets) adopt(in *inheritedSocket, address string) (net.Listener, error) {
	k := &socket{owner: s, address: address, inherited: true, shared: true, manager: in.Manager}
	k.note(in.Altered)
	if path := in.Addr().String(); in.Unlink && in.Addr().Network() == "unix" {
		k.file = socketFile{path: path, id: in.File}
		if in.File == (fileID{}) {
			k.file = fileOf(path)
		}
	}
	return s.add(k, in.Listener)
}

// activated lists the sockets of the service manager that are left, for an error.
func (s *Sockets) activated() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, in := range s.inherited {
		if in.Manager != "" {
			names = append(names, in.String())
		}
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, ", ")
}

// add has k take l over, and returns what Listen promises.
func (s *Sockets) add(k *socket, l net.Listener) (net.Listener, error) {
	inner, ok := l.(innerSocket)
	if !ok {
		return nil, errors.Join(fmt.Errorf("listeners: listen on %s: a %T cannot be passed on", k.address, l), l.Close())
	}
	k.innerSocket = inner
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // Close decides.
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = append(s.open, k)
	return k, nil
}

// CloseUnused ends the time of adoption: it closes the inherited sockets that Listen has
// not returned. dropped names those of the process before, whose addresses are not
// configured any more. A socket that the service manager has passed to this process is an
// error, because its unit and the configuration do not agree; the error names each. One that
// it has passed to the process before stays open: the unit has not changed.
func (s *Sockets) CloseUnused() (dropped []string, err error) {
	s.mu.Lock()
	unused := s.inherited
	stays := func(in *inheritedSocket) bool { return in.Manager != "" && !in.activated }
	s.inherited = slices.DeleteFunc(slices.Clone(unused), func(in *inheritedSocket) bool { return !stays(in) })
	s.mu.Unlock()
	var refused []string
	for _, in := range unused {
		if in.activated {
			refused = append(refused, in.String())
		} else {
			dropped = append(dropped, in.String())
		}
		if !stays(in) {
			_ = in.Close()
		}
	}
	if refused != nil {
		err = fmt.Errorf("listeners: the service manager has passed sockets that no address asks for: %s", strings.Join(refused, ", "))
	}
	return dropped, err
}

// OwnFiles has this process remove the files of inherited Unix sockets, too, when it
// closes them. Call it when the process before has been told that this one serves. Until
// then that one may have to go on, and its clients find it by these files.
func (s *Sockets) OwnFiles() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owned = true
}

// KeepFiles leaves the files of all Unix sockets in place when they are closed, because
// another process serves them now.
func (s *Sockets) KeepFiles() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep = true
}

// Close closes every listener that Listen has returned, and what is left of those that were
// inherited, at once. Where another process has the socket too, nothing is lost: it accepts
// what the kernel has queued.
func (s *Sockets) Close() error {
	s.mu.Lock()
	s.closed = true
	open, inherited := slices.Clone(s.open), s.inherited
	s.inherited = nil
	s.mu.Unlock()
	var err error
	for _, in := range inherited {
		err = errors.Join(err, in.Close())
	}
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

var (
	_ innerSocket = (*net.TCPListener)(nil)
	_ innerSocket = (*net.UnixListener)(nil)
)

// socket is a listener of Sockets.
type socket struct {
	innerSocket
	memory

	owner     *Sockets
	address   string     // as it was asked for
	file      socketFile // that Close removes
	inherited bool       // the file belongs to the process before, until OwnFiles
	shared    bool       // another process has the socket, or had it; guarded by owner.mu
	manager   string     // the name by which the service manager has passed it, if it has
	retired   bool       // no client finds it any more; guarded by owner.mu
	given     bool       // Listen can return it again; guarded by owner.mu
}

// Close closes the listener. It removes the file of a Unix socket first: once the socket
// is closed, the file may belong to another process that has begun to listen there.
//
// The service manager keeps a socket of its own open, whoever closes it. So Listen can return
// it again, to an earlier configuration for instance, until [Sockets.Close].
func (k *socket) Close() error {
	s := k.owner
	s.mu.Lock()
	at := slices.Index(s.open, k)
	mine := at >= 0 && k.ownsFile()
	if at >= 0 {
		s.open = slices.Delete(s.open, at, at+1)
		s.giveBack(k)
	}
	s.mu.Unlock()
	var err error
	if mine {
		err = k.file.remove()
	}
	return errors.Join(err, k.innerSocket.Close())
}

// ownsFile reports whether this process removes the socket's file. The caller holds mu.
func (k *socket) ownsFile() bool { return !k.owner.keep && (k.owner.owned || !k.inherited) }

// giveBack keeps the service manager's socket for another Listen, once. Where there is no
// descriptor left it does not. The caller holds mu.
func (s *Sockets) giveBack(k *socket) {
	if k.manager == "" || k.given || s.closed {
		return
	}
	k.given = true
	f, err := duplicate(k, k.manager)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	if l, err := net.FileListener(f); err == nil {
		s.inherited = append(s.inherited, &inheritedSocket{l, k.passedOn(k.manager)})
	}
}

// passedOn describes the socket for who has it next.
func (k *socket) passedOn(address string) passedSocket {
	return passedSocket{Address: address, Unlink: k.file.path != "", File: k.file.id, Altered: k.recall(), Manager: k.manager}
}

// retire has the kernel give the socket no new connections: it removes the file of a Unix
// socket, if that is this process's. To a TCP socket that another process may go on to use
// it does nothing, but that Listen can return the service manager's again.
func (k *socket) retire() {
	k.owner.mu.Lock()
	defer k.owner.mu.Unlock()
	k.owner.giveBack(k)
	if k.file.path != "" && k.ownsFile() {
		k.retired = true
		_ = k.file.remove() // Close tries again, and reports it.
	}
	if _, isTCP := k.Addr().(*net.TCPAddr); k.shared || !isTCP {
		return
	}
	if raw, err := k.SyscallConn(); err == nil {
		k.retired = unreach(raw) == nil // Without it a client may be reset.
	}
}

// take removes the inherited socket for address, and returns it. It returns nil where
// there is none.
func (s *Sockets) take(ctx context.Context, address string) *inheritedSocket {
	if in := s.takeFirst(func(in *inheritedSocket) bool { return in.Address == address }); in != nil {
		return in
	}
	network, target, err := splitAddress(address)
	switch {
	case err != nil || strings.HasPrefix(address, inheritedPrefix):
		return nil
	case network == "unix":
		return s.takeFirst(func(in *inheritedSocket) bool {
			return in.Addr().Network() == network && samePath(in.Addr().String(), target)
		})
	case !s.left():
		return nil // Names need not be resolved.
	}
	all := resolve(ctx, target)
	for _, match := range []func(*inheritedSocket, netip.AddrPort) bool{
		func(in *inheritedSocket, meant netip.AddrPort) bool {
			return boundTo(in.Addr(), meant) && (in.Manager != "" || isIPv6Only(in.Address) == isIPv6Only(address))
		},
		// A unit that says ListenStream=80 has both families, and goes with an address that
		// asks for one. Among sockets of the process before, none goes with another family.
		func(in *inheritedSocket, meant netip.AddrPort) bool {
			return in.Manager != "" && boundToAll(in.Addr(), meant)
		},
	} {
		for _, meant := range all {
			if in := s.takeFirst(func(in *inheritedSocket) bool { return match(in, meant) }); in != nil {
				return in
			}
		}
	}
	return nil
}

// left reports whether there are inherited sockets that Listen has not returned.
func (s *Sockets) left() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.inherited) > 0
}

// takeFirst removes the first socket that is meant, and returns it.
func (s *Sockets) takeFirst(meant func(*inheritedSocket) bool) *inheritedSocket {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.IndexFunc(s.inherited, meant)
	if at < 0 {
		return nil
	}
	in := s.inherited[at]
	s.inherited = slices.Delete(s.inherited, at, at+1)
	return in
}

// resolve returns the addresses that "host:port" stands for. It returns none for an
// address that cannot be resolved; opening it says why.
func resolve(ctx context.Context, address string) []netip.AddrPort {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		named, lerr := net.DefaultResolver.LookupPort(ctx, "tcp", service)
		if lerr != nil {
			return nil
		}
		port = uint64(named)
	}
	if host == "" {
		host = "::"
	}
	// The resolver would add 0.0.0.0 to "::".
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(ip.Unmap(), uint16(port))}
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil
	}
	var all []netip.AddrPort
	for _, ip := range ips {
		all = append(all, netip.AddrPortFrom(ip.Unmap(), uint16(port)))
	}
	return all
}

// boundTo reports whether a socket's address is the one that is meant. Port 0 matches no
// socket.
func boundTo(addr net.Addr, meant netip.AddrPort) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && meant.Port() != 0 && tcp.AddrPort().Port() == meant.Port() && tcp.AddrPort().Addr().Unmap() == meant.Addr()
}

// boundToAll is boundTo for the unspecified addresses, among which it does not tell
// families apart.
func boundToAll(addr net.Addr, meant netip.AddrPort) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsUnspecified() && meant.Addr().IsUnspecified() && meant.Port() != 0 && tcp.Port == int(meant.Port())
}

// samePath compares the paths of two Unix sockets, one of which may be relative.
func samePath(a, b string) bool {
	fullA, errA := filepath.Abs(a)
	fullB, errB := filepath.Abs(b)
	return a == b || a != "" && b != "" && errA == nil && errB == nil && fullA == fullB
}
