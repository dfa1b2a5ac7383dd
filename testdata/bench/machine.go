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
	Pinned bool   `json:"pinned"`
}

func thisMachine() machine {
	m := machine{CPU: cpuModel(), CPUs: len(allowed), Go: runtime.Version(), Pinned: isPinned()}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	return m
}

// String returns the machine for the head of the tables.
func (m machine) String() string {
	pinned := "Servers have GOMAXPROCS=1 and are pinned to one processor, the generator to another"
	if !m.Pinned {
		pinned = "Servers have GOMAXPROCS=1; nothing is pinned, for want of processors"
	}
	return fmt.Sprintf("%s, %d processors, Linux %s, %s. %s", m.CPU, m.CPUs, m.Kernel, m.Go, pinned)
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
