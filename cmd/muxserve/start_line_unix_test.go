//go:build unix

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestReloadWhileTheStartIsPrinted: a reload may take listeners away while nobody reads what
// the start prints. The addresses that were open at the start are printed then.
func TestReloadWhileTheStartIsPrinted(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "muxserve.yaml")
	write := func(listeners string) {
		t.Helper()
		if err := os.WriteFile(file, []byte("admin: {address: 'off'}\nlisteners:\n"+listeners), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const one = "  - address: 127.0.0.1:0\n"
	path := filepath.Join(filepath.Dir(file), "s")
	write(one + "  - address: unix:" + path + "\n")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	filled := fillPipe(t, w)

	p := exec.Command(binary, "--config", file, textLog)
	var logged lockedBuffer
	p.Env, p.Stdout, p.Stderr = []string{"PATH=" + os.Getenv("PATH")}, w, &logged
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		_ = p.Wait()
		if t.Failed() {
			t.Logf("stderr:\n%s", &logged)
		}
	})
	logs := func(text string) {
		t.Helper()
		eventually(t, "it logs "+text, func() bool { return strings.Contains(logged.String(), text) })
	}
	logs("msg=serving")
	write(one)
	if err := p.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	logs(logReloaded)
	var printed lockedBuffer
	read := make(chan error, 1)
	go func() {
		_, err := r.WriteTo(&printed)
		read <- err
	}()
	eventually(t, "both addresses are printed", func() bool {
		text := printed.String()
		return len(text) > filled && strings.Count(text[filled:], "muxserve: ") == 2 && strings.HasSuffix(text, "unix:"+path+"\n")
	})
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("its end: %v", err)
	}
	if err := <-read; err != nil {
		t.Errorf("read: %v", err)
	}
}

// fillPipe writes until the pipe takes no more, and returns how much that was.
func fillPipe(t *testing.T, w *os.File) (n int) {
	t.Helper()
	for {
		if err := w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		more, err := w.Write(bytes.Repeat([]byte{'x'}, 4096))
		if n += more; errors.Is(err, os.ErrDeadlineExceeded) {
			return n
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
