package upgrade

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// containerInits are programs that containers put before the one that they are for. They
// end with the process that they have started.
var containerInits = []string{"tini", "docker-init", "dumb-init", "catatonit"}

// unfit returns why the process pid cannot be replaced, which starter has started, a
// process of the name; nil if it can. The name is empty where it is not known, and told
// says whether the service manager hears which process is the main one.
//
// A process that was orphaned later has another starter than process 1, which does not
// wait for its end then.
func unfit(pid, starter int, name string, told bool) error {
	const again = "start a new container instead"
	switch {
	case pid == 1:
		return fmt.Errorf("%w: this is process 1, whose end is the end of its container; %s", ErrUnfit, again)
	case slices.Contains(containerInits, name):
		return fmt.Errorf("%w: %s has started it and ends with it, and so does the container; %s", ErrUnfit, name, again)
	case name == "systemd" && !told:
		return fmt.Errorf("%w: systemd has started it and ends the service with it; set Type=notify and NotifyAccess=all", ErrUnfit)
	case starter == 1 && name != "" && name != "systemd" && name != "init":
		return fmt.Errorf("%w: process 1 (%s) has started it and may end with it, and so may the container; %s", ErrUnfit, name, again)
	default:
		return nil
	}
}

// nameOf returns the name of a process; empty where the system does not tell.
func nameOf(pid int) string {
	name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(name))
}
