package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"
)

// What the generator asks of a server process, a line of JSON on its standard
// input each. It never asks by a port that is measured.
const (
	doBegin        = "begin"        // a slice begins: account
	doEnd          = "end"          // a slice has ended: account
	doMemory       = "memory"       // collect garbage, and account
	doBroadcast    = "broadcast"    // send a message to every WebSocket
	doDrain        = "drain"        // drain, and say how long it took
	doProfile      = "profile"      // write a CPU profile from now on
	doStopProfile  = "stop-profile" // until now
	doContention   = "contention"   // note from now on who waits for which lock
	doLocks        = "locks"        // write that
	serverArgument = "server"       // the first argument of a server process
	directoryMode  = os.FileMode(0o700)
)

// command is one such question.
type command struct {
	Do    string `json:"do"`
	File  string `json:"file,omitempty"`  // of doProfile and doLocks
	Count int    `json:"count,omitempty"` // of doBroadcast: how many WebSockets there must be first
}

// account is the answer, and also what a server process says when it serves.
type account struct {
	Error string `json:"error,omitempty"`
	// Addresses are where it serves, by the name of the port.
	Addresses map[string]string `json:"addresses,omitempty"`
	// CPU is the processor time that all processes of the form have used so far.
	CPU time.Duration `json:"cpu"`
	// Mallocs and Allocated are the heap objects, and their bytes, that were allocated so far.
	Mallocs   uint64 `json:"mallocs"`
	Allocated uint64 `json:"allocated"`
	// Heap and Stack are what is in use after a garbage collection, and RSS what the kernel counts, in bytes.
	Heap  int64 `json:"heap"`
	Stack int64 `json:"stack"`
	RSS   int64 `json:"rss"`
	// Drained is how long the drain took, and Cut how many connections it had to cut.
	Drained time.Duration `json:"drained"`
	Cut     int           `json:"cut"`
}

// stopTimeout is what a server process gets to end when it is told to.
const stopTimeout = 10 * time.Second

// process is a server process and the pipe to it. Its methods may be called concurrently.
type process struct {
	form      string
	addresses map[string]string
	dir       string
	way       way   // of the clients' connections
	link      *link // on that way; nil without one

	mu      sync.Mutex // guards the conversation
	stdin   io.WriteCloser
	encoder *json.Encoder
	decoder *json.Decoder
	cmd     *exec.Cmd
}

// startProcess runs this program as the server of one form, and returns when it serves. Clients reach it by w.
func (pl *plan) startProcess(ctx context.Context, form string, w way) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, serverArgument, "-form", form, "-dir", pl.dir, "-set", pl.settings) //nolint:gosec // It is this program.
	cmd.Env = append(os.Environ(), fmt.Sprintf("GOMAXPROCS=%d", pl.procs))
	cmd.Stderr = os.Stderr
	p := &process{form: form, dir: pl.dir, cmd: cmd, way: w, link: newLink(w.roundTrip)}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	p.encoder, p.decoder = json.NewEncoder(p.stdin), json.NewDecoder(stdout)
	if err := startPinned(cmd, pl.procs); err != nil {
		return nil, fmt.Errorf("bench: server of form %s: %w", form, err)
	}
	a, err := p.hear()
	if err != nil {
		return nil, errors.Join(err, p.stop())
	}
	p.addresses = a.Addresses
	return p, nil
}

// startPinned starts a process on the servers' processors: it inherits them from the
// thread that starts it.
func startPinned(cmd *exec.Cmd, procs int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	restore, err := pinThread(serverCPUs(procs))
	if err != nil {
		return err
	}
	defer restore()
	return cmd.Start()
}

// ask sends a command and waits for the answer.
func (p *process) ask(c command) (account, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.encoder.Encode(c); err != nil {
		return account{}, fmt.Errorf("bench: %s of %s: %w", c.Do, p.form, err)
	}
	return p.hear()
}

func (p *process) hear() (account, error) {
	var a account
	if err := p.decoder.Decode(&a); err != nil {
		return a, fmt.Errorf("bench: server of form %s: %w", p.form, err)
	}
	if a.Error != "" {
		return a, fmt.Errorf("bench: server of form %s: %s", p.form, a.Error)
	}
	return a, nil
}

// stop ends the process, which it does by itself when nobody can talk to it any more.
func (p *process) stop() error {
	p.link.close()
	_ = p.stdin.Close()
	timer := time.AfterFunc(stopTimeout, func() { _ = p.cmd.Process.Kill() })
	defer timer.Stop()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("bench: server of form %s: %w", p.form, err)
	}
	return nil
}
