package browser

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// openDemo opens the demo page and waits for its tries.
func openDemo(ctx context.Context, t *testing.T, service string) {
	t.Helper()
	if err := chromedp.Do(ctx, chromedp.Navigate(service+"/"), chromedp.WaitReady(finished)); err != nil {
		t.Fatal(err)
	}
}

// Expressions of the page.
const (
	click      = `document.getElementById(%q).click(), true`
	hasText    = `document.getElementById(%q).textContent.includes(%q)`
	pillIs     = `document.getElementById(%q + "-pill").textContent === %q`
	hasCounted = `Number(document.getElementById(%q + "-count").textContent) >= %d`
	stepDone   = `document.querySelector('[data-step="%s"]').className === "done"`
	demoLog    = `Array.from(document.querySelectorAll("#log li"), (item) => item.textContent)`
)

// lives are what the page opens again when it ends.
var lives = []string{"events", "stream", "socket"}

// openAll opens all four and waits until messages come.
func openAll(ctx context.Context, t *testing.T) {
	t.Helper()
	// The request is looked at before the browser can have its answer.
	if !eval[bool](ctx, t, fmt.Sprintf(click+", "+pillIs, "open-all", "request", "under way")) {
		t.Error("no request is under way")
	}
	for _, live := range lives {
		until(ctx, t, fmt.Sprintf(pillIs, live, "connected"))
	}
	sendBoth(ctx, t)
	for _, live := range lives {
		until(ctx, t, fmt.Sprintf(hasCounted, live, 1))
	}
}

// sendBoth sends what is in the fields of the WebSocket, by the keyboard, and of gRPC.
func sendBoth(ctx context.Context, t *testing.T) {
	t.Helper()
	if err := chromedp.Do(ctx, chromedp.SendKeys("#message", "\r")); err != nil {
		t.Fatal(err)
	}
	eval[bool](ctx, t, fmt.Sprintf(click, "unary"))
}

// demoHeight is that of the window, in which the README shows the page.
const demoHeight = 900

// checkDemo checks how the page looks in every width and colour scheme, and keeps pictures
// of it.
func checkDemo(ctx context.Context, t *testing.T, state string) {
	t.Helper()
	for _, width := range widths {
		for scheme, m := range map[string]media{"light": light, "dark": dark} {
			look(ctx, t, width, demoHeight, m)
			what := fmt.Sprintf("demo-%s-%d-%s", state, width, scheme)
			checkWidth(ctx, t, what)
			if width > 1280 || width == 768 && scheme == "dark" {
				continue // Nothing is arranged in another way, and nothing has other colours.
			}
			checkAccess(ctx, t, what)
			screenshot(ctx, t, what, true)
		}
	}
}

// TestDemoAppearance: the page fits into every window and has no fault that axe-core
// finds, whatever messages it shows.
func TestDemoAppearance(t *testing.T) {
	s := start(t, "--drain-spread=0")
	ctx := chromium(t, s.key)
	look(ctx, t, 390, demoHeight, light)
	openDemo(ctx, t, s.service)
	checkWidth(ctx, t, "demo")
	checkAccess(ctx, t, "demo")
	eval[bool](ctx, t, `document.getElementById("seconds").value = "5", true`)
	openAll(ctx, t)
	look(ctx, t, 1280, demoHeight, light)
	eval[bool](ctx, t, `document.activeElement.blur(), scrollTo(0, 0), true`)
	screenshot(ctx, t, "demo", false)
	checkDemo(ctx, t, "open")

	// What comes from the server is text, and breaks where the window ends.
	look(ctx, t, 390, demoHeight, light)
	message := `<img src=x onerror="document.title='run'">` + strings.Repeat("w", 200)
	eval[bool](ctx, t, fmt.Sprintf(`document.getElementById("message").value = %q, true`, message))
	eval[bool](ctx, t, fmt.Sprintf(`document.getElementById("stream-message").value = %q, true`, message))
	sendBoth(ctx, t)
	for _, live := range []string{"stream", "socket"} {
		until(ctx, t, fmt.Sprintf(hasText, live+"-lines", message))
	}
	checkWidth(ctx, t, "demo")
	if n := eval[int](ctx, t, `document.querySelectorAll("img").length`); n != 0 {
		t.Errorf("%d messages became markup", n)
	}

	eval[bool](ctx, t, fmt.Sprintf(click, "close-all"))
	for _, live := range lives {
		until(ctx, t, fmt.Sprintf(pillIs, live, "closed"))
	}
	// The request, which nothing closes, ends by itself in the drain.
}

// TestDemoDrain: the page shows a drain from its start to its end. What is open is told
// in the words of its protocol, the request under way is answered, and the server exits
// with 0. start sees to that.
func TestDemoDrain(t *testing.T) {
	// The page asks for the readiness twice a second, and a busy machine lets it wait.
	s := start(t, "--drain-delay=4s", "--drain-spread=500ms")
	ctx := chromium(t, s.key)
	look(ctx, t, 1280, demoHeight, light)
	openDemo(ctx, t, s.service)
	watchDrain(ctx, t, func() { s.drain(t) })
	for _, step := range []string{"unready", "told", "closed", "finished"} {
		if got := eval[string](ctx, t, fmt.Sprintf(`document.querySelector('[data-step="%s"] em').textContent`, step)); !strings.HasSuffix(got, " s") {
			t.Errorf("the step %s says %q", step, got)
		}
	}
	checkDemo(ctx, t, "drained")
}

// watchDrain opens all four, has the server drain, and checks what the page shows of it.
func watchDrain(ctx context.Context, t *testing.T, drain func()) {
	t.Helper()
	eval[bool](ctx, t, `document.getElementById("seconds").value = "7", true`)
	openAll(ctx, t)
	drain()
	for _, step := range []string{"unready", "told", "closed", "finished"} {
		until(ctx, t, fmt.Sprintf(stepDone, step))
	}
	lines := eval[[]string](ctx, t, demoLog)
	t.Log(strings.Join(lines, "\n"))
	told := map[string]string{
		"Event stream: told to leave: ": "event leave",
		"gRPC stream: told to leave: ":  "UNAVAILABLE: the connection is to leave",
		"WebSocket: told to leave: ":    "closed with 1001",
		"Slow request: GET answered ":   "200 after 7 s",
	}
	for _, line := range lines {
		for beginning, rest := range told {
			if strings.Contains(line, beginning+rest) {
				delete(told, beginning)
			}
		}
		if strings.Contains(line, "cut: ") || strings.Contains(line, "failed") {
			t.Errorf("the page says %q", line)
		}
	}
	for beginning, rest := range told {
		t.Errorf("the page does not say %q", beginning+rest)
	}
}

// TestDemoReturn: after a drain the page connects to the next server by itself, and says it
// when that one is killed. It is in plaintext, so that all is on connections of HTTP/1.1.
func TestDemoReturn(t *testing.T) {
	first := startPlain(t, "127.0.0.1:0")
	ctx := chromium(t, "")
	openDemo(ctx, t, first.service)
	if got := eval[string](ctx, t, pageProtocol); got != "HTTP/1.1" {
		t.Errorf("the page came over %q", got)
	}
	watchDrain(ctx, t, func() { first.stop(t) })
	second := startPlain(t, strings.TrimPrefix(first.service, "http://"))
	until(ctx, t, fmt.Sprintf(stepDone, "back"))
	for _, live := range lives {
		until(ctx, t, fmt.Sprintf(pillIs, live, "connected"))
		until(ctx, t, fmt.Sprintf(hasText, live+"-last", "Connected again at try"))
	}
	until(ctx, t, fmt.Sprintf(hasText, "server", "ready"))
	// What ends without a word is another thing than a drain.
	second.stopped = true
	if err := second.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, live := range lives {
		until(ctx, t, fmt.Sprintf(hasText, live+"-last", "Cut: "))
	}
	if err := second.cmd.Wait(); err == nil {
		t.Error("muxserve ended well although it was killed")
	}
}

// TestDemoUpgrade: where a new process takes over the port, the page is told by the old one
// and connects to the new one without seeing the port closed.
func TestDemoUpgrade(t *testing.T) {
	old := startPlain(t, "127.0.0.1:0")
	ctx := chromium(t, "")
	openDemo(ctx, t, old.service)
	eval[bool](ctx, t, `document.getElementById("seconds").value = "1", true`)
	openAll(ctx, t)
	old.stopped = true // It ends by itself, without a cut.
	if err := old.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	if err := old.cmd.Wait(); err != nil {
		t.Errorf("the old process ended with %v", err)
	}
	endUpgraded(t, old)
	until(ctx, t, fmt.Sprintf(stepDone, "back"))
	for _, live := range lives {
		until(ctx, t, fmt.Sprintf(pillIs, live, "connected"))
		until(ctx, t, fmt.Sprintf(hasText, live+"-last", "Connected again"))
	}
	lines := eval[[]string](ctx, t, demoLog)
	t.Log(strings.Join(lines, "\n"))
	for _, line := range lines {
		if strings.Contains(line, "cut: ") || strings.Contains(line, "failed") || strings.Contains(line, "port closed") {
			t.Errorf("the page says %q", line)
		}
	}
	if got := eval[string](ctx, t, `document.getElementById("drain-state").textContent`); got != "over" {
		t.Errorf("the drain is %s", got)
	}
}

// endUpgraded ends the process that has taken over from s, at the end of the test.
func endUpgraded(t *testing.T, s *plain) {
	t.Helper()
	named := regexp.MustCompile(`"new_pid":(\d+)`).FindStringSubmatch(s.logged(t))
	if named == nil {
		t.Fatal("the log does not name the new process")
	}
	pid, _ := strconv.Atoi(named[1]) // It is a number.
	t.Cleanup(func() {
		// It is no child of this process. Where nothing reaps it, its id stays.
		end := time.Now().Add(time.Minute)
		for signal := syscall.SIGTERM; syscall.Kill(pid, signal) == nil && time.Now().Before(end); signal = 0 {
			time.Sleep(20 * time.Millisecond)
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
	})
}

// plain is a running muxserve without TLS.
type plain struct {
	cmd     *exec.Cmd
	log     string // a file, which a process that takes over writes on
	service string
	stopped bool
}

// startPlain runs muxserve on an address, until the end of the test at the latest.
func startPlain(t *testing.T, address string) *plain {
	t.Helper()
	s := &plain{cmd: exec.Command(binary, "--listen="+address, "--admin=off", "--drain-delay=1s", "--drain-spread=500ms")}
	s.log = filepath.Join(t.TempDir(), "log")
	log, err := os.Create(s.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s.cmd.Stderr = log
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.stop(t)
		t.Log(s.logged(t))
	})
	for lines := bufio.NewScanner(stdout); s.service == "" && lines.Scan(); {
		_, s.service, _ = strings.Cut(lines.Text(), " on ")
	}
	if s.service == "" {
		t.Fatal("muxserve does not say where it listens")
	}
	return s
}

func (s *plain) logged(t *testing.T) string {
	t.Helper()
	log, err := os.ReadFile(s.log)
	if err != nil {
		t.Error(err)
	}
	return string(log)
}

// stop drains the server and waits for its end, once.
func (s *plain) stop(t *testing.T) {
	t.Helper()
	if s.stopped {
		return
	}
	s.stopped = true
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("muxserve ended with %v", err)
	}
}
