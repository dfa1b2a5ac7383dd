package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// machine is where the figures are from.
type machine struct {
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	Procs  int    `json:"procs"` // GOMAXPROCS of the servers
	Pinned bool   `json:"pinned"`
}

func thisMachine(procs int) machine {
	m := machine{CPU: cpuModel(), CPUs: len(allowed), Go: runtime.Version(), Procs: procs, Pinned: isPinned()}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	return m
}

// String returns the machine for the head of the tables.
func (m machine) String() string {
	var pinned string
	switch {
	case !m.Pinned:
		pinned = "nothing is pinned, for want of processors"
	case isApart(m.Procs):
		pinned = "they are pinned to as many processors, the generator to another"
	default:
		pinned = "they use all processors, and the generator is pinned to the last of these"
	}
	return fmt.Sprintf("%s, %d processors, Linux %s, %s. Servers have GOMAXPROCS=%d; %s", m.CPU, m.CPUs, m.Kernel, m.Go, m.Procs, pinned)
}

func cpuModel() string {
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
