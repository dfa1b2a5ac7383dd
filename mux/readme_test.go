package mux_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
)

// TestReadmeIsShort: a stranger reads the README in a few minutes. TestPagesReadPlainly bounds
// its sentences.
func TestReadmeIsShort(t *testing.T) {
	t.Parallel()
	const lines = 180
	if n := strings.Count(readPage(t, "README.md"), "\n"); n > lines {
		t.Errorf("%d lines, want %d at most", n, lines)
	}
}

// TestReadmeCommands: the README has the command that serves and the one that tests, each
// alone on its line. CI takes the latter from there.
func TestReadmeCommands(t *testing.T) {
	t.Parallel()
	readme := readPage(t, "README.md")
	for _, command := range []string{"go run ./cmd/muxserve", "go test ./..."} {
		if n := strings.Count(readme, "\n    "+command+"\n"); n != 1 {
			t.Errorf("README.md has %d lines with %q alone", n, command)
		}
	}
	if first := regexp.MustCompile(`(?m)^\s*(\$ )?(go test .*)$`).FindStringSubmatch(readme); first == nil || first[2] != "go test ./..." {
		t.Errorf("the first line that tests is %q", first)
	}
}

// TestReadmeFigures: the README's table of costs has the rows of the benchmarks' table,
// without the columns of the baseline and with the median alone.
func TestReadmeFigures(t *testing.T) {
	t.Parallel()
	const forms = " | muxserve | cmux's recipe | gRPC by ServeHTTP | HAProxy in front |\n"
	measured := make(map[string][]string)
	for _, cells := range tableRows(pageSection(t, readPage(t, "testdata/bench/README.md"), "Beside the other ways")) {
		measured[cells[0]] = cells[1:]
	}
	shown := tableRows(pageSection(t, readPage(t, "README.md"), "What it costs"))
	if len(shown) < 9 {
		t.Fatalf("README.md shows %d rows", len(shown))
	}
	for _, name := range []string{"README.md", "testdata/bench/README.md"} {
		if !strings.Contains(readPage(t, name), forms) {
			t.Errorf("%s has no table with the columns%s", name, forms)
		}
	}
	var slower float64
	if _, err := fmt.Sscan(measured["gRPC, unary"][4], &slower); err != nil {
		t.Fatal(err)
	}
	if words := fmt.Sprintf("ServeHTTP` takes %.1f times the processor time for a call", slower); !strings.Contains(readPage(t, "README.md"), words) {
		t.Errorf("README.md does not say %q", words)
	}
	for _, row := range shown {
		name, cells := row[0], row[1:]
		want := measured[name]
		if len(want) != len(cells)+2 { // direct and A/A
			t.Errorf("testdata/bench/README.md has no such row: %q", name)
			continue
		}
		for i, cell := range cells {
			if median, _, _ := strings.Cut(want[i+2], " ("); median != cell {
				t.Errorf("%s, column %d: %s, measured %s", name, i+1, cell, median)
			}
		}
	}
}

// TestReadmeProgram compiles and runs the README's program, on a Unix socket, with a client
// of each protocol, and sees it drain. What the README says it answers, it answers.
func TestReadmeProgram(t *testing.T) {
	t.Parallel()
	readme := readPage(t, "README.md")
	_, program, _ := strings.Cut(readme, "\n```go\n")
	program, shown, _ := strings.Cut(program, "\n```\n")
	const address = `WithAddress("127.0.0.1:9000")`
	if !strings.Contains(program, address) {
		t.Fatalf("the README's program does not have %s:\n%s", address, program)
	}
	directory := t.TempDir()
	socket := filepath.Join(directory, "s")
	source, binary := filepath.Join(directory, "main.go"), filepath.Join(directory, "hello")
	program = strings.Replace(program, address, `WithAddress("unix:`+socket+`")`, 1)
	if err := os.WriteFile(source, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, check := range [][]string{{"vet", source}, {"build", "-o", binary, source}} {
		cmd := exec.CommandContext(t.Context(), "go", check...)
		cmd.Dir = moduleRoot
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", check[0], err, out)
		}
	}

	var out strings.Builder
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	answers := askReadmeProgram(t, socket, ended)
	for _, answer := range answers {
		if !strings.Contains(shown, answer) {
			t.Errorf("README.md does not show %q behind the program", answer)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil || !strings.HasSuffix(out.String(), "mux: http: Server closed\n") {
		t.Errorf("after SIGTERM: %v, %q", err, out.String())
	}
}

// askReadmeProgram returns the answers of the README's program, in the order in which the
// README shows them. It waits for the server as long as that runs.
func askReadmeProgram(t *testing.T, socket string, ended <-chan error) []string {
	t.Helper()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	eventually(t, "the program listens", func() bool {
		select {
		case err := <-ended:
			t.Fatalf("the program has ended: %v", err)
		default:
		}
		conn, err := dial(t.Context(), "", "")
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	var answers []string
	clients := map[bool]*http.Client{}
	for _, http2 := range []bool{false, true} {
		transport := &http.Transport{DialContext: dial, Protocols: new(http.Protocols)}
		transport.Protocols.SetHTTP1(!http2)
		transport.Protocols.SetUnencryptedHTTP2(http2)
		t.Cleanup(transport.CloseIdleConnections)
		clients[http2] = &http.Client{Transport: transport}
		resp, err := clients[http2].Get("http://hello/hello")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		answers = append(answers, string(body))
	}

	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reply, err := demov1.NewEchoClient(conn).Unary(t.Context(), &demov1.EchoRequest{Message: "hello"})
	if err != nil {
		t.Fatal(err)
	}
	health, err := healthpb.NewHealthClient(conn).Check(t.Context(), new(healthpb.HealthCheckRequest))
	if err != nil || health.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", health, err)
	}

	ws, _, err := websocket.Dial(t.Context(), "ws://hello/ws", &websocket.DialOptions{HTTPClient: clients[false]})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	_, message, err := ws.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return append(answers, reply.GetMessage(), string(message))
}
