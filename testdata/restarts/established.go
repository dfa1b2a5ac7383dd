package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// tcpEstablished is the state of an open connection in /proc/net/tcp.
const tcpEstablished = "01"

// established returns how many connections that came in on a port a process has open.
func established(pid, port int) (int, error) {
	inodes, err := socketInodes(pid)
	if err != nil {
		return 0, err
	}
	table, err := os.Open("/proc/net/tcp")
	if err != nil {
		return 0, fmt.Errorf("restarts: %w", err)
	}
	defer table.Close()
	local := fmt.Sprintf(":%04X", port)
	n := 0
	for lines := bufio.NewScanner(table); lines.Scan(); {
		// The columns: sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode.
		const columns = 10
		f := strings.Fields(lines.Text())
		if len(f) >= columns && strings.HasSuffix(f[1], local) && f[3] == tcpEstablished && inodes[f[9]] {
			n++
		}
	}
	return n, nil
}

// socketInodes returns the inode numbers of the sockets that a process has open.
func socketInodes(pid int) (map[string]bool, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return nil, fmt.Errorf("restarts: %w", err)
	}
	inodes := make(map[string]bool)
	for _, file := range files {
		target, err := os.Readlink(file)
		if err != nil {
			continue // It has been closed meanwhile.
		}
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			inodes[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return inodes, nil
}
