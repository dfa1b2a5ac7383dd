//go:build unix

package listeners

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	childFiles     = 64  // RLIMIT_NOFILE of the child
	childClients   = 100 // more than that, less than the kernel's queue
	childPatience  = 30 * time.Second
	childMaxErrors = 60 // back-off alone allows 8 in the first second, then 1 a second
)

// childMain is an echo server with too few file descriptors. It writes its
// address and its log to stdout, runs until stdin ends, then writes the count
// of failed Accepts.
func childMain() int {
	limit := syscall.Rlimit{Cur: childFiles, Max: childFiles}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(inner.Addr())
	counted := &failureCounter{Listener: inner}
	l := New(counted, slog.New(slog.NewJSONHandler(os.Stdout, nil)))
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	io.Copy(io.Discard, os.Stdin)
	fmt.Println(counted.failures.Load())
	return 0
}

// failureCounter counts the errors of Accept.
type failureCounter struct {
	net.Listener
	failures atomic.Uint64
}

func (c *failureCounter) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		c.failures.Add(1)
	}
	return conn, err
}

// childLine is what the tests look at in a log line of the child.
type childLine struct {
	Level string `json:"level"`
}

func readLevel(t *testing.T, lines *bufio.Scanner) string {
	t.Helper()
	var line childLine
	if !lines.Scan() {
		t.Fatalf("the child's output ended: %v", lines.Err())
	}
	if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
		t.Fatalf("log line %q: %v", lines.Text(), err)
	}
	return line.Level
}

// child is the running echo server.
type child struct {
	addr  *net.TCPAddr
	lines *bufio.Scanner // its output after the address
	stdin io.Closer      // closing it ends the child
	end   func() error   // waits for the end once the output is read
}

func startChild(t *testing.T) *child {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() {
		t.Fatal("the child gave no address")
	}
	addr, err := net.ResolveTCPAddr("tcp", lines.Text())
	if err != nil {
		t.Fatal(err)
	}
	return &child{addr: addr, lines: lines, end: cmd.Wait, stdin: stdin}
}

// TestOutOfFiles runs a process out of file descriptors for real: it must not
// spin, must say so once, and must serve everybody when descriptors come back.
func TestOutOfFiles(t *testing.T) {
	child := startChild(t)
	conns := make([]net.Conn, childClients)
	for i := range conns {
		conns[i] = dial(t, child.addr)
		conns[i].SetDeadline(time.Now().Add(childPatience))
		if _, err := conns[i].Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if got := readLevel(t, child.lines); got != "WARN" {
		t.Fatalf("first log line is %s, want WARN", got)
	}
	// The kernel's queue is first in, first out: each connection that ends
	// makes room for one that waits.
	for i, conn := range conns {
		var echo [1]byte
		if _, err := io.ReadFull(conn, echo[:]); err != nil || echo[0] != byte(i) {
			t.Fatalf("connection %d: echo %d, %v", i, echo[0], err)
		}
		conn.Close()
	}
	if got := readLevel(t, child.lines); got != "INFO" {
		t.Errorf("second log line is %s, want INFO", got)
	}
	child.stdin.Close()
	var failures int
	if !child.lines.Scan() {
		t.Fatal("the child gave no count")
	}
	if _, err := fmt.Sscan(child.lines.Text(), &failures); err != nil {
		t.Fatalf("a line too many: %q", child.lines.Text())
	}
	if failures == 0 || failures > childMaxErrors {
		t.Errorf("%d failed Accepts, want 1 to %d", failures, childMaxErrors)
	}
	if err := child.end(); err != nil {
		t.Error(err)
	}
}
