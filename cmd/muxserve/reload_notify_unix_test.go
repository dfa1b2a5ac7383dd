//go:build unix

package main

import (
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReloadTellsServiceManager: a reload is announced by RELOADING with the monotonic
// clock, and ended by READY.
func TestReloadTellsServiceManager(t *testing.T) {
	t.Parallel()
	path := filepath.Join(socketDir(t), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var said []string
	var hearing sync.WaitGroup
	hearing.Go(func() {
		for text := make([]byte, 1<<10); ; {
			n, err := manager.Read(text)
			if err != nil {
				return
			}
			mu.Lock()
			said = append(said, string(text[:n]))
			mu.Unlock()
		}
	})
	p := startWith(t, []string{"NOTIFY_SOCKET=" + path}, textLog, "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--drain-delay=0")
	// The process says that it is ready after it has printed its addresses.
	eventually(t, "READY", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(said) > 0
	})
	p.signal(t, syscall.SIGHUP)
	p.logged(t, "certificates unchanged", 1)
	p.signal(t, syscall.SIGTERM)
	p.wait(t)
	manager.Close()
	hearing.Wait()
	for i := range said {
		said[i] = strings.TrimRight(strings.ReplaceAll(said[i], "\n", "|"), "0123456789")
	}
	want := []string{"READY=", "RELOADING=1|MONOTONIC_USEC=", "READY=", "STOPPING="} // without the numbers
	if diff := cmp.Diff(want, said); diff != "" {
		t.Errorf("the service manager heard (-want +got):\n%s", diff)
	}
}
