package browser

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binary is the path of the muxserve under test.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run builds the binary and runs the tests.
func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "muxserve-browser-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	defer closeShared()
	binary = filepath.Join(dir, "muxserve")
	// The version stamp asks git about the checkout, whose owner may be another one here.
	build := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "./cmd/muxserve")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// server is a running muxserve.
type server struct {
	process        *os.Process
	wait           func() // until it has ended, and its addresses are free
	exit           int    // the code that it is to end with
	service, admin string // URLs without a path
	key            string // the hash of its certificate's key, as Chromium wants it
}

// start runs muxserve with a certificate of its own making, until the end of the
// test; then it must drain without cutting a connection, unless the test says otherwise.
func start(t *testing.T, args ...string) *server {
	t.Helper()
	cmd := exec.Command(binary, append([]string{
		"--tls=self-signed", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--drain-delay=0",
	}, args...)...)
	cmd.Stderr = t.Output()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &server{process: cmd.Process, wait: sync.OnceFunc(func() { _ = cmd.Wait() })}
	t.Cleanup(func() {
		// Harmless where the test has done so.
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if s.wait(); cmd.ProcessState.ExitCode() != s.exit {
			t.Errorf("muxserve ended with %v, want exit status %d", cmd.ProcessState, s.exit)
		}
	})
	for lines := bufio.NewScanner(stdout); s.admin == "" && lines.Scan(); {
		_, address, _ := strings.Cut(lines.Text(), " on ")
		switch {
		case strings.HasPrefix(lines.Text(), "muxserve: HTTP/1.1"):
			s.service = address
		case strings.HasPrefix(lines.Text(), "muxserve: admin pages"):
			s.admin = address
		}
	}
	if s.admin == "" {
		t.Fatal("muxserve does not say where it listens")
	}
	s.key = keyHash(t, s.service)
	return s
}

// drain tells it to leave.
func (s *server) drain(t *testing.T) {
	t.Helper()
	if err := s.process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

// keyHash returns the hash of the public key that a server shows.
func keyHash(t *testing.T, service string) string {
	t.Helper()
	u, err := url.Parse(service)
	if err != nil {
		t.Fatal(err)
	}
	// What it shows is what is to be trusted.
	conn, err := tls.Dial("tcp", u.Host, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sum := sha256.Sum256(conn.ConnectionState().PeerCertificates[0].RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// waitForConnections waits until the protocols have these numbers of connections:
// a browser may open one or two that it does not use.
func (s *server) waitForConnections(ctx context.Context, t *testing.T, want map[string]int) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		got := s.connections(t)
		if maps.Equal(got, want) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("connections %v, want %v", got, want)
		}
	}
}

// connections returns how many connections each protocol has.
func (s *server) connections(t *testing.T) map[string]int {
	t.Helper()
	resp, err := http.Get(s.admin + "/connections")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Connections []struct {
			Protocol string `json:"protocol"`
		} `json:"connections"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	counts := make(map[string]int)
	for _, c := range answer.Connections {
		counts[c.Protocol]++
	}
	return counts
}
