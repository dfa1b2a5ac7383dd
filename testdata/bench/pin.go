package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// allowed are the processors that this process may use. It is read before anything is pinned.
var allowed = allowedCPUs()

func allowedCPUs() []int {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil
	}
	var cpus []int
	for cpu := range len(set) * strconv.IntSize {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}

// isPinned reports whether there is more than one processor to choose from.
func isPinned() bool { return len(allowed) > 1 }

// serverCPUs returns the processors of the servers, the first ones that this process may use.
func serverCPUs(procs int) []int { return allowed[:min(procs, len(allowed))] }

// generatorCPU returns the processor of the generator: the next one, or the servers'
// last one where they have all of them.
func generatorCPU(procs int) int { return allowed[min(procs, len(allowed)-1)] }

// isApart reports whether the generator has a processor that no server uses.
func isApart(procs int) bool { return len(allowed) > procs }

// pinThread binds the calling thread, which its goroutine must have locked, to
// processors, and returns what brings back its former ones.
func pinThread(cpus []int) (restore func(), err error) {
	if !isPinned() {
		return func() {}, nil
	}
	var before, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return nil, fmt.Errorf("sched_getaffinity: %w", err)
	}
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("sched_setaffinity: %w", err)
	}
	return func() { _ = unix.SchedSetaffinity(0, &before) }, nil
}

// pinGenerator binds every thread of this process to the generator's
// processor. Threads that begin later inherit it.
func pinGenerator(procs int) error {
	if !isPinned() {
		return nil
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var set unix.CPUSet
	set.Set(generatorCPU(procs))
	// A thread that begins during the first pass may be the child of one that was not bound yet.
	for range 2 {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("bench: %w", err)
		}
		for _, thread := range threads {
			id, err := strconv.Atoi(thread.Name())
			if err != nil {
				return fmt.Errorf("bench: %w", err)
			}
			if err := unix.SchedSetaffinity(id, &set); err != nil && err != unix.ESRCH {
				return fmt.Errorf("bench: sched_setaffinity: %w", err)
			}
		}
	}
	return nil
}
