package main

import (
	"errors"
	"io"
	"strings"
	"testing"
)

func TestTally(t *testing.T) {
	t.Parallel()
	fine := func() error { return nil }
	good, bad, idle, refused := &tally{kind: "good"}, &tally{kind: "bad"}, &tally{kind: "idle"}, &tally{kind: "refused"}
	good.operation(fine)
	bad.operation(fine)
	bad.operation(func() error { return errors.New("broken") })
	refused.operation(fine)
	refused.refused.Add(1)
	if err := (tallies{good}).write(io.Discard, "test"); err != nil {
		t.Error(err)
	}
	for _, ts := range []tallies{{good, bad}, {idle}, {refused}} {
		if err := ts.write(io.Discard, "test"); err == nil {
			t.Errorf("%s: no error", ts[len(ts)-1].kind)
		}
	}
	var out strings.Builder
	bad.write(&out, "test")
	if !strings.Contains(out.String(), "FAILED: bad: operation 2, after 0s: broken") {
		t.Errorf("printed:\n%s", &out)
	}
}

// TestStale: a handshake that began before a new certificate was met may meet the old one, a later one must not.
func TestStale(t *testing.T) {
	t.Parallel()
	h := new(handshakes)
	seen := h.expect(2)
	h.met(0, 1)
	h.met(1, 2)
	h.met(1, 1)
	if h.stale != 0 {
		t.Errorf("%d stale", h.stale)
	}
	h.met(2, 1)
	if h.stale != 1 {
		t.Errorf("%d stale, want 1", h.stale)
	}
	select {
	case <-seen:
	default:
		t.Error("certificate 2 was not noticed")
	}
}

// TestFileText: every listener has the TLS section.
func TestFileText(t *testing.T) {
	t.Parallel()
	const want = "admin: {address: \"127.0.0.1:0\"}\nlog: {format: json}\ndrain: {delay: 0s, spread: 100ms}\nlisteners:\n" +
		"  - address: \"a\"\n    tls: {mode: off}\n  - address: \"b\"\n    tls: {mode: off}\nlimits: {}\n"
	if got := (file{addresses: []string{"a", "b"}, tls: "{mode: off}", more: "limits: {}\n"}).text(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
