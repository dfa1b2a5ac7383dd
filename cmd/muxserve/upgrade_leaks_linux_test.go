package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// descriptors counts the open descriptors of a process.
func descriptors(t *testing.T, pid int) int {
	t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// TestUpgradesLeakNothing counts descriptors over failed and successful upgrades, and
// checks the environment of the last process.
func TestUpgradesLeakNothing(t *testing.T) {
	t.Parallel()
	path := install(t)
	good := path + ".good"
	p := startInstalled(t, path, textLog, "--drain-delay=0")
	p.endSuccessors(t)
	pid := p.cmd.Process.Pid
	settled := func(pid, want int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d has %d descriptors", pid, want), func() bool { return descriptors(t, pid) <= want })
	}
	before := descriptors(t, pid)
	if err := os.Rename(path, good); err != nil {
		t.Fatal(err)
	}
	replace(t, path, "exit 7")
	const attempts = 5
	for i := range attempts {
		p.signal(t, syscall.SIGUSR2)
		p.logged(t, "upgrade failed", i+1)
	}
	settled(pid, before+1) // A pidfd or an epoll instance may come with the first child.
	if err := os.Rename(good, path); err != nil {
		t.Fatal(err)
	}
	first := 0
	for i := range 4 {
		pid = p.upgrade(t, pid)
		p.logged(t, "phase=stopped", i+1)
		if i == 0 {
			first = descriptors(t, pid)
		}
	}
	if last := descriptors(t, pid); last > first {
		t.Errorf("%d descriptors after one upgrade, %d after four", first, last)
	}
	env, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "environ"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"MUXSERVE_INHERIT", "MUXSERVE_UPGRADE_READY", "LISTEN_"} {
		if n := strings.Count(string(env), name); n > 1 {
			t.Errorf("%s is there %d times", name, n)
		}
	}
}
