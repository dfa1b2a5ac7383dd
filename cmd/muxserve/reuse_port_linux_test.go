package main

import (
	"fmt"
	"syscall"
	"testing"
)

// TestUpgradeReusePort changes the number of sockets by upgrades, and by reloads behind
// them, while clients connect anew for each request.
func TestUpgradeReusePort(t *testing.T) {
	t.Parallel()
	text := func(n int) string {
		return fmt.Sprintf("listeners: [{address: \"127.0.0.1:0\", reuse_port: %d}]\nadmin: {address: \"127.0.0.1:0\"}\ndrain: {delay: 0s, spread: 0s}\n", n)
	}
	r := startReloadable(t, text(8))
	r.endSuccessors(t)
	const clients = 64
	underLoad(t, clients, freshClient(t, ""), r.service.JoinPath("livez"), func() {
		pid := r.cmd.Process.Pid
		for i, n := range []int{8, 3, 8, 1, 8} {
			r.write(t, text(n))
			pid = r.upgrade(t, pid)
			r.logged(t, "phase=stopped", i+1)
		}
		for i, n := range []int{1, 8, 3, 8, 1} {
			r.write(t, text(n))
			if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			r.logged(t, logReloaded, i+1)
		}
	})
}
