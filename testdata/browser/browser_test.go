package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// widths are those of a phone, a tablet, a laptop and a large screen.
var widths = []int64{390, 768, 1280, 1600}

// shared is the browser of all tests that need no certificate. Each has a tab of its own.
var shared struct {
	once  sync.Once
	ctx   context.Context
	close func()
	err   error
}

// closeShared ends the shared browser.
func closeShared() {
	if shared.close != nil {
		shared.close()
	}
}

// newTab opens a tab of the shared browser until the end of the test.
func newTab(t *testing.T) context.Context {
	t.Helper()
	shared.once.Do(func() {
		dir, err := os.MkdirTemp("", "muxserve-chromium-")
		if err != nil {
			shared.err = err
			return
		}
		allocator, cancelAllocator := chromedp.NewExecAllocator(context.Background(), options(dir)...)
		ctx, cancel := chromedp.NewContext(allocator)
		shared.ctx = ctx
		shared.close = func() { cancel(); cancelAllocator(); os.RemoveAll(dir) }
		shared.err = chromedp.Do(ctx)
	})
	if shared.err != nil {
		t.Fatalf("these tests need Chromium (Debian: apt install chromium): %v", shared.err)
	}
	tab, cancel := chromedp.NewContext(shared.ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(tab); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(tab, patience)
	t.Cleanup(cancel)
	before(ctx, t, `globalThis.faults = []; addEventListener("error", (e) => faults.push(e.message));
addEventListener("unhandledrejection", (e) => faults.push(String(e.reason)));
addEventListener("securitypolicyviolation", (e) => faults.push(e.violatedDirective + " " + e.blockedURI));`)
	t.Cleanup(func() {
		for _, fault := range eval[[]string](ctx, t, `globalThis.faults ?? []`) {
			t.Errorf("the page failed: %s", fault)
		}
	})
	return ctx
}

// before has a script run in each document before the document's own.
func before(ctx context.Context, t *testing.T, script string) {
	t.Helper()
	act(ctx, t, chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: script})
		return err
	}))
}

// media are features of the user's screen and settings.
type media map[string]string

var (
	light = media{"prefers-color-scheme": "light"}
	dark  = media{"prefers-color-scheme": "dark"}
)

// look sets the size of the window and the media features.
func look(ctx context.Context, t *testing.T, width, height int64, m media) {
	t.Helper()
	var features []*emulation.MediaFeature
	for name, value := range m {
		features = append(features, &emulation.MediaFeature{Name: name, Value: value})
	}
	act(ctx, t, chromedp.EmulateViewport(width, height), chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features})
		return err
	}))
	// A frame has the new layout, which the page notices, and draws in the next one.
	eval[bool](ctx, t, `new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(() => done(true)))))`)
}

// act performs actions.
func act(ctx context.Context, t *testing.T, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(ctx, actions...); err != nil {
		t.Fatal(err)
	}
}

// press presses keys.
func press(ctx context.Context, t *testing.T, keys string) {
	t.Helper()
	act(ctx, t, chromedp.KeyEvent(keys))
}

// until waits until a condition of the page is true. The page's policy forbids the way in
// which chromedp polls.
func until(ctx context.Context, t *testing.T, condition string) {
	t.Helper()
	for {
		v, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+condition+")"))
		if err == nil && v {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("it has not come to %s (%v)", condition, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// text returns the text of the elements that a selector finds, as it is seen.
func text(ctx context.Context, t *testing.T, selector string) string {
	t.Helper()
	return eval[string](ctx, t, fmt.Sprintf(`Array.from(document.querySelectorAll(%q), (e) => e.innerText).join("\n")`, selector))
}

// checkWidth reports what makes the page wider than its window, or stands out of its panel.
func checkWidth(ctx context.Context, t *testing.T, what string) {
	t.Helper()
	const tooWide = `(() => {
  const name = (e) => e.tagName + "#" + e.id + "." + e.getAttribute("class") + " " + e.textContent.slice(0, 40);
  const right = (e) => e.getBoundingClientRect().right, edge = (e) => right(e.closest(".panel") ?? document.documentElement);
  const wide = Array.from(document.querySelectorAll("body *")).filter((e) => e.checkVisibility() && !e.closest(".sr, svg, .tip, dialog") && right(e) > Math.min(innerWidth, edge(e)) + 0.5);
  const { scrollWidth } = document.documentElement;
  return scrollWidth > innerWidth || wide.length ? scrollWidth + " px: " + wide.slice(-6).map(name).join(" | ") : "";
})()`
	if got := eval[string](ctx, t, tooWide); got != "" {
		t.Errorf("%s is too wide: %s", what, got)
	}
}

// axe returns the rules of accessibility.
var axe = sync.OnceValues(func() (string, error) {
	script, err := os.ReadFile(filepath.Join("node_modules", "axe-core", "axe.min.js"))
	return string(script), err
})

// checkAccess has axe-core look for violations of WCAG 2.2 and of good practice.
func checkAccess(ctx context.Context, t *testing.T, what string) {
	t.Helper()
	script, err := axe()
	if err != nil {
		t.Fatalf("npm ci installs what this needs: %v", err)
	}
	eval[bool](ctx, t, `globalThis.axe !== undefined || (() => { `+script+` })() === undefined`)
	const violations = `axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => violations.map(({ id, help, nodes }) =>
  id + " (" + help + "): " + nodes.slice(0, 4).map((n) => n.html.slice(0, 160) + " " + n.failureSummary.split("\n").slice(1, 3).join(" ")).join(" | ")))`
	for _, v := range eval[[]string](ctx, t, violations) {
		t.Errorf("%s: %s", what, v)
	}
}

// screenshot saves what is seen, or the whole page, for people: in $MUXSERVE_SCREENSHOTS, or
// else in a directory of temporary files.
func screenshot(ctx context.Context, t *testing.T, name string, whole bool) {
	t.Helper()
	dir := os.Getenv("MUXSERVE_SCREENSHOTS")
	if dir == "" {
		dir = filepath.Join(os.TempDir(), "muxserve-screenshots")
	}
	take := chromedp.CaptureScreenshot()
	if whole {
		take = chromedp.FullScreenshot(100)
	}
	image, err := chromedp.Run(ctx, take)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), image, 0o600); err != nil {
		t.Fatal(err)
	}
}

// quote returns a text as a literal of JavaScript.
func quote(text string) string {
	literal, _ := json.Marshal(text) // A string has a form in JSON.
	return strings.ReplaceAll(string(literal), "</", `<\/`)
}
