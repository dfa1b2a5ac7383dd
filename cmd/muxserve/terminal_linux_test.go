package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// atTerminal is a muxserve at a terminal of its own.
type atTerminal struct {
	cmd    *exec.Cmd
	screen lockedBuffer
	keys   *os.File
	shown  chan struct{} // closed when nothing more is shown
}

// startAtTerminal runs the binary at a pseudo terminal (pty(7)) until the end of the test.
func startAtTerminal(t *testing.T, args ...string) *atTerminal {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	control := func(request uintptr, value *int32) {
		t.Helper()
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, keys.Fd(), request, uintptr(unsafe.Pointer(value))); errno != 0 {
			t.Fatal(errno)
		}
	}
	var number, unlocked int32
	control(syscall.TIOCGPTN, &number)
	control(syscall.TIOCSPTLCK, &unlocked)
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	a := &atTerminal{cmd: exec.Command(binary, args...), keys: keys, shown: make(chan struct{})}
	a.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "NO_COLOR=1"}
	a.cmd.Stdin, a.cmd.Stdout, a.cmd.Stderr = terminal, terminal, terminal
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = terminal.Close()
	go func() {
		defer close(a.shown)
		_, _ = io.Copy(&a.screen, keys) // It fails when the last process has left the terminal.
	}()
	t.Cleanup(func() {
		_ = a.cmd.Process.Kill()
		_ = a.cmd.Wait()
		<-a.shown
		_ = keys.Close()
		if t.Failed() {
			t.Logf("the terminal shows:\n%s", &a.screen)
		}
	})
	return a
}

func (a *atTerminal) shows(t *testing.T, text string) {
	t.Helper()
	eventually(t, "the terminal shows "+text, func() bool { return strings.Contains(a.screen.String(), text) })
}

// press types Ctrl-C.
func (a *atTerminal) press(t *testing.T) {
	t.Helper()
	if _, err := a.keys.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
}

// wait returns the exit code.
func (a *atTerminal) wait(t *testing.T) int {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = a.cmd.Wait()
	}()
	select {
	case <-ended:
		return a.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		_ = a.cmd.Process.Kill()
		<-ended
		t.Fatal("the process does not end")
		return 0
	}
}

const secondCtrlC = "another Ctrl-C cuts what is left"

// TestCtrlC: at a terminal, the server shows commands to try it. Ctrl-C drains without the
// delay for a balancer, and says what a second one does.
func TestCtrlC(t *testing.T) {
	t.Parallel()
	a := startAtTerminal(t, "--listen=127.0.0.1:0", "--admin=off", "--drain-delay=1h", "--drain-timeout=2h", "--drain-spread=0s")
	a.shows(t, "curl --http1.1 http://127.0.0.1:")
	a.shows(t, "browser")
	a.press(t)
	if code := a.wait(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	a.shows(t, secondCtrlC)
}

// TestSecondCtrlC: the second one cuts.
func TestSecondCtrlC(t *testing.T) {
	t.Parallel()
	a := startAtTerminal(t, "--listen=127.0.0.1:0", "--admin=off", "--drain-spread=0s")
	a.shows(t, "browser")
	url := regexp.MustCompile(`on (http://127.0.0.1:\d+)`).FindStringSubmatch(a.screen.String())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	begun := make(chan struct{})
	go func() {
		defer close(begun)
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, url[1]+"/duplex", http.NoBody)
		if err != nil {
			return
		}
		body, w := io.Pipe()
		r.Body, r.ContentLength = body, -1
		go func() { _, _ = io.WriteString(w, "x") }()
		client := httpClient(t, false)
		resp, err := client.Do(r)
		if err != nil {
			t.Error(err)
			return
		}
		context.AfterFunc(ctx, func() {
			_ = resp.Body.Close()
			_ = w.Close()
		})
	}()
	<-begun
	a.press(t)
	a.shows(t, secondCtrlC)
	a.press(t)
	if code := a.wait(t); code != exitSignalled+int(syscall.SIGINT) {
		t.Errorf("exit code %d", code)
	}
}
