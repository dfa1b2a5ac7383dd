//go:build unix

package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestServiceManager listens to what the processes of an upgrade say to systemd. The
// old one must not say that it stops: that would be the end of the service.
func TestServiceManager(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "mux") //nolint:usetesting // The path of a socket has to be short.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var said []string
	alive := 0
	var hearing sync.WaitGroup
	hearing.Go(func() {
		for text := make([]byte, 1<<10); ; {
			n, err := manager.Read(text)
			if err != nil {
				return
			}
			mu.Lock()
			if s := string(text[:n]); s == "WATCHDOG=1" {
				alive++
			} else {
				said = append(said, s)
			}
			mu.Unlock()
		}
	})
	isAlive := func() {
		t.Helper()
		mu.Lock()
		before := alive
		mu.Unlock()
		eventually(t, "the watchdog hears from it", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return alive > before
		})
	}
	const watchdog = 50_000 // Microseconds.
	p := startWith(t, []string{"NOTIFY_SOCKET=" + path, fmt.Sprint("WATCHDOG_USEC=", watchdog)},
		textLog, "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--drain-delay=0")
	p.endSuccessors(t)
	isAlive()
	pid := p.upgrade(t, p.cmd.Process.Pid)
	p.logged(t, "phase=stopped", 1)
	isAlive()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	manager.Close()
	hearing.Wait()
	want := []string{"READY=1", fmt.Sprintf("MAINPID=%d|READY=1", pid), "STOPPING=1"}
	for i := range said {
		said[i] = strings.ReplaceAll(said[i], "\n", "|")
	}
	if diff := cmp.Diff(want, said); diff != "" {
		t.Errorf("the service manager heard (-want +got):\n%s", diff)
	}
}
