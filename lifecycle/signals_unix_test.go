//go:build unix

package lifecycle

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestSignals sends real signals to a process of its own.
func TestSignals(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	child := exec.CommandContext(ctx, os.Args[0])
	child.Env = append(os.Environ(), childEnv+"=1")
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stdin.Close() }()
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	// Writing to an error output that nobody reads kills a process unless it
	// has SIGPIPE ignored.
	unread, stderr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	child.Stderr = stderr
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = stderr.Close(), unread.Close()

	lines := bufio.NewScanner(stdout)
	expect := func(want string) {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("the child ended instead of saying %q: %v", want, lines.Err())
		}
		if diff := cmp.Diff(want, lines.Text()); diff != "" {
			t.Fatalf("the child said (-want +got):\n%s", diff)
		}
	}
	send := func(s syscall.Signal) {
		t.Helper()
		if err := child.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	expect("ready")
	for _, s := range []struct {
		signal syscall.Signal
		want   string
	}{
		{syscall.SIGHUP, "reload true"},
		{syscall.SIGHUP, "reload true"},
		{syscall.SIGUSR2, "upgrade"},
		{syscall.SIGTERM, "drain terminated"},
		{syscall.SIGHUP, "reload true"},
		{syscall.SIGQUIT, "force quit"},
	} {
		send(s.signal)
		expect(s.want)
	}
	expect("stopped")
	send(syscall.SIGTERM)
	_ = child.Wait()
	status, ok := child.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("the child ended with %v, want death by SIGTERM", child.ProcessState)
	}
}
