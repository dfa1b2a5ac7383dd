package deploy

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// guide is the page for operators, whose walk runs here.
const guide = "../../cmd/muxserve/OPERATING.md"

// block is a block of commands on the page, with what they print.
type block struct {
	line         int // of the page
	script, says string
}

// walkBlocks returns the blocks of the walk.
func walkBlocks(t *testing.T) (blocks []block) {
	t.Helper()
	page, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	before, walk, found := strings.Cut(string(page), "\n## A walk of a quarter of an hour\n")
	if !found {
		t.Fatal("the page has no walk")
	}
	walk, _, _ = strings.Cut(walk, "\n## ")
	first := strings.Count(before, "\n") + 3
	for _, at := range regexp.MustCompile("(?s)```(\\w*)\n(.*?)```\n").FindAllStringSubmatchIndex(walk, -1) {
		text := walk[at[4]:at[5]]
		switch kind := walk[at[2]:at[3]]; kind {
		case "sh":
			blocks = append(blocks, block{line: first + strings.Count(walk[:at[0]], "\n"), script: text})
		case "text":
			blocks[len(blocks)-1].says = text
		default:
			t.Errorf("a block of the walk is %q, neither sh nor text", kind)
		}
	}
	return blocks
}

// TestWalk pastes the blocks of the walk into one shell, as a reader does, and compares what
// they print with the page. Its ports and its home directory are other ones.
func TestWalk(t *testing.T) {
	if _, err := exec.LookPath("haproxy"); err != nil {
		t.Fatal(err) // ci.sh installs it.
	}
	blocks := walkBlocks(t)
	if len(blocks) < 12 {
		t.Fatalf("the walk has %d blocks", len(blocks))
	}
	var ports []string
	taken := make(map[string]bool)
	for _, port := range strings.Fields("8000 8080 8081 8082 8083 8404") {
		free := ""
		for free == "" || taken[free] { // The system may name a port twice.
			_, free, _ = strings.Cut(freeAddress(t), ":")
		}
		taken[free] = true
		ports = append(ports, port, free)
	}
	otherPorts := strings.NewReplacer(ports...)
	shell := newShell(t)
	for _, b := range blocks {
		said := shell.run(t, otherPorts.Replace(b.script))
		if want := otherPorts.Replace(b.says); !says(want, said) {
			t.Fatalf("%s:%d: the commands print\n%s\nand not\n%s", guide, b.line, said, want)
		}
	}
}

// says compares what was printed with a text in which an ellipsis stands for anything within
// a line. HAProxy may have had a failed check by then, of the three that take a server out.
func says(want, said string) bool {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(want)), "…", ".*")
	pattern = strings.ReplaceAll(pattern, ",UP", ",UP( [12]/3)?")
	return regexp.MustCompile("^" + pattern + "$").MatchString(strings.TrimSpace(said))
}

// TestWalkIsTheRecipe: what HAProxy's configuration in the walk says of the backend, and by
// default, is what the recipe says.
func TestWalkIsTheRecipe(t *testing.T) {
	recipe, err := os.ReadFile(recipes + "/haproxy.cfg")
	if err != nil {
		t.Fatal(err)
	}
	var walk strings.Builder
	for _, b := range walkBlocks(t) {
		walk.WriteString(b.script)
	}
	for line := range strings.Lines(string(recipe)) {
		statement := strings.TrimSpace(line)
		if statement == "" || strings.HasPrefix(statement, "#") || strings.HasPrefix(statement, "maxconn") {
			continue
		}
		if !strings.Contains(walk.String(), line) {
			t.Errorf("not in the walk: %s", statement)
		}
	}
}

// shell is a shell that runs one block after the other.
type shell struct {
	stdin io.Writer
	lines <-chan string
	dir   string
	runs  int
}

// newShell starts a shell in the root of the repository, with a home directory of its own.
// The end of the test kills what it has started.
func newShell(t *testing.T) *shell {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOCACHE", "GOMODCACHE", "GOPATH").Output()
	if err != nil {
		t.Fatal(err)
	}
	goEnv := strings.Fields(string(out))
	s := &shell{dir: t.TempDir()}
	cmd := exec.Command("bash", "--norc", "--noprofile") //nolint:noctx // The cleanup ends it, and what it has started.
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "GOCACHE="+goEnv[0], "GOMODCACHE="+goEnv[1], "GOPATH="+goEnv[2], "GOFLAGS=-buildvcs=false", "no_proxy=*")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if s.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string)
	s.lines = lines
	go func() {
		defer close(lines)
		for scan := bufio.NewScanner(stdout); scan.Scan(); {
			lines <- scan.Text()
		}
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		for range lines { // Until all who could write have ended.
		}
		_ = cmd.Wait() // It was killed.
	})
	return s
}

// run runs a block and returns what it prints.
func (s *shell) run(t *testing.T, script string) string {
	t.Helper()
	s.runs++
	file, end := filepath.Join(s.dir, fmt.Sprint(s.runs)), fmt.Sprintf("end of block %d", s.runs)
	write(t, file, script)
	// A person's shell does not read the next block as the input of a command.
	fmt.Fprintf(s.stdin, ". %s </dev/null\necho; echo %s\n", file, end)
	var said strings.Builder
	for deadline := time.After(4 * patience); ; {
		select {
		case line, ok := <-s.lines:
			switch {
			case !ok:
				t.Fatalf("the shell has ended in\n%s\nand said\n%s", script, said.String())
			case line == end:
				return said.String()
			}
			said.WriteString(line + "\n")
		case <-deadline:
			t.Fatalf("it does not end:\n%s\nand said\n%s", script, said.String())
		}
	}
}
