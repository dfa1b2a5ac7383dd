package browser

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// writeConfig writes a configuration file for muxserve.
func writeConfig(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// startConfigured runs muxserve with a configuration file, whose name it returns.
func startConfigured(t *testing.T, content string) (s *server, name string) {
	t.Helper()
	name = filepath.Join(t.TempDir(), "muxserve.yaml")
	writeConfig(t, name, content)
	return start(t, "--config="+name), name
}

// where names the element that has the focus, and says how its focus is seen.
const where = `(() => {
  const e = document.activeElement, seen = e.matches(".seg input") ? e.nextElementSibling : e, style = getComputedStyle(seen);
  const name = e === document.body ? "body" : e.id || e.name || e.getAttribute("href") || e.dataset.sort || e.getAttribute("aria-label") || e.className || e.tagName;
  return [name, style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0 ? "" : "not seen"];
})()`

// TestAdminKeyboard: every control is reached by the Tab key, its focus is seen, and the
// controls work by keys alone.
func TestAdminKeyboard(t *testing.T) {
	s := start(t)
	load(t, s.service, 3, 50*time.Millisecond)
	ctx := newTab(t)
	look(ctx, t, 1280, 1000, light)
	open(ctx, t, s, "/")
	until(ctx, t, `document.querySelectorAll("#live tbody tr").length === 10`)
	act(ctx, t, chromedp.Click(chromedp.CSS("#pause"))) // So that the page is the same all the time.
	until(ctx, t, `document.getElementById("pause").getAttribute("aria-pressed") === "true"`)
	eval[bool](ctx, t, `(document.querySelector(".skip").focus({ focusVisible: true }), true)`)
	var reached []string
	for range 80 {
		at := eval[[]string](ctx, t, where)
		if at[0] == "body" {
			break
		}
		if at[1] != "" {
			t.Errorf("the focus of %q is %s", at[0], at[1])
		}
		reached = append(reached, at[0])
		press(ctx, t, kb.Tab)
	}
	const controls = `Array.from(document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']"))
  .filter((e) => !e.disabled && e.checkVisibility() && !e.closest("dialog") && !(e.type === "radio" && !e.checked))
  .map((e) => e.id || e.name || e.getAttribute("href") || e.dataset.sort || e.getAttribute("aria-label") || e.className || e.tagName)`
	for _, want := range eval[[]string](ctx, t, controls) {
		if !slices.Contains(reached, want) {
			t.Errorf("%q is not reached by the Tab key: %q", want, reached)
		}
	}
	press(ctx, t, kb.Escape)
	act(ctx, t, chromedp.Click(chromedp.CSS("#pause")))

	focus := func(selector string) {
		t.Helper()
		eval[bool](ctx, t, fmt.Sprintf(`(document.querySelector(%q).focus(), true)`, selector))
	}
	focus("#reader")
	press(ctx, t, kb.Home)
	until(ctx, t, `/ago: .* open/.test(document.getElementById("reader").getAttribute("aria-valuetext"))`)
	press(ctx, t, kb.Escape)
	until(ctx, t, `document.getElementById("reader").getAttribute("aria-valuetext") === "now"`)
	focus(`input[name="protocol"]`)
	press(ctx, t, kb.ArrowRight+kb.ArrowRight+kb.ArrowRight) // gRPC
	until(ctx, t, `Array.from(document.querySelectorAll("#live tbody .proto"), (e) => e.textContent).join() === "gRPC,gRPC,gRPC"`)
	until(ctx, t, `document.getElementById("announce").textContent === "Showing 3 of 3 that match"`)
	press(ctx, t, kb.ArrowLeft+kb.ArrowLeft+kb.ArrowLeft)
	focus("#peer")
	press(ctx, t, "10.2.")
	until(ctx, t, `document.getElementById("live-count").textContent === "none matches"`)
	press(ctx, t, kb.Backspace+kb.Backspace+kb.Backspace+kb.Backspace+kb.Backspace+"127.")
	until(ctx, t, `document.getElementById("live-count").textContent === "10 of 12 that match"`)
	press(ctx, t, "x")
	until(ctx, t, `document.getElementById("peer-fault").textContent.includes("is not an address")`)
	press(ctx, t, kb.Backspace)
	until(ctx, t, `document.getElementById("peer-fault").textContent === ""`)
	focus(`#live thead [data-sort="age"]`)
	press(ctx, t, kb.Enter)
	until(ctx, t, `document.querySelector("#live thead [aria-sort]").textContent === "Age"`)
	focus("#more-live")
	press(ctx, t, kb.Enter)
	until(ctx, t, `document.getElementById("live-count").textContent === "12 of 12 that match"`)

	// A connection is closed by the dialog, which gives the focus back.
	focus("#live tbody .act button")
	press(ctx, t, kb.Enter)
	until(ctx, t, `document.getElementById("ask").open`)
	press(ctx, t, kb.Escape)
	until(ctx, t, `!document.getElementById("ask").open && document.activeElement.matches("#live .act button")`)
	press(ctx, t, kb.Enter)
	until(ctx, t, `document.getElementById("ask").open`)
	press(ctx, t, kb.Tab+kb.Enter)
	until(ctx, t, `!document.getElementById("ask").open && document.getElementById("toast").textContent.includes("was told to leave")`)
	until(ctx, t, `document.getElementById("closed-table").textContent.includes("disconnected")`)
}

// TestAdminRollback: a reload that fails stands in the history with its fault as text, an
// earlier version is put in force by a button, and the token is asked for once.
func TestAdminRollback(t *testing.T) {
	const token, base = "the-token-of-this-test", "admin:\n  token: the-token-of-this-test\n"
	s, name := startConfigured(t, base)
	ctx := newTab(t)
	look(ctx, t, 1280, 1000, light)
	open(ctx, t, s, "/")
	writeConfig(t, name, base+"http1:\n  max_connections: 77\n")
	reload := func() {
		t.Helper()
		act(ctx, t, chromedp.Click(chromedp.CSS("#do-reload")))
		until(ctx, t, `document.getElementById("ask").open`)
	}
	reload()
	act(ctx, t, chromedp.Click(chromedp.CSS("#ask-go")))
	until(ctx, t, `document.activeElement.id === "token"`)
	screenshot(ctx, t, "admin-token-1280-light", false)
	checkAccess(ctx, t, "the dialog")
	press(ctx, t, "wrong"+kb.Enter)
	until(ctx, t, `document.getElementById("ask-fault").textContent === "This is not the token." && document.getElementById("token").value === ""`)
	press(ctx, t, token+kb.Enter)
	until(ctx, t, `!document.getElementById("ask").open && document.getElementById("toast").textContent.includes("Version 2 is in force")`)
	until(ctx, t, `document.getElementById("configuration-table").textContent.includes("http1.max_connections")`)

	writeConfig(t, name, base+"http1:\n  \"<img src=x onerror=alert(1)>\": 78\n")
	reload()
	act(ctx, t, chromedp.Click(chromedp.CSS("#ask-go")))
	until(ctx, t, `document.getElementById("ask-fault").textContent.includes("<img src=x onerror=alert(1)>")`)
	press(ctx, t, kb.Escape)
	until(ctx, t, `document.getElementById("configuration-table").textContent.includes("<img src=x onerror=alert(1)>")`)
	checkText(ctx, t)

	eval[bool](ctx, t, `(document.querySelector("[aria-label='Roll back to version 1']").focus(), true)`)
	press(ctx, t, kb.Enter)
	until(ctx, t, `document.getElementById("ask").open && document.getElementById("ask-wire").textContent === "POST /config/rollback?version=1"`)
	if eval[bool](ctx, t, `document.getElementById("ask-token").checkVisibility()`) {
		t.Error("the token is asked for again")
	}
	press(ctx, t, kb.Tab+kb.Enter)
	until(ctx, t, `document.getElementById("toast").textContent === "Version 1 is in force again, as version 4."`)
	until(ctx, t, `document.querySelector("#configuration-table tbody tr").textContent.includes("4in force")`)
	if got := text(ctx, t, "#configuration-table tbody tr:first-child"); !strings.Contains(got, "77") {
		t.Errorf("the version in force is %q", got)
	}
}

// TestAdminProtected: with admin.protect all, the page asks for the token, and again when it
// is wrong or not given.
func TestAdminProtected(t *testing.T) {
	s, _ := startConfigured(t, "admin:\n  token: the-token-of-this-test\n  protect: all\n")
	ctx := newTab(t)
	act(ctx, t, chromedp.Navigate(s.admin+"/"))
	until(ctx, t, `document.activeElement.id === "token"`)
	press(ctx, t, kb.Escape)
	until(ctx, t, `document.getElementById("notice-text").textContent === "The figures need the admin token."`)
	act(ctx, t, chromedp.Click(chromedp.CSS("#notice-button")))
	until(ctx, t, `document.activeElement.id === "token"`)
	press(ctx, t, "wrong"+kb.Enter)
	until(ctx, t, `document.getElementById("ask-fault").textContent === "This is not the token."`)
	press(ctx, t, "the-token-of-this-test"+kb.Enter)
	until(ctx, t, shown)
	until(ctx, t, `document.getElementById("notice").hidden && document.getElementById("phase").textContent === "serving"`)
}

// TestAdminStill: with reduced motion, nothing is animated, and the charts are drawn anew
// every five seconds rather than with each event. The page's clock is made to stand still.
func TestAdminStill(t *testing.T) {
	s := start(t)
	ctx := newTab(t)
	look(ctx, t, 1280, 1000, media{"prefers-reduced-motion": "reduce"})
	// The page draws at once what it asks for every five seconds. On a busy machine that
	// would come within the test.
	before(ctx, t, `globalThis.clock = Date.now(); Date.now = () => clock;
const every = setInterval; globalThis.setInterval = (ask, millis) => every(ask, millis === 5000 ? 600_000 : millis);`)
	open(ctx, t, s, "/")
	// The answers to the first questions are drawn at once, so they have to be there.
	until(ctx, t, `document.querySelector("#certificates-table tbody tr") !== null`)
	eval[bool](ctx, t, `(globalThis.drawn = 0, globalThis.events = 0,
  new MutationObserver(() => drawn += 1).observe(document.getElementById("hero"), { childList: true }),
  new EventSource("/events").addEventListener("health", () => events += 1), true)`)
	until(ctx, t, `events >= 4`)
	if n := eval[int](ctx, t, "drawn"); n != 0 {
		t.Errorf("drawn %d times", n)
	}
	if got := eval[string](ctx, t, `getComputedStyle(document.querySelector(".meter"), "::before").transitionDuration`); got != "0s" {
		t.Errorf("the meters move for %s", got)
	}
	eval[bool](ctx, t, `(clock += 6000, true)`)
	until(ctx, t, `drawn > 0`)
}
