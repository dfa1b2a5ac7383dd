package deploy

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// maxExposure is the bound for what "systemd-analyze security" says of the unit.
const maxExposure = 2.0

// unit returns the values of the unit's keys; a key may be there more than once.
func unit(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(recipes + "/muxserve.service")
	if err != nil {
		t.Fatal(err)
	}
	values := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			values[key] = append(values[key], value)
		}
	}
	return values
}

// TestUnitExposure asks systemd how much the unit may do.
func TestUnitExposure(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--no-pager", "--offline=true", recipes+"/muxserve.service").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	found := regexp.MustCompile(`Overall exposure level for muxserve.service: ([\d.]+)`).FindSubmatch(out)
	if found == nil {
		t.Fatalf("systemd-analyze names no exposure:\n%s", out)
	}
	exposure, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil || exposure >= maxExposure {
		t.Errorf("the exposure is %s, not below %v (%v)\n%s", found[1], maxExposure, err, out)
	}
}

// confinement is what the kernel is told about a process, as systemd would.
type confinement struct {
	Calls    []uint32 // system calls that are allowed
	Families []uint32 // address families of sockets that are allowed
}

// envConfined has the confinement, in JSON, for a process of this test that becomes
// another program.
const envConfined = "MUXSERVE_TEST_CONFINED"

// TestUnitRuns runs the binary as the unit does: with its command line, a socket, a
// credential, and the system's notifications, and under the unit's filters of system
// calls and address families. It is reloaded, upgraded and stopped, and never meets what
// it may not do.
func TestUnitRuns(t *testing.T) {
	_, dir := image(t)
	u := unit(t)
	credential, _, _ := strings.Cut(u["LoadCredential"][0], ":")
	const token = "s3cr3t-of-the-unit"
	credentials := t.TempDir()
	write(t, filepath.Join(credentials, credential), token+"\n")
	admin := freeAddress(t)
	place := strings.NewReplacer("%d", credentials, "127.0.0.1:8081", admin, "/usr/local/bin/muxserve", filepath.Join(dir, "muxserve"))
	command := strings.Fields(place.Replace(u["ExecStart"][0]))

	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File() //nolint:forcetypeassert // It is one.
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	service := "http://" + l.Addr().String()
	messages := listenNotify(t)

	limits, err := json.Marshal(confinementOf(t, u))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], command...) //nolint:gosec,noctx // start ends this test's own binary, which becomes muxserve.
	cmd.ExtraFiles = []*os.File{socket}
	cmd.Env = []string{
		envConfined + "=" + string(limits), "LISTEN_FDS=1", "LISTEN_FDNAMES=" + fileDescriptorName(t),
		"NOTIFY_SOCKET=" + messages.LocalAddr().String(), "PATH=" + os.Getenv("PATH"),
	}
	p := start(t, cmd, admin)
	waitNotify(t, messages, regexp.MustCompile(`READY=1`))
	if code, body := get(t, plain, service+"/echo", ""); code != http.StatusOK {
		t.Errorf("/echo: %d %s", code, body)
	}
	reload := func() {
		t.Helper()
		if code, _ := ask(t, plain, http.MethodPost, "http://"+admin+"/config/reload", ""); code != http.StatusUnauthorized {
			t.Errorf("a reload without the credential's token: %d", code)
		}
		code, body := ask(t, plain, http.MethodPost, "http://"+admin+"/config/reload", token)
		// The old process of an upgrade may have the connection, and drains by now.
		for end := time.Now().Add(patience); code == http.StatusConflict && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
			code, body = ask(t, plain, http.MethodPost, "http://"+admin+"/config/reload", token)
		}
		if code != http.StatusOK {
			t.Errorf("a reload: %d %s", code, body)
		}
	}
	reload()
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	waitNotify(t, messages, regexp.MustCompile(`RELOADING=1`))
	waitNotify(t, messages, regexp.MustCompile(`READY=1`))

	if err := p.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	main := waitNotify(t, messages, regexp.MustCompile(`MAINPID=(\d+)`))
	next, err := strconv.Atoi(main)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(next, syscall.SIGKILL) }()
	reload()
	if code, body := get(t, plain, service+"/echo", ""); code != http.StatusOK {
		t.Errorf("/echo of the new process: %d %s", code, body)
	}
	select {
	case <-p.ended:
	case <-time.After(patience):
		t.Fatal("the old process does not end")
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the old process ended with %s", p.cmd.ProcessState)
	}
	if err := syscall.Kill(next, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitNotify(t, messages, regexp.MustCompile(`STOPPING=1`))
	for line := range strings.Lines(p.log.String()) {
		if strings.Contains(line, "the server is draining") && strings.Contains(line, "configuration not reloaded") {
			continue // What reload met on the old process's connection.
		}
		for _, level := range []string{`"WARN"`, `"ERROR"`} {
			if strings.Contains(line, level) {
				t.Errorf("a line is %s: %s", level, line)
			}
		}
	}
}

// fileDescriptorName returns the name that the socket unit gives its socket.
func fileDescriptorName(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(recipes + "/muxserve.socket")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^FileDescriptorName=(.+)$`).FindSubmatch(text)
	if found == nil {
		t.Fatal("the socket has no name")
	}
	return string(found[1])
}

// listenNotify opens the socket of the service manager.
func listenNotify(t *testing.T) *net.UnixConn {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") // t.TempDir may be too long for a socket.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(dir, "s")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// waitNotify reads messages to the service manager until one matches, and returns the
// pattern's group, if it has one.
func waitNotify(t *testing.T, c *net.UnixConn, pattern *regexp.Regexp) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for buf := make([]byte, 4096); ; {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatalf("no message %s: %v", pattern, err)
		}
		if found := pattern.FindSubmatch(buf[:n]); found != nil {
			return string(found[len(found)-1])
		}
	}
}

// confinementOf returns what the unit's SystemCallFilter and RestrictAddressFamilies
// allow.
func confinementOf(t *testing.T, u map[string][]string) confinement {
	t.Helper()
	numbers := callNumbers(t)
	sets := callSets(t)
	allowed := map[uint32]bool{}
	for i, filter := range u["SystemCallFilter"] {
		names, denies := strings.CutPrefix(filter, "~")
		if denies == (i == 0) {
			t.Fatalf("SystemCallFilter=%s: the first allows, the others deny", filter)
		}
		for _, name := range strings.Fields(names) {
			for _, call := range expand(sets, name) {
				if number, known := numbers[call]; known { // Other architectures have other calls.
					allowed[number] = !denies
				}
			}
		}
	}
	maps.DeleteFunc(allowed, func(_ uint32, ok bool) bool { return !ok })
	families := map[string]uint32{"AF_INET": unix.AF_INET, "AF_INET6": unix.AF_INET6, "AF_UNIX": unix.AF_UNIX}
	c := confinement{Calls: slices.Sorted(maps.Keys(allowed))}
	for _, name := range strings.Fields(u["RestrictAddressFamilies"][0]) {
		family, known := families[name]
		if !known {
			t.Fatalf("unknown address family %s", name)
		}
		c.Families = append(c.Families, family)
	}
	if len(c.Calls) < 100 || len(c.Families) == 0 || u["SystemCallErrorNumber"][0] != "EPERM" {
		t.Fatalf("the unit's filter is not what this test takes it for: %+v", c)
	}
	return c
}

// callNumbers returns the numbers of this machine's system calls, from the C library's
// headers.
func callNumbers(t *testing.T) map[string]uint32 {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "gcc", "-E", "-dM", "-")
	cmd.Stdin = strings.NewReader("#include <asm/unistd.h>\n")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	numbers := map[string]uint32{}
	for _, found := range regexp.MustCompile(`(?m)^#define __NR_(\w+) (\d+)$`).FindAllStringSubmatch(string(out), -1) {
		number, err := strconv.ParseUint(found[2], 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		numbers[found[1]] = uint32(number)
	}
	return numbers
}

// callSets returns systemd's sets of system calls, by their names with the @.
func callSets(t *testing.T) map[string][]string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "syscall-filter", "--no-pager").Output()
	if err != nil {
		t.Fatal(err)
	}
	sets := map[string][]string{}
	var set string
	for line := range strings.Lines(string(out)) {
		switch word := strings.TrimSpace(line); {
		case strings.HasPrefix(line, "@"):
			set = word
		case word != "" && !strings.HasPrefix(word, "#") && set != "":
			sets[set] = append(sets[set], word)
		}
	}
	return sets
}

// expand returns the system calls of a set, or the only one that a name means.
func expand(sets map[string][]string, name string) []string {
	if !strings.HasPrefix(name, "@") {
		return []string{name}
	}
	var calls []string
	for _, member := range sets[name] {
		calls = append(calls, expand(sets, member)...)
	}
	return calls
}

// becomeConfined confines this process and replaces it by the program that its arguments
// name. It returns only when that fails.
func becomeConfined(limits string) error {
	var c confinement
	if err := json.Unmarshal([]byte(limits), &c); err != nil {
		return fmt.Errorf("confinement: %w", err)
	}
	// systemd names the process that the sockets are for. A program keeps its number.
	environ := append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, envConfined+"=") }),
		"LISTEN_PID="+strconv.Itoa(os.Getpid()))
	if err := c.apply(); err != nil {
		return fmt.Errorf("confinement: %w", err)
	}
	return errors.Join(errors.New("exec"), syscall.Exec(os.Args[1], os.Args[1:], environ))
}
