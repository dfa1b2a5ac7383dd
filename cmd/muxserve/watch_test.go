package main

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

// drainState is what the test reads of /drain and of the stream's events.
type drainState struct {
	Running, Over bool
	Step          string
	Told          int
	History       []struct {
		Remaining map[string]int `json:"remaining"`
	}
	Account *struct {
		TraceID string         `json:"trace_id"`
		Steps   []any          `json:"steps"`
		Forced  map[string]int `json:"forced"`
	}
}

// TestWatchers: who watches a drain, by the stream or by asking again and again, gets its
// account, although the process ends then. The curve shows the connections that were left.
func TestWatchers(t *testing.T) {
	t.Parallel()
	p := start(t, "--drain-delay=500ms", "--drain-spread=0s", "--drain-timeout=30s")
	client := httpClient(t, false)
	resp, err := client.Get(p.admin.JoinPath("events").String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	slow := slowRequest(t.Context(), httpClient(t, false), p.service, 2*time.Second)
	eventually(t, "a request is under way", func() bool { return p.connections(t, client, "active") == 1 })
	p.expect(t, exitOK, "drains", "drain")

	polled := make(chan drainState, 1)
	go func() {
		defer close(polled)
		poller := httpClient(t, false)
		for {
			status, data, err := fetch(t.Context(), poller, http.MethodGet, p.admin.JoinPath("drain"), nil)
			var state drainState
			if err != nil || status != http.StatusOK || json.Unmarshal(data, &state) != nil {
				return
			}
			if state.Over {
				polled <- state
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}()

	var name string
	var last drainState
	seen := make(map[string]int)
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if event, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			name = event
			seen[name]++
		}
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok && name != "health" {
			last = drainState{}
			if err := json.Unmarshal([]byte(data), &last); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := <-slow; err != nil {
		t.Errorf("the request that was under way: %v", err)
	}
	if seen["health"] == 0 || seen["drain"] == 0 || seen["end"] != 1 {
		t.Errorf("events %v", seen)
	}
	if last.Account == nil || len(last.Account.Steps) != 6 || len(last.Account.Forced) != 0 || !last.Over || last.Told != 1 {
		t.Errorf("the end: %+v", last)
	}
	left := 0
	for _, point := range last.History {
		left = max(left, point.Remaining["http1"])
	}
	if left != 1 {
		t.Errorf("the curve %+v does not show the request", last.History)
	}
	if state, ok := <-polled; !ok || state.Account == nil || last.Account != nil && state.Account.TraceID != last.Account.TraceID {
		t.Errorf("who asks again and again got %+v, %v", state, ok)
	}
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}
