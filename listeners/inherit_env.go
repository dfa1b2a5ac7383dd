package listeners

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// firstPassed is the number of the first descriptor that is passed, after the
// standard ones. It is SD_LISTEN_FDS_START of sd_listen_fds(3), and where
// os/exec puts the first of its ExtraFiles.
const firstPassed = 3

// maxPassed bounds the number of sockets that are believed. No server listens on
// as many addresses, and a greater number is somebody's mistake.
const maxPassed = 1000

// envInherit tells a process what sockets it has from the one before: a JSON
// list, whose first element is about descriptor 3, the second about 4, and so on.
const envInherit = "MUXSERVE_INHERIT"

// passedSocket is one element of that list. An element may get more fields, which
// an older binary ignores: an upgrade may well go back to it.
type passedSocket struct {
	// Address is the one that the socket was asked for by.
	Address string `json:"address"`
	// Unlink says that the file of this Unix socket is to be removed in the end.
	Unlink bool `json:"unlink,omitempty"`

	activated bool
}

// passedSockets returns what the environment says about the sockets of the
// process whose number is pid.
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
	}
	return passed, nil
}

// Pass returns duplicates of the sockets that Listen has returned, and environ
// with the variable that tells [Inherited] of them in another process, provided
// that this gets the files as its descriptors 3 and up, in this order:
// as ExtraFiles of os/exec. What the service manager said about this process is
// taken out of environ. The caller closes the files.
//
// It fails with [errors.ErrUnsupported] where a socket cannot be passed on, and
// with [net.ErrClosed] where one is closed.
func (s *Sockets) Pass(environ []string) (files []*os.File, env []string, err error) {
	s.mu.Lock()
	open := slices.Clone(s.open)
	s.mu.Unlock()
	defer func() {
		if err != nil {
			for _, f := range files {
				_ = f.Close()
			}
			files = nil
		}
	}()
	passed := make([]passedSocket, 0, len(open))
	for _, k := range open {
		f, err := duplicate(k, k.address)
		if err != nil {
			return files, nil, fmt.Errorf("listeners: pass %s on: %w", k.address, err)
		}
		files = append(files, f)
		passed = append(passed, passedSocket{Address: k.address, Unlink: k.path != ""})
	}
	text, err := json.Marshal(passed)
	if err != nil {
		return files, nil, errors.Join(errors.New("listeners: pass sockets on"), err)
	}
	env = slices.DeleteFunc(slices.Clone(environ), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return name == envInherit || slices.Contains(activationVariables, name)
	})
	return files, append(env, envInherit+"="+string(text)), nil
}

// The variables by which a service manager passes sockets, as sd_listen_fds(3)
// describes them. LISTEN_PIDFDID says the same as LISTEN_PID in another way.
const (
	envListenPID   = "LISTEN_PID"
	envListenFDs   = "LISTEN_FDS"
	envListenNames = "LISTEN_FDNAMES"
	envListenPidfd = "LISTEN_PIDFDID"
)

// activationVariables are meant for one process alone, so they are not passed on.
var activationVariables = []string{envListenPID, envListenFDs, envListenNames, envListenPidfd}

// unnamedSocket is the name of a socket whose service manager gives none.
const unnamedSocket = "unknown"

// activatedSockets returns the sockets that a service manager has passed to the
// process whose number is pid. Variables that are meant for another process, and
// were only left in the environment, count for nothing.
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
		if name == "" {
			name = unnamedSocket
		}
		passed[i] = passedSocket{Address: inheritedPrefix + name, activated: true}
	}
	return passed, nil
}
