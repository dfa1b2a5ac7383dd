package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// processorTime returns the processor time, of the user and of the system, that this process and others have used.
func processorTime(others []int) (time.Duration, error) {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return 0, fmt.Errorf("bench: getrusage: %w", err)
	}
	used := time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	for _, pid := range others {
		var t unix.Timespec
		if err := unix.ClockGettime(processClock(pid), &t); err != nil {
			return 0, fmt.Errorf("bench: processor clock of %d: %w", pid, err)
		}
		used += time.Duration(t.Nano())
	}
	return used, nil
}

// schedulerClock is CPUCLOCK_SCHED of the kernel's include/linux/posix-timers.h: the time that the scheduler has
// given, in nanoseconds, which is what getrusage divides into user and system.
const schedulerClock = 2

// processClock returns the clock that counts the processor time of a process, as clock_getcpuclockid makes it.
func processClock(pid int) int32 { return int32(^pid<<3 | schedulerClock) }

// collections is how many garbage collections it takes until what they freed, and what pools hold, is gone.
const collections = 2

// memory fills in what this process holds after a garbage collection, and the resident size of all processes of the form.
func (a *account) memory(others []int) error {
	for range collections {
		runtime.GC()
	}
	debug.FreeOSMemory() // So that RSS does not count what the garbage collector keeps for later.
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	a.Heap, a.Stack = int64(stats.HeapAlloc), int64(stats.StackInuse)
	for _, pid := range append([]int{os.Getpid()}, others...) {
		rss, err := residentSize(pid)
		if err != nil {
			return err
		}
		a.RSS += rss
	}
	return nil
}

// residentSize returns VmRSS of a process, in bytes.
func residentSize(pid int) (int64, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("bench: %w", err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		value, ok := strings.CutPrefix(lines.Text(), "VmRSS:")
		if !ok {
			continue
		}
		kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("bench: VmRSS: %w", err)
		}
		return kilobytes << 10, nil
	}
	return 0, fmt.Errorf("bench: no VmRSS of %d", pid)
}
