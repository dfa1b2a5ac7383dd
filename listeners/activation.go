package listeners

import (
	"fmt"
	"strconv"
	"strings"
)

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
		passed[i] = passedSocket{Address: InheritedPrefix + name, activated: true}
	}
	return passed, nil
}
