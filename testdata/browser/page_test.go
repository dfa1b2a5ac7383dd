package browser

import (
	"context"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// patience bounds all that a page does in a test; on an idle machine it needs a tenth of it.
const patience = 2 * time.Minute

// chromium starts a browser with a fresh profile that trusts the one key, until
// the end of the test.
func chromium(t *testing.T, key string) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, append(options(t.TempDir()), chromedp.Flag("ignore-certificate-errors-spki-list", key))...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx, chromedp.WithErrorf(t.Logf))
	t.Cleanup(cancel)
	return ctx
}

// options are those of every browser; dir has its profile.
func options(dir string) []chromedp.ExecAllocatorOption {
	return []chromedp.ExecAllocatorOption{
		chromedp.ExecPath("chromium"), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.UserDataDir(dir),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-sync", true),
	}
}

// eval evaluates an expression in the page, and waits for what it promises.
func eval[T any](ctx context.Context, t *testing.T, expression string) T {
	t.Helper()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// openSocket opens a WebSocket, has a message echoed and leaves the socket open.
const openSocket = `new Promise((resolve, reject) => {
  globalThis.held = new WebSocket("wss://" + location.host + "/ws");
  held.onopen = () => held.send("held");
  held.onmessage = ({ data }) => resolve(data);
  held.onclose = ({ code }) => reject(new Error("closed with " + code));
})`

// watchSocket begins to wait for its end, and socketEnd resolves to the code of its close frame.
const (
	watchSocket = `(globalThis.end = new Promise((resolve) => { held.onclose = ({ code }) => resolve(code); })) && true`
	socketEnd   = `end`
)

// finished is there when the page has tried all it can.
const finished = `#results[data-done="true"]`

// pageProtocol is what the page says about itself.
const pageProtocol = `document.getElementById("page-protocol").textContent`

// rows are the results of the page's own tries: name, state, what was measured, what the server said.
const rows = `Array.from(document.querySelectorAll("#results tr"), (row) =>
  [row.dataset.state, ...Array.from(row.cells, (cell) => cell.textContent)])`

// TestPage: the demo page comes over HTTP/2 and all of its tries succeed; its
// WebSockets have a connection of their own, or none where they go over HTTP/2. When the
// server drains, the browser is told and nothing is cut.
func TestPage(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want map[string]int
	}{
		{"WebSocket over HTTP/1.1", []string{"--drain-spread=0"}, map[string]int{"http2": 1, "websocket": 1}},
		{"WebSocket over HTTP/2", []string{"--drain-spread=0", "--http2-websocket"}, map[string]int{"http2": 1}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, test.args...)
			ctx := chromium(t, s.key)
			if err := chromedp.Do(ctx, chromedp.Navigate(s.service+"/"), chromedp.WaitReady(finished)); err != nil {
				t.Fatal(err)
			}
			if got := eval[string](ctx, t, pageProtocol); got != "HTTP/2" {
				t.Errorf("the page came over %q", got)
			}
			results := eval[[][]string](ctx, t, rows)
			for _, row := range results {
				t.Logf("%q", row)
				if row[0] != "good" {
					t.Errorf("failed: %q", row)
				}
			}
			if len(results) == 0 {
				t.Error("the page has tried nothing")
			}
			if got := eval[string](ctx, t, openSocket); got != "held" {
				t.Errorf("the WebSocket echoed %q", got)
			}
			s.waitForConnections(ctx, t, test.want)
			eval[bool](ctx, t, watchSocket)
			s.drain(t)
			if got := eval[int](ctx, t, socketEnd); got != 1001 {
				t.Errorf("the drain closed the WebSocket with %d", got)
			}
		})
	}
}
