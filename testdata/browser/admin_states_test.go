package browser

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// object is a JSON object.
type object = map[string]any

// tampered serves the admin pages of a server with changed answers: states that take a
// large load or hours to come to, and texts that no client of these tests can send. change
// has functions by the path of an answer, or by the name of an event.
func tampered(t *testing.T, s *server, change map[string]func(object)) *server {
	t.Helper()
	target, err := url.Parse(s.admin)
	if err != nil {
		t.Fatal(err)
	}
	alter := func(name string, data []byte) []byte {
		answer := make(object)
		if change[name] == nil || json.Unmarshal(data, &answer) != nil {
			return data
		}
		change[name](answer)
		data, _ = json.Marshal(answer) // It was JSON before.
		return data
	}
	proxy := &httputil.ReverseProxy{
		FlushInterval: -1,
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host },
		ModifyResponse: func(r *http.Response) error {
			body := r.Body
			if r.Request.URL.Path == "/events" {
				r.Body = pipe(r.Request.Context(), body, alter)
				return nil
			}
			data, err := io.ReadAll(body)
			data = alter(r.Request.URL.Path, data)
			r.Header.Del("Content-Length")
			r.ContentLength = int64(len(data))
			r.Body = io.NopCloser(strings.NewReader(string(data)))
			return err
		},
	}
	front := httptest.NewServer(proxy)
	t.Cleanup(func() { front.CloseClientConnections(); front.Close() })
	return &server{process: s.process, service: s.service, admin: front.URL}
}

// pipe passes on an event stream with changed data.
func pipe(ctx context.Context, from io.ReadCloser, alter func(string, []byte) []byte) io.ReadCloser {
	r, w := io.Pipe()
	context.AfterFunc(ctx, func() { from.Close() })
	go func() {
		defer from.Close()
		lines, name := bufio.NewReader(from), ""
		for {
			line, err := lines.ReadString('\n')
			if event, ok := strings.CutPrefix(line, "event: "); ok {
				name = strings.TrimSpace(event)
			}
			if data, ok := strings.CutPrefix(line, "data: "); ok {
				line = "data: " + string(alter("event "+name, []byte(strings.TrimSpace(data)))) + "\n"
			}
			if _, werr := io.WriteString(w, line); err != nil || werr != nil {
				w.CloseWithError(err)
				return
			}
		}
	}()
	return r
}

// checkText checks that nothing has become markup that was meant as text.
func checkText(ctx context.Context, t *testing.T) {
	t.Helper()
	const made = `[...document.querySelectorAll("img, iframe, object, embed, body script, body style, body link, a[href^='javascript'], [onerror], [onclick], [onload], [style*=url]")].map((e) => e.outerHTML)
  .concat(globalThis.pwned ? ["a script has run"] : [])`
	if got := eval[[]string](ctx, t, made); len(got) > 0 {
		t.Errorf("markup was made: %q", got)
	}
}

// hostile is a text that would run a script where it became markup. It is long, too.
const hostile = `<img src=x onerror="pwned=1"><script>pwned=1</script>"'><b onclick=pwned=1>` + "wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww"

// TestAdminHostile: nothing that a client, a certificate or a file says becomes markup or
// makes the page too wide.
func TestAdminHostile(t *testing.T) {
	s := start(t)
	stubborn(t, s.service, "<img src=x onerror=pwned=1>") // A name that a TLS client may send.
	now := time.Now().UTC().Format(time.RFC3339)
	front := tampered(t, s, map[string]func(object){
		"event health": func(h object) { h["version"], h["not_ready"] = hostile, hostile },
		"/connections": func(a object) {
			for _, c := range a["connections"].([]any) {
				c := c.(object)
				c["remote_addr"], c["verdict"], c["local_addr"] = hostile, hostile, hostile
				c["tls"].(object)["client_subject"] = hostile
			}
		},
		"/closed": func(a object) {
			for i, outcome := range []string{"refused", "failed", "cut", "closed"} {
				a["closed"] = append(a["closed"].([]any), object{"id": 1000 + i, "protocol": hostile, "remote_addr": hostile, "opened": now, "closed": now,
					"outcome": outcome, "reason": hostile, "detail": hostile, "bytes_received": 1, "requests": 1})
			}
		},
		"/certificates": func(a object) {
			a["certificates"] = []any{object{"listener": hostile, "subject": "CN=" + hostile, "names": []string{hostile}, "issuer": hostile, "serial": hostile,
				"key_type": hostile, "not_before": now, "not_after": now, "remaining_seconds": 5}}
		},
		"/servers": func(a object) {
			a["listeners"] = []any{object{"address": hostile, "configured": hostile, "tls": hostile, "proxy_protocol": hostile, "protocols": []string{hostile}}}
		},
		"/config": func(a object) {
			a["history"] = append(a["history"].([]any),
				object{"version": 2, "time": now, "origin": hostile, "outcome": "failed", "error": hostile},
				object{"version": 3, "time": now, "origin": hostile, "outcome": hostile, "changes": []any{object{"path": hostile, "old": hostile, "new": hostile}}})
		},
		"/metrics": func(a object) {
			a["totals"].(object)["refusals"] = []any{object{"reason": hostile, "detail": hostile, "cure": hostile, "last_minute": 9}}
		},
	})
	ctx := newTab(t)
	look(ctx, t, 1280, 1000, light)
	open(ctx, t, front, "/")
	until(ctx, t, `document.getElementById("live").textContent.includes("onerror=pwned=1")`)
	until(ctx, t, `document.querySelectorAll("#closed-table tbody tr").length >= 4`)
	for _, where := range []string{"#facts", "#listeners", "#live", "#closed-table", "#certificates-table", "#configuration-table", "#cure"} {
		if got := eval[string](ctx, t, fmt.Sprintf(`document.querySelector(%q).textContent`, where)); !strings.Contains(got, `onerror="pwned=1"`) {
			t.Errorf("%s does not show the text: %q", where, got)
		}
	}
	for _, width := range widths {
		look(ctx, t, width, 1000, light)
		checkWidth(ctx, t, fmt.Sprintf("long texts at %d", width))
	}
	act(ctx, t, chromedp.Click(chromedp.CSS("#live .act button")))
	until(ctx, t, `document.getElementById("ask-text").textContent.includes("onerror")`)
	screenshot(ctx, t, "admin-hostile-1600-light", true)
	checkText(ctx, t)
	// The browser itself would refuse: no text becomes markup without a policy for it.
	const refused = `(() => { try { document.body.innerHTML += "<i></i>"; return false; } catch (e) { return e instanceof TypeError; } })()`
	if !eval[bool](ctx, t, refused) {
		t.Error("the page's policy lets text become markup")
	}
	eval[bool](ctx, t, `(faults.length = 0, true)`)
}

// overloaded has the open connections and their limit by protocol.
var overloaded = map[string][2]float64{"http1": {910, 1000}, "http2": {480, 800}, "grpc": {350, 600}, "websocket": {1000, 1000}}

// TestAdminOverloaded: the page tells which protocol is full, in words, marks and figures.
func TestAdminOverloaded(t *testing.T) {
	s := start(t)
	begin := time.Now()
	front := tampered(t, s, map[string]func(object){
		"event health": func(h object) {
			h["status"], h["connections"] = "overloaded", 2740
			h["total"] = object{"status": "degraded", "limit": 3200, "ratio": 0.86}
			status := map[string]string{"http1": "degraded", "http2": "healthy", "grpc": "healthy", "websocket": "overloaded"}
			for p, n := range overloaded {
				pool := h["protocols"].(object)[p].(object)
				pool["active"], pool["limit"], pool["ratio"], pool["status"] = n[0], n[1], n[0]/n[1], status[p]
			}
			h["protocols"].(object)["websocket"].(object)["rejected_last_minute"] = object{"limit": 214}
			h["protocols"].(object)["http1"].(object)["error_rate"] = 0.018
		},
		"/metrics": func(a object) {
			var history []any
			for i := range 60 {
				protocols := make(object)
				for p, n := range overloaded {
					grown := n[0] * (0.7 + 0.3*float64(i)/60)
					protocols[p] = object{"active": int(grown), "requests_per_second": grown * 2.5, "p50_seconds": 0.004, "p99_seconds": 0.05 + float64(i)*0.003,
						"rejected_per_second": float64(i%7) * float64(i/40), "messages_received_per_second": grown, "messages_sent_per_second": grown, "accepted_per_second": 12}
				}
				protocols["sniffing"] = object{"active": 3, "accepted_per_second": 51}
				history = append(history, object{"time": begin.Add(time.Duration(i-60) * 5 * time.Second), "phase": "serving", "protocols": protocols})
			}
			a["history"] = history
		},
	})
	ctx := newTab(t)
	look(ctx, t, 1280, 1000, light)
	open(ctx, t, front, "/")
	for what, want := range map[string]string{
		"#say":    "WebSocket is full: 1,000 of 1,000 open, 214 refused in the last minute. Raise websocket.max_connections or add a server. HTTP/1.1 is filling up.",
		"#status": "overloaded", "#cards .websocket": "214 last minute", "#cards .http1": "1.8 % errors", "#legend": "2,740",
	} {
		if got := text(ctx, t, what); !strings.Contains(got, want) {
			t.Errorf("%s says %q, without %q", what, got, want)
		}
	}
	// A reason is a button that filters the table of ended connections.
	act(ctx, t, chromedp.Click(chromedp.CSS("#funnel .chip")))
	until(ctx, t, `document.querySelector('input[name="outcome"][value="refused"]').checked`)
	checkEverywhere(ctx, t, "admin-overloaded")
}

// TestAdminDrainWithMany: of many connections the last ones are magnified, and those that
// were cut are marked where they would be a pixel.
func TestAdminDrainWithMany(t *testing.T) {
	s := start(t, "--drain-delay=0")
	begin := time.Now().Add(-31 * time.Second)
	many := func(d object) {
		var history []any
		for i := range 121 {
			at, left := float64(i)/4, 2000.0
			if at > 5 {
				left = max(17, 2000-400*(at-5))
			}
			history = append(history, object{"elapsed_seconds": at, "remaining": object{"http1": int(left * 0.4), "http2": int(left * 0.2), "websocket": int(left*0.4) + 3}})
		}
		steps := []any{}
		names := []string{"announce", "drain-delay", "stop-accepting", "wait-connections", "force-close", "cleanup"}
		for i, took := range []float64{0.02, 5, 5.1, 19.88, 0.04, 0.06} {
			status, left := "done", object{"websocket": 17}
			if i == 3 {
				status = "timed_out"
			}
			steps = append(steps, object{"name": names[i], "status": status, "duration_seconds": took, "remaining": left})
		}
		d["history"], d["told"], d["left"], d["running"], d["over"], d["elapsed_seconds"] = history, 2000, 0, false, true, 30.1
		d["plan"] = object{"delay_seconds": 5, "spread_seconds": 5, "timeout_seconds": 30, "step_timeout_seconds": 6, "skip_steps": []any{}, "steps": []any{
			object{"name": "announce", "planned_seconds": 0}, object{"name": "drain-delay", "planned_seconds": 5},
			object{"name": "stop-accepting", "planned_seconds": 5}, object{"name": "wait-connections", "planned_seconds": 20},
			object{"name": "force-close", "planned_seconds": 6}, object{"name": "cleanup", "planned_seconds": 6},
		}}
		d["started"], d["deadline"] = begin, begin.Add(30*time.Second)
		d["account"] = object{"trace_id": "3689c7bd9b0405f0", "started": begin, "duration_seconds": 30.1, "steps": steps, "forced": object{"grpc": 3, "websocket": 14}}
		cut := []any{}
		for i := range 17 {
			cut = append(cut, object{"id": 1000 + i, "protocol": "websocket", "remote_addr": fmt.Sprintf("192.0.2.%d:40021", 31+i), "opened": begin.Add(-2 * time.Hour),
				"closed": begin.Add(30 * time.Second), "outcome": "cut", "reason": "forced", "bytes_received": 1, "requests": 1})
		}
		d["cut"] = cut
	}
	front := tampered(t, s, map[string]func(object){"event end": many})
	ctx := newTab(t)
	look(ctx, t, 1280, 1000, light)
	open(ctx, t, front, "/")
	s.drain(t)
	until(ctx, t, over)
	for what, want := range map[string]string{
		"#drain-say": "Drained in 30.1 s. 2,003 connections were open; 17 were cut when the time was up: 3 gRPC, 14 WebSocket.", "#tail-name": "magnified",
		"#cutlist": "and 5 more", "#tail": "17 cut at 30.0 s", "#jump": "17 cut",
	} {
		if got := eval[string](ctx, t, fmt.Sprintf(`document.querySelector(%q).textContent`, what)); !strings.Contains(got, want) {
			t.Errorf("%s says %q, without %q", what, got, want)
		}
	}
	checkEverywhere(ctx, t, "admin-drained-many")
}

// TestAdminDrainStopsFirst: where the listeners close before the delay, the page shows
// the steps in that order, and says what is true in it.
func TestAdminDrainStopsFirst(t *testing.T) {
	config := filepath.Join(t.TempDir(), "muxserve.yaml")
	writeConfig(t, config, "drain: {accept_during_delay: false}\n")
	s := start(t, "--config="+config, "--drain-delay=3s", "--drain-spread=1s", "--drain-timeout=5s")
	stubborn(t, s.service, "")
	s.exit = 3 // Because of the one that is cut.
	ctx := newTab(t)
	look(ctx, t, 1280, 1000, light)
	open(ctx, t, s, "/")
	until(ctx, t, `document.getElementById("live-count").textContent.includes("of 1")`)
	if got, want := text(ctx, t, "#drain-say"), "leave from second 0 to second 1, and cut what is left after 5 s."; !strings.Contains(got, want) {
		t.Errorf("the plan says %q, without %q", got, want)
	}
	s.drain(t)
	until(ctx, t, `document.querySelector("#steps [aria-current] b")?.textContent === "drain-delay"`)
	for what, want := range map[string]string{
		"#drain-say": "Waiting for the balancer to notice. The listeners are closed. 1 connection was told to leave, 1 left; cutting what is left in",
		"#fall":      "2 telling3 delay4 waiting",
	} {
		if got := eval[string](ctx, t, fmt.Sprintf(`document.querySelector(%q).textContent`, what)); !strings.Contains(got, want) {
			t.Errorf("%s says %q, without %q", what, got, want)
		}
	}
	const names = `Array.from(document.querySelectorAll("#steps b"), (e) => e.textContent).join(" ")`
	if got := eval[string](ctx, t, names); got != "announce stop-accepting drain-delay wait-connections force-close cleanup" {
		t.Errorf("the steps are %q", got)
	}
	until(ctx, t, over)
}
