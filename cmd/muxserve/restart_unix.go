//go:build unix

package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
)

// restart replaces this process by itself with another value of GODEBUG. The arguments,
// the process id and the inherited descriptors stay. It returns only when that fails.
func restart(godebug string) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	const name = "GODEBUG="
	environ := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, name) })
	err = syscall.Exec(exe, os.Args, append(environ, name+godebug)) //nolint:gosec // It starts the running program.
	return fmt.Errorf("restart with %s%s: %w", name, godebug, err)
}
