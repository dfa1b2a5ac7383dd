package browser

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// demoHeight is that of the window, in which the README shows the page.
const demoHeight = 900

// lookAtDemo gives the page's window a width and a colour scheme, light or dark.
func lookAtDemo(ctx context.Context, t *testing.T, width int64, scheme string) {
	t.Helper()
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}
	err := chromedp.Do(ctx, chromedp.EmulateViewport(width, demoHeight), chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, media)
		return err
	}))
	if err != nil {
		t.Fatal(err)
	}
}

// checkDemoFits checks that the page is no wider than its window.
func checkDemoFits(ctx context.Context, t *testing.T) {
	t.Helper()
	const wider = `Array.from(document.querySelectorAll("body *")).filter((e) => e.getBoundingClientRect().right > innerWidth)
		.map((e) => e.tagName + "#" + e.id + "." + e.className + " " + e.textContent.slice(0, 40))`
	if width, window := eval[int](ctx, t, `document.documentElement.scrollWidth`), eval[int](ctx, t, `innerWidth`); width > window {
		t.Errorf("the page is %d px wide in a window of %d px:\n%s", width, window, strings.Join(eval[[]string](ctx, t, wider), "\n"))
	}
}

// checkDemoAccess has axe-core look for violations of WCAG and of good practice. Contrasts,
// which it measures, depend on the colour scheme.
func checkDemoAccess(ctx context.Context, t *testing.T) {
	t.Helper()
	axe, err := os.ReadFile(filepath.Join("node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		t.Fatalf("npm ci installs what this needs: %v", err)
	}
	const run = `axe.run().then(({ violations, passes }) => [passes.length + " rules hold", ...violations.flatMap(({ id, help, nodes }) =>
		nodes.map((node) => id + ": " + help + ": " + node.html + ": " + node.failureSummary))])`
	if !eval[bool](ctx, t, `globalThis.axe !== undefined`) {
		eval[bool](ctx, t, string(axe)+"; true")
	}
	found := eval[[]string](ctx, t, run)
	if found[0] == "0 rules hold" {
		t.Error("axe-core has checked nothing")
	}
	if len(found) > 1 {
		t.Errorf("axe-core: %s", strings.Join(found[1:], "\n\n"))
	}
}

// checkDemo checks how the page looks in every width and colour scheme, and keeps pictures
// of it for people, in $MUXSERVE_SCREENSHOTS or else in a directory of temporary files.
func checkDemo(ctx context.Context, t *testing.T, state string) {
	t.Helper()
	for _, width := range []int64{390, 768, 1280, 1600} {
		for _, scheme := range []string{"light", "dark"} {
			lookAtDemo(ctx, t, width, scheme)
			checkDemoFits(ctx, t)
			if width > 1280 || width == 768 && scheme == "dark" {
				continue // Nothing is arranged in another way, and nothing has other colours.
			}
			checkDemoAccess(ctx, t)
			keepPicture(ctx, t, fmt.Sprintf("demo-%s-%d-%s", state, width, scheme), chromedp.FullScreenshot(100))
		}
	}
}

func keepPicture(ctx context.Context, t *testing.T, name string, take chromedp.Action[[]byte]) {
	t.Helper()
	dir := os.Getenv("MUXSERVE_SCREENSHOTS")
	if dir == "" {
		dir = filepath.Join(os.TempDir(), "muxserve-screenshots")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	picture, err := chromedp.Run(ctx, take)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o600); err != nil {
		t.Fatal(err)
	}
}

// awaitDemo waits until an expression is true in the page. The page's policy forbids the
// way in which chromedp polls.
func awaitDemo(ctx context.Context, t *testing.T, expression string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool](expression))
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("it never comes to this: %s (%v)", expression, err)
		}
	}
}
