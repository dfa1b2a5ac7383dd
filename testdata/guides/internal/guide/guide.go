// Package guide runs the program that a test stands beside. The test's binary is the program
// as well: [Start] starts it anew, and then [Main] calls the program's main function.
package guide

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// isProgram is set in the environment of the program.
const isProgram = "GUIDE_IS_PROGRAM"

// patience is how long anything may take.
const patience = 30 * time.Second

// Main is to be called by TestMain, with the program's main function.
func Main(m *testing.M, main func()) {
	if os.Getenv(isProgram) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Program is a program that runs.
type Program struct {
	Addr string // its address, as in the environment variable ADDR

	t    *testing.T
	cmd  *exec.Cmd
	log  *log
	told sync.Once // SIGTERM has been sent
	once sync.Once // the program has ended
}

// Start starts the program with more environment variables, and returns when it accepts
// connections. The end of the test stops it.
func Start(t *testing.T, env ...string) *Program {
	t.Helper()
	p := &Program{Addr: freeAddress(t), t: t, log: new(log)}
	p.cmd = exec.CommandContext(t.Context(), os.Args[0])
	p.cmd.Env = append(append(os.Environ(), isProgram+"=1", "ADDR="+p.Addr), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = patience
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", p.Addr)
		if err == nil {
			_ = conn.Close()
			return p
		}
		if time.Now().After(end) {
			t.Fatalf("the program does not accept: %v\n%s", err, p.log)
		}
	}
}

// freeAddress returns an address that was free a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Stop tells the program to stop, unless it has been told, and waits for its end. It has to
// end well.
func (p *Program) Stop() {
	p.once.Do(func() {
		p.t.Helper()
		p.tell()
		timer := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
		defer timer.Stop()
		err := p.cmd.Wait()
		if exit := new(exec.ExitError); errors.As(err, &exit) {
			p.t.Errorf("the program ended with %v\n%s", exit, p.log)
		}
	})
}

// StopDuring tells the program to stop while a request is under way: one whose body is half
// sent, to a path that reads it all. It returns the answer's status.
func (p *Program) StopDuring(client *http.Client, url string) int {
	p.t.Helper()
	return p.StopDuringBody(client, url, "the first half, ", "a bit more, ", "the second half")
}

// StopDuringBody is StopDuring with another body. Its last part is sent in the drain.
func (p *Program) StopDuringBody(client *http.Client, url, first, more, last string) int {
	p.t.Helper()
	body, written := io.Pipe()
	type answer struct {
		status int
		err    error
	}
	answered := make(chan answer, 1)
	go func() {
		resp, err := client.Post(url, "text/plain", body)
		if err != nil {
			answered <- answer{0, err}
			return
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		answered <- answer{resp.StatusCode, err}
	}()
	if _, err := io.WriteString(written, first); err != nil { // The client takes it when it sends.
		p.Stop() // Its log is whole then.
		p.t.Fatalf("the request: %v\n%s", (<-answered).err, p.log)
	}
	_, _ = io.WriteString(written, more) // It is taken when what came before has been sent.
	p.Draining()
	_, _ = io.WriteString(written, last)
	_ = written.Close()
	got := <-answered
	if got.err != nil {
		p.t.Errorf("the request under way: %v\n%s", got.err, p.log)
	}
	p.Stop()
	return got.status
}

// Draining sends SIGTERM and returns when the program has begun its drain.
func (p *Program) Draining() {
	p.t.Helper()
	p.tell()
	p.Eventually("its drain", func() bool { return strings.Contains(p.log.String(), "phase=draining") })
}

// tell sends SIGTERM, once.
func (p *Program) tell() {
	p.told.Do(func() { _ = p.cmd.Process.Signal(syscall.SIGTERM) })
}

// Eventually waits until cond holds.
func (p *Program) Eventually(what string, cond func() bool) {
	p.t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("still waiting for %s\n%s", what, p.log)
		}
	}
}

// Get returns the body of an answer, whose status has to be 200.
func Get(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	return Body(t, resp)
}

// Body returns the body of an answer, whose status has to be 200.
func Body(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%s %s, %v", resp.Status, body, err)
	}
	return string(body)
}

// log is what the program has written.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements [io.Writer].
func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// String returns all of it.
func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
