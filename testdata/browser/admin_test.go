package browser

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// loaded is how long the server is under load before the screenshot for the README is taken.
// The chart of the page covers five minutes.
var loaded = flag.Duration("loaded", 0, "how long the server of TestAdminPicture is under load first")

// open opens the admin page and waits until it shows the server's figures.
func open(ctx context.Context, t *testing.T, s *server, path string) {
	t.Helper()
	act(ctx, t, chromedp.Navigate(s.admin+path))
	until(ctx, t, shown)
}

// shown is the condition that the page shows figures of the server.
const shown = `document.getElementById("cards").childElementCount === 4 && document.querySelector("#configuration-table tbody tr") !== null`

// over is the condition that the page has the account of a drain.
const over = `document.getElementById("status").textContent === "last answer of this process"`

// TestAdminServing: the page shows all four protocols under load, in every width, in light
// and dark, without overflow and without a violation of the rules of accessibility.
func TestAdminServing(t *testing.T) {
	s, _ := startConfigured(t, "limits:\n  max_connections: 50\n")
	c := load(t, s.service, 6, 50*time.Millisecond)
	c.gibberish()
	ctx := newTab(t)
	look(ctx, t, 1280, 1000, light)
	open(ctx, t, s, "/")
	until(ctx, t, `["HTTP/1.1", "HTTP/2", "gRPC", "WebSocket"].every((p, i) => document.querySelectorAll("#cards .open b")[i].textContent === "6")`)
	until(ctx, t, `document.querySelectorAll("#live tbody tr").length === 10`)
	for what, want := range map[string]string{
		"#phase": "serving", "#status": "healthy", "#facts": "admin", "#listeners": "TLS", "#say": "healthy", "#hero": "limit 50",
		"#certificates-table": "localhost", "#configuration-table": "in force", "#drain-say": "would tell its clients", "#steps": "force-close",
		"#closed-table": "tls_handshake",
	} {
		if got := eval[string](ctx, t, fmt.Sprintf(`document.querySelector(%q).textContent`, what)); !strings.Contains(got, want) {
			t.Errorf("%s says %q, without %q", what, got, want)
		}
	}
	for _, width := range widths {
		for name, m := range map[string]media{"light": light, "dark": dark} {
			look(ctx, t, width, 1000, m)
			what := fmt.Sprintf("admin-serving-%d-%s", width, name)
			checkWidth(ctx, t, what)
			if name == "light" && width != 1600 || width == 1280 {
				checkAccess(ctx, t, what)
			}
			screenshot(ctx, t, what, true)
		}
	}
}

// TestAdminPicture takes the screenshot that the README shows, with -loaded 5m10s.
func TestAdminPicture(t *testing.T) {
	s, _ := startConfigured(t, "limits:\n  max_connections: 80\nhttp1:\n  max_connections: 30\nhttp2:\n  max_connections: 20\n"+
		"grpc:\n  max_connections: 20\nwebsocket:\n  max_connections: 24\n")
	c := newClients(t, s.service, 400*time.Millisecond)
	c.waves(*loaded + time.Second)
	ctx := newTab(t)
	look(ctx, t, 1280, 1120, light)
	open(ctx, t, s, "/")
	until(ctx, t, `Array.from(document.querySelectorAll("#cards .open b")).every((e) => e.textContent !== "0")`)
	screenshot(ctx, t, "admin", false)
}

// watchAdminDrain notes what the page says of a drain and of its steps, in its order.
const watchAdminDrain = `globalThis.heard = [];
new MutationObserver(() => heard.push(document.getElementById("announce").textContent))
  .observe(document.getElementById("announce"), { childList: true, characterData: true, subtree: true });
globalThis.current = new Set();
new MutationObserver(() => {
  const step = document.querySelector("#steps [aria-current]");
  if (step) current.add(step.querySelector("b").textContent);
}).observe(document.getElementById("steps"), { attributes: true, subtree: true });
true`

// TestAdminDrain: the page shows a drain from its beginning, which a button of the page
// makes, to its end, and keeps the last account when the process is gone: the steps, and who
// was cut.
func TestAdminDrain(t *testing.T) {
	s := start(t, "--drain-delay=4s", "--drain-spread=1s", "--drain-timeout=7s") // The WebSocket that stays is closed 5 s after it was told.
	load(t, s.service, 4, 50*time.Millisecond)
	stubborn(t, s.service, "")
	s.exit = 3 // Because of the one that is cut.
	ctx := newTab(t)
	look(ctx, t, 1280, 1000, dark)
	open(ctx, t, s, "/")
	until(ctx, t, `document.getElementById("live-count").textContent.includes("of 17")`)
	eval[bool](ctx, t, watchAdminDrain)
	act(ctx, t, chromedp.Click(chromedp.CSS("#do-drain")))
	until(ctx, t, `document.getElementById("ask").open`)
	press(ctx, t, "\t\r") // From Cancel to the button that does it.
	until(ctx, t, `document.getElementById("phase").textContent === "draining"`)
	until(ctx, t, `document.querySelector("main > section:not([hidden])").id === "drain"`)
	for _, width := range widths {
		look(ctx, t, width, 1000, light)
		checkWidth(ctx, t, fmt.Sprintf("draining at %d", width))
		screenshot(ctx, t, fmt.Sprintf("admin-draining-%d-light", width), false)
	}
	until(ctx, t, over)
	for what, want := range map[string]string{
		"#drain-say": "1 was cut when the time was up: 1 WebSocket. Exit code 3.", "#cutlist": "127.0.0.1:", "#gauges": "deadline was\n7.0 s",
		"#steps": "1 cut in", "#drain-note": "trace id", "#closed-table": "forced", "#status": "last answer of this process",
	} {
		if got := text(ctx, t, what); !strings.Contains(got, want) {
			t.Errorf("%s says %q, without %q", what, got, want)
		}
	}
	const red = `Array.from(document.querySelectorAll("#steps .cut b"), (e) => e.textContent).join(" ")`
	if got := eval[string](ctx, t, red); got != "wait-connections force-close" {
		t.Errorf("red are the steps %q", got)
	}
	if got := eval[int](ctx, t, "current.size"); got < 3 {
		t.Errorf("%d steps were shown as under way", got)
	}
	if heard := eval[string](ctx, t, `heard.join("\n")`); !strings.Contains(heard, "Drain, wait-connections") || !strings.Contains(heard, "1 was cut") {
		t.Errorf("the page has said %q", heard)
	}
	checkEverywhere(ctx, t, "admin-drained-with-cuts")
}

// checkEverywhere checks the page in all widths, in light and dark.
func checkEverywhere(ctx context.Context, t *testing.T, what string) {
	t.Helper()
	for _, width := range widths {
		m, name := light, "light"
		if width == 390 || width == 1280 {
			m, name = dark, "dark"
		}
		look(ctx, t, width, 1000, m)
		name = fmt.Sprintf("%s-%d-%s", what, width, name)
		checkWidth(ctx, t, name)
		if width == 768 || width == 1280 {
			checkAccess(ctx, t, name)
		}
		screenshot(ctx, t, name, true)
	}
}

// TestAdminCleanDrain: nothing of a drain that cuts nobody is red, and a process that comes
// to the same address is offered.
func TestAdminCleanDrain(t *testing.T) {
	s := start(t, "--drain-delay=500ms", "--drain-spread=500ms")
	load(t, s.service, 3, 50*time.Millisecond)
	ctx := newTab(t)
	look(ctx, t, 1280, 1000, light)
	open(ctx, t, s, "/")
	until(ctx, t, `document.getElementById("live-count").textContent.includes("of 12")`)
	s.drain(t)
	until(ctx, t, over)
	if got := text(ctx, t, "#drain-say"); !strings.Contains(got, "nothing was cut. Exit code 0.") {
		t.Errorf("the account is %q", got)
	}
	const red = `document.querySelectorAll("#drain .cut, #drain .bad, #drain .amiss, #drain .cutarea").length + Number(!document.getElementById("cutlist").hidden)`
	if got := eval[int](ctx, t, red); got != 0 {
		t.Errorf("%d elements are red", got)
	}
	screenshot(ctx, t, "admin-drained-1280-light", false)
	s.wait() // It holds its addresses for a moment after its account.
	next := start(t, "--admin="+strings.TrimPrefix(s.admin, "http://"))
	until(ctx, t, `document.getElementById("notice").innerText.includes("answers at this address now")`)
	act(ctx, t, chromedp.Click(chromedp.CSS("#notice-button")))
	until(ctx, t, fmt.Sprintf(`document.getElementById("facts").textContent.includes("pid%d") && document.getElementById("phase").textContent === "serving"`, next.process.Pid))
}

// TestAdminLost: the page says so when the server is gone, and goes on when it is back.
func TestAdminLost(t *testing.T) {
	s := start(t)
	s.exit = -1
	ctx := newTab(t)
	open(ctx, t, s, "/")
	if err := s.process.Kill(); err != nil {
		t.Fatal(err)
	}
	until(ctx, t, `document.getElementById("notice").innerText.includes("does not answer") && !document.getElementById("link").hidden && document.getElementById("do-drain").disabled`)
	screenshot(ctx, t, "admin-lost", false)
	s.wait()
	next := start(t, "--admin="+strings.TrimPrefix(s.admin, "http://"))
	until(ctx, t, fmt.Sprintf(`document.getElementById("facts").textContent.includes("pid%d") && document.getElementById("notice").hidden && !document.getElementById("do-drain").disabled`, next.process.Pid))
}

// TestAdminPolls: a page that gets no event stream, because there are too many, asks.
func TestAdminPolls(t *testing.T) {
	s := start(t)
	for range 16 {
		resp, err := http.Get(s.admin + "/events")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
	}
	ctx := newTab(t)
	open(ctx, t, s, "/")
	stubborn(t, s.service, "")
	until(ctx, t, `document.querySelectorAll("#cards .open b")[3].textContent === "1" && document.getElementById("notice").hidden`)
}
