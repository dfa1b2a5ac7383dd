package listeners

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// firstPassed is the number of the first descriptor that is passed, after the standard
// ones. It is SD_LISTEN_FDS_START of sd_listen_fds(3), and where os/exec puts the first
// of its ExtraFiles.
const firstPassed = 3

// maxPassed bounds the number of sockets. A greater one is a mistake in the environment. It
// is above what a process can pass: on Linux a variable has at most 128 KiB, which describe
// some 4,000 sockets.
const maxPassed = 1 << 16

// envInherit tells a process what sockets it has from the one before: a JSON list, whose
// first element describes descriptor 3, the second 4, and so on.
const envInherit = "MUXSERVE_INHERIT"

// The variables by which a service manager passes sockets (sd_listen_fds(3)).
// LISTEN_PIDFDID says the same as LISTEN_PID in another way.
const (
	envListenPID   = "LISTEN_PID"
	envListenFDs   = "LISTEN_FDS"
	envListenNames = "LISTEN_FDNAMES"
	envListenPidfd = "LISTEN_PIDFDID"
)

// passedSocket is one element of the list in envInherit. Older binaries ignore new
// fields, so that an upgrade may go back to them.
type passedSocket struct {
	// Address is the one that the socket was asked for by, or "fd:NAME".
	Address string `json:"address"`
	// Unlink says that this process is to remove the file of the Unix socket in the end.
	Unlink bool `json:"unlink,omitempty"`
	// File is the file of the Unix socket, zero from an older process.
	File fileID `json:"file,omitzero"`
	// Altered is what keys have changed on the socket, the zero value from an older process.
	Altered altered `json:"altered,omitzero"`

	// Manager is the "fd:NAME" by which the service manager has passed the socket to this
	// process or one before it. It keeps such a socket open itself.
	Manager string `json:"manager,omitempty"`

	activated bool // passed to this process by the service manager
}

// passedSockets returns what the environment says about the sockets of the process pid.
func passedSockets(getenv func(string) string, pid int) ([]passedSocket, error) {
	text := getenv(envInherit)
	if text == "" {
		return activatedSockets(getenv, pid)
	}
	var passed []passedSocket
	if err := json.Unmarshal([]byte(text), &passed); err != nil {
		return nil, fmt.Errorf("%s: %w", envInherit, err)
	}
	if len(passed) > maxPassed {
		return nil, fmt.Errorf("%s: %d sockets, more than %d", envInherit, len(passed), maxPassed)
	}
	for i, p := range passed {
		if p.Address == "" {
			return nil, fmt.Errorf("%s: element %d has no address", envInherit, i)
		}
		if p.Manager == "" && strings.HasPrefix(p.Address, inheritedPrefix) { // From an older process.
			passed[i].Manager = p.Address
		}
	}
	return passed, nil
}

// activatedSockets returns the sockets that a service manager has passed to the process
// pid. It ignores variables that are meant for another process.
func activatedSockets(getenv func(string) string, pid int) ([]passedSocket, error) {
	owner, count := getenv(envListenPID), getenv(envListenFDs)
	if owner == "" || count == "" {
		return nil, nil
	}
	number, err := strconv.Atoi(owner)
	if err != nil || number <= 0 {
		return nil, fmt.Errorf("%s is %q, not a process id", envListenPID, owner)
	}
	if number != pid {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > maxPassed {
		return nil, fmt.Errorf("%s is %q, not a number from 0 to %d", envListenFDs, count, maxPassed)
	}
	names := make([]string, n)
	if text := getenv(envListenNames); text != "" {
		if names = strings.Split(text, ":"); len(names) != n {
			return nil, fmt.Errorf("%s has %d names for %d sockets", envListenNames, len(names), n)
		}
	}
	passed := make([]passedSocket, n)
	for i, name := range names {
		address := inheritedPrefix + cmp.Or(name, "unknown")
		passed[i] = passedSocket{Address: address, Manager: address, activated: true}
	}
	return passed, nil
}

// Pass returns duplicates of the sockets that Listen has returned, and of those of the service
// manager that it may return again, and environ with the variable by which [Inherited] finds
// them in another process. That process must get the files as its descriptors 3 and up, in
// this order, as ExtraFiles of os/exec does. Pass removes the service manager's variables
// from environ. The caller closes the files.
//
// What no client finds any more is not passed on: a Unix socket whose file is gone, and one
// of [Listener.Release]. The other process opens the address anew. Close or release none of
// the others before [Sockets.KeepFiles] is called or the other process has ended: that
// removes the file by which clients find a Unix socket.
//
// It fails with [errors.ErrUnsupported] where a socket cannot be passed on, and with
// [net.ErrClosed] where one is closed.
func (s *Sockets) Pass(environ []string) (files []*os.File, env []string, err error) {
	s.mu.Lock()
	isLost := func(k *socket) bool { return k.retired || k.file.isGone() }
	open, left := slices.DeleteFunc(slices.Clone(s.open), isLost), slices.Clone(s.inherited)
	for _, k := range open {
		k.shared = true
	}
	s.mu.Unlock()
	defer func() {
		if err != nil {
			for _, f := range files {
				_ = f.Close()
			}
			files = nil
		}
	}()
	passed := make([]passedSocket, 0, len(open)+len(left))
	pass := func(l syscall.Conn, p passedSocket) error {
		f, err := duplicate(l, p.Address)
		if err != nil {
			return fmt.Errorf("listeners: pass %s on: %w", p.Address, err)
		}
		files, passed = append(files, f), append(passed, p)
		return nil
	}
	for _, k := range open {
		if err := pass(k, k.passedOn(k.address)); err != nil {
			return files, nil, err
		}
	}
	for _, in := range left {
		if err := pass(layer{in.Listener}, in.passedSocket); err != nil {
			return files, nil, err
		}
	}
	text, err := json.Marshal(passed)
	if err != nil {
		return files, nil, errors.Join(errors.New("listeners: pass sockets on"), err)
	}
	env = slices.DeleteFunc(slices.Clone(environ), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains([]string{envInherit, envListenPID, envListenFDs, envListenNames, envListenPidfd}, name)
	})
	return files, append(env, envInherit+"="+string(text)), nil
}
