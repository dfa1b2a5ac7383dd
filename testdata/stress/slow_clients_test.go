package stress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// slowEnv makes the test binary run as slow clients. They are a process of their
// own, of the lowest priority, so that they take no processor time from the
// server and the normal client, as clients on other machines would not.
const slowEnv = "STRESS_SLOW_CLIENTS"

// slowTask is what that process is told, and slowResult what it says, as JSON.
type (
	slowTask struct {
		Addr    string
		Clients int
		Says    []string      // What they say, in turn.
		Bound   time.Duration // By when each of them must be gone.
	}
	slowResult struct {
		Opened, Failed int
		Left           int           // How many were not gone by then.
		Longest        time.Duration // How long the last one stayed.
	}
)

// runSlowClients starts the process and returns when all its connections are over.
func runSlowClients(t *testing.T, task slowTask) slowResult {
	t.Helper()
	in, err := json.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "nice", "-n", "19", os.Args[0])
	cmd.Env = append(os.Environ(), slowEnv+"="+string(in))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var result slowResult
	if err := json.Unmarshal(out, &result); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	return result
}

// slowMain is the main function of that process.
func slowMain(in string) error {
	s := slowClients{}
	if err := json.Unmarshal([]byte(in), &s.task); err != nil {
		return err
	}
	s.run(context.Background())
	out, err := json.Marshal(s.result)
	if err != nil {
		return err
	}
	_, err = fmt.Println(string(out))
	return err
}

// slowClients are connections that send a byte a second.
type slowClients struct {
	task slowTask

	mu     sync.Mutex // guards result
	result slowResult
}

// openingTime is how long the slow clients take to connect, all together. It is
// well below the sniff time, so that they are all there at one time.
const openingTime = 2 * time.Second

// run opens all connections and returns when they are over.
func (s *slowClients) run(ctx context.Context) {
	var wg sync.WaitGroup
	const step = 10 * time.Millisecond
	pace := time.NewTicker(step)
	defer pace.Stop()
	for i := 0; i < s.task.Clients; {
		for range max(1, s.task.Clients*int(step)/int(openingTime)) {
			say := s.task.Says[i%len(s.task.Says)]
			wg.Go(func() { s.connect(ctx, say) })
			i++
		}
		<-pace.C
	}
	wg.Wait()
}

// connect opens a connection for drip.
func (s *slowClients) connect(ctx context.Context, say string) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.task.Addr)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.result.Failed++
		return
	}
	s.drip(conn, say)
}

// drip sends a byte a second until the server closes the connection, or does not.
func (s *slowClients) drip(conn net.Conn, say string) {
	defer conn.Close()
	started := time.Now()
	gone := false
	heard := make([]byte, 64)
	for i := 0; !gone && time.Since(started) <= s.task.Bound; i++ {
		if i < len(say) {
			if _, err := conn.Write([]byte{say[i]}); err != nil {
				gone = true
				break
			}
		}
		conn.SetReadDeadline(started.Add(min(time.Duration(i+1)*time.Second, s.task.Bound)))
		var err error
		for err == nil {
			_, err = conn.Read(heard)
		}
		gone = !errors.Is(err, os.ErrDeadlineExceeded)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.result.Opened++
	s.result.Longest = max(s.result.Longest, time.Since(started))
	if !gone {
		s.result.Left++
	}
}
