package main

import (
	"bufio"
	"bytes"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds every wait for the binary. Without a fault, waits take a fraction of
// it.
const patience = 60 * time.Second

// running is a muxserve process.
type running struct {
	cmd     *exec.Cmd
	service *url.URL // http://… or https://…
	admin   *url.URL // nil without admin pages
	stderr  lockedBuffer

	// exited is closed when the process has ended; code is set before.
	exited chan struct{}
	code   int
}

// lockedBuffer is a buffer that one goroutine may read while another writes.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// launch starts the binary with these arguments. Its environment is PATH and vars. The
// end of the test kills it.
func launch(t *testing.T, vars []string, args ...string) (*running, <-chan string) {
	t.Helper()
	return launchAs(t, func(*exec.Cmd) {}, vars, args...)
}

// launchAs is launch with a hook that may change how the binary is started.
func launchAs(t *testing.T, adjust func(*exec.Cmd), vars []string, args ...string) (*running, <-chan string) {
	t.Helper()
	p := &running{exited: make(chan struct{})}
	p.cmd = exec.Command(binary, args...)
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, vars...)
	p.cmd.Stderr = &p.stderr
	adjust(p.cmd)
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	const maxLines = 1000 // Far more than the binary ever prints.
	lines := make(chan string, maxLines)
	go func() {
		defer close(p.exited)
		for s := bufio.NewScanner(stdout); s.Scan(); {
			lines <- s.Text()
		}
		close(lines)
		err := p.cmd.Wait()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Errorf("wait: %v", err)
		}
		p.code = p.cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("stderr of %q:\n%s", args, &p.stderr)
		}
	})
	return p, lines
}

// start runs the binary on free ports and waits until it prints its addresses.
func start(t *testing.T, args ...string) *running {
	t.Helper()
	return startWith(t, nil, append([]string{"--listen=127.0.0.1:0", "--admin=127.0.0.1:0"}, args...)...)
}

// startWith runs the binary and waits for its last line, the admin pages' address.
func startWith(t *testing.T, vars []string, args ...string) *running {
	t.Helper()
	return startAs(t, func(*exec.Cmd) {}, vars, args...)
}

// startAs is startWith with a hook that may change how the binary is started.
func startAs(t *testing.T, adjust func(*exec.Cmd), vars []string, args ...string) *running {
	t.Helper()
	p, lines := launchAs(t, adjust, vars, args...)
	deadline := time.After(patience)
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				<-p.exited
				t.Fatalf("%q ended with %d:\n%s", args, p.code, &p.stderr)
			}
			_, address, _ := strings.Cut(line, " on ")
			switch {
			case strings.HasPrefix(line, "muxserve: admin pages"):
				p.admin = mustURL(t, address)
				return p
			case strings.HasPrefix(line, "muxserve: "):
				p.service = mustURL(t, address)
			}
		case <-deadline:
			t.Fatalf("%q does not say where it listens", args)
		}
	}
}

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// wait returns the process's exit code.
func (p *running) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.exited:
		return p.code
	case <-time.After(patience):
		t.Fatalf("the process does not end:\n%s", &p.stderr)
		return 0
	}
}

// runBinary runs the binary to its end.
func runBinary(t *testing.T, args ...string) (code int, stderr string) {
	t.Helper()
	p, _ := launch(t, nil, args...)
	return p.wait(t), p.stderr.String()
}

// eventually waits until ok returns true. It polls, because the state of another process
// sends no events.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	const interval = 10 * time.Millisecond
	deadline := time.After(patience)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it never comes to this: %s", what)
		}
	}
}
