package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os/exec"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
)

// order is what a caller is to do: one call after the other until Repeat has
// passed, and at least one. Each has Deadline, or what is left of Repeat where that is more.
type order struct {
	Wait             bool // for a connection, instead of failing where there is none
	Repeat, Deadline time.Duration
}

// callPause is how long a caller rests between two calls: an impatient program's.
const callPause = 20 * time.Millisecond

// A caller carries out orders, all on one channel, and returns how many calls
// ended with which code.
type caller func(t *testing.T, o order) map[codes.Code]int

// newGRPCGo returns a caller of grpc-go.
func newGRPCGo(t *testing.T, addr string) caller {
	t.Helper()
	conn := dialGRPC(t, addr)
	return func(t *testing.T, o order) map[codes.Code]int {
		t.Helper()
		ended := make(map[codes.Code]int)
		for end := time.Now().Add(o.Repeat); ; {
			ended[callGo(t, conn, o.Wait, max(time.Until(end), o.Deadline))]++
			if err := sleep(t.Context(), callPause); err != nil {
				t.Fatal(err)
			}
			if !time.Now().Before(end) {
				return ended
			}
		}
	}
}

func dialGRPC(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func callGo(t *testing.T, conn *grpc.ClientConn, wait bool, deadline time.Duration) codes.Code {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	_, err := demov1.NewEchoClient(conn).Unary(ctx, &demov1.EchoRequest{}, grpc.WaitForReady(wait))
	return status.Code(err)
}

// newGRPCJS returns a caller of grpc-js. It needs what ci.sh installs.
func newGRPCJS(t *testing.T, addr string) caller {
	t.Helper()
	task, err := json.Marshal(map[string]any{"address": addr, "pause_ms": callPause.Milliseconds()})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", "node/backoff.mjs", string(task))
	var stderr bytes.Buffer // Read when the process has ended.
	cmd.Stderr = &stderr
	orders, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: this test is run by ci.sh, which brings node and its packages", err)
	}
	lines := bufio.NewReader(answers)
	t.Cleanup(func() {
		_ = orders.Close()
		_, _ = io.Copy(io.Discard, lines)
		_ = cmd.Wait()
	})
	return func(t *testing.T, o order) map[codes.Code]int {
		t.Helper()
		err := json.NewEncoder(orders).Encode(map[string]any{
			"wait": o.Wait, "repeat_ms": o.Repeat.Milliseconds(), "deadline_ms": o.Deadline.Milliseconds(),
		})
		if err != nil {
			t.Fatalf("grpc-js: %v", err)
		}
		line, err := lines.ReadBytes('\n')
		if err != nil {
			_ = cmd.Wait()
			t.Fatalf("grpc-js: %v\n%s", err, stderr.String())
		}
		var numbers map[int]int
		if err := json.Unmarshal(line, &numbers); err != nil {
			t.Fatalf("grpc-js: %v in %q", err, line)
		}
		ended := make(map[codes.Code]int)
		for code, n := range numbers {
			ended[codes.Code(code)] = n
		}
		return ended
	}
}
