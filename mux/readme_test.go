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
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
	"github.com/muxserve/muxserve/mux"
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

// TestReadmeFigures: the README's table of costs has the rows of the benchmarks' tables, with
// the median alone, and what it says of a link is the least and the most of the table of links.
func TestReadmeFigures(t *testing.T) {
	t.Parallel()
	readme, bench := readPage(t, "README.md"), readPage(t, "testdata/bench/README.md")
	measured := func(section, columns string) map[string][]string {
		t.Helper()
		_, table, found := strings.Cut(pageSection(t, bench, section), columns+"\n")
		if !found {
			t.Fatalf("testdata/bench/README.md has no table %q", columns)
		}
		table, _, _ = strings.Cut(table, "\n\n")
		rows := make(map[string][]string)
		for _, cells := range tableRows(columns + "\n" + table) {
			for i := range cells {
				cells[i], _, _ = strings.Cut(cells[i], " (")
			}
			rows[cells[0]] = cells[1:]
		}
		return rows
	}
	costs := measured("What the mux costs", "| operation | direct | A/A | muxserve | direct, TLS | A/A, TLS | muxserve, TLS |")
	others := measured("Beside the other ways", "| operation | direct | A/A | muxserve | cmux's recipe | gRPC by ServeHTTP | HAProxy in front |")
	shown := pageSection(t, readme, "What it costs")
	if !strings.Contains(shown, "| operation | muxserve | muxserve, TLS | cmux's recipe | gRPC by ServeHTTP | HAProxy in front |\n") {
		t.Error("README.md's table has other columns")
	}
	rows := tableRows(shown)
	if len(rows) < 9 {
		t.Fatalf("README.md shows %d rows", len(rows))
	}
	for _, row := range rows {
		ours, other := costs[row[0]], others[row[0]]
		if ours == nil || other == nil {
			t.Errorf("testdata/bench/README.md has no such rows: %q", row[0])
			continue
		}
		if want := append([]string{row[0], ours[2], ours[5]}, other[3:]...); !slices.Equal(row, want) || other[2] != ours[2] {
			t.Errorf("%q, measured %q, and beside the other ways %s", row, want, other[2])
		}
	}
	var slower float64
	if _, err := fmt.Sscan(others["gRPC, unary"][4], &slower); err != nil {
		t.Fatal(err)
	}
	if words := fmt.Sprintf("ServeHTTP` takes %.1f times the processor time for a call", slower); !strings.Contains(readme, words) {
		t.Errorf("README.md does not say %q", words)
	}
	var links []string
	for _, cells := range measured("What the mux costs", "| transfer | direct | muxserve |") {
		links = append(links, cells[1])
	}
	if words := fmt.Sprintf("16 MB take %s to %s of its time", slices.Min(links), slices.Max(links)); !strings.Contains(shown, words) {
		t.Errorf("README.md does not say %q", words)
	}
}

// readmePrograms returns the programs that the README shows, the smallest one first, and what
// stands behind each.
func readmePrograms(t *testing.T) (programs, behind []string) {
	t.Helper()
	blocks := strings.Split(readPage(t, "README.md"), "\n```go\n")
	for _, block := range blocks[1:] {
		program, after, _ := strings.Cut(block, "\n```\n")
		programs, behind = append(programs, program), append(behind, after)
	}
	if len(programs) != 2 {
		t.Fatalf("README.md shows %d programs, want 2", len(programs))
	}
	return programs, behind
}

// readmeProcess is a program of the README that runs on a Unix socket.
type readmeProcess struct {
	*exec.Cmd
	socket string
	out    *strings.Builder // To be read when it has ended.
	ended  chan error
}

// startReadmeProgram compiles a program of the README and starts it.
func startReadmeProgram(t *testing.T, program string) *readmeProcess {
	t.Helper()
	const address = `WithAddress("127.0.0.1:9000")`
	if !strings.Contains(program, address) {
		t.Fatalf("the README's program does not have %s:\n%s", address, program)
	}
	directory := t.TempDir()
	p := &readmeProcess{socket: filepath.Join(directory, "s"), out: new(strings.Builder), ended: make(chan error, 1)}
	source, binary := filepath.Join(directory, "main.go"), filepath.Join(directory, "hello")
	program = strings.Replace(program, address, `WithAddress("unix:`+p.socket+`")`, 1)
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
	p.Cmd = exec.CommandContext(t.Context(), binary)
	p.Stdout = p.out
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.Wait() }()
	eventually(t, "the program listens", func() bool {
		select {
		case err := <-p.ended:
			t.Fatalf("the program has ended: %v", err)
		default:
		}
		conn, err := p.dial(t.Context(), "", "")
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return p
}

func (p *readmeProcess) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", p.socket)
}

// client returns a client of HTTP/1.1 or of h2c.
func (p *readmeProcess) client(t *testing.T, http2 bool) *http.Client {
	t.Helper()
	transport := &http.Transport{DialContext: p.dial, Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(!http2)
	transport.Protocols.SetUnencryptedHTTP2(http2)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// askHTTP returns the answers to a request over HTTP/1.1 and one over h2c.
func (p *readmeProcess) askHTTP(t *testing.T, path string) (answers []string) {
	t.Helper()
	for _, http2 := range []bool{false, true} {
		resp, err := p.client(t, http2).Get("http://hello" + path)
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
	return answers
}

// grpc returns a gRPC client, after it has asked for the program's health.
func (p *readmeProcess) grpc(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+p.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	health, err := healthpb.NewHealthClient(conn).Check(t.Context(), new(healthpb.HealthCheckRequest))
	if err != nil || health.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", health, err)
	}
	return conn
}

// TestReadmeSmallestProgram: the README's first program has few lines, and does what the
// README says of it.
func TestReadmeSmallestProgram(t *testing.T) {
	t.Parallel()
	programs, behind := readmePrograms(t)
	const lines = 15
	if n := strings.Count(programs[0], "\n") + 1; n > lines {
		t.Errorf("%d lines, want %d at most", n, lines)
	}
	p := startReadmeProgram(t, programs[0])
	for _, answer := range p.askHTTP(t, "/") {
		if !strings.Contains(behind[0], "`"+strings.TrimSpace(answer)+"`") {
			t.Errorf("README.md does not show %q behind the program", answer)
		}
	}
	if got, want := p.askHTTP(t, "/livez"), []string{"ok\n", "ok\n"}; !slices.Equal(got, want) {
		t.Errorf("/livez: %q, want %q", got, want)
	}
	p.grpc(t)
	if err := p.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := within(t, "the end of the program", p.ended); err == nil {
		t.Error("it drains at Ctrl-C, and the README says that it ends at once")
	}
}

// TestReadmeProgram compiles and runs the README's second program, with a client of each
// protocol, and sees it drain. What the README says it answers and prints, it does.
func TestReadmeProgram(t *testing.T) {
	t.Parallel()
	programs, behind := readmePrograms(t)
	shown := behind[1]
	p := startReadmeProgram(t, programs[1])
	answers := p.askHTTP(t, "/hello")
	reply, err := demov1.NewEchoClient(p.grpc(t)).Unary(t.Context(), &demov1.EchoRequest{Message: "hello"})
	if err != nil {
		t.Fatal(err)
	}
	ws, _, err := websocket.Dial(t.Context(), "ws://hello/ws", &websocket.DialOptions{HTTPClient: p.client(t, false)})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	_, message, err := ws.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const last = "mux: http: Server closed"
	for _, text := range append(answers, reply.GetMessage(), string(message), "`"+last+"`") {
		if !strings.Contains(shown, text) {
			t.Errorf("README.md does not show %q behind the program", text)
		}
	}
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := within(t, "the end of the program", p.ended); err != nil || !strings.HasSuffix(p.out.String(), last+"\n") {
		t.Errorf("after SIGTERM: %v, %q", err, p.out.String())
	}
}

// TestReadmeDrainTimes: the README says how long a drain takes by default.
func TestReadmeDrainTimes(t *testing.T) {
	t.Parallel()
	c := mux.DefaultConfig().Drain
	for _, want := range []string{
		fmt.Sprintf("serves for %.0f s more", c.Delay.Seconds()),
		fmt.Sprintf("over the next %.0f s", c.Spread.Seconds()),
		fmt.Sprintf("in flight %.0f s after the signal is cut", c.Timeout.Seconds()),
	} {
		if !strings.Contains(readPage(t, "README.md"), want) {
			t.Errorf("README.md does not say %q", want)
		}
	}
}
