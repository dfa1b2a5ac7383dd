package mux

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// numbers returns the numbers and outcomes of the versions.
func numbers(h *History) []string {
	var all []string
	for _, v := range h.Versions {
		all = append(all, fmt.Sprint(v.Number, " ", v.Outcome))
	}
	return all
}

func TestHistoryNumbers(t *testing.T) {
	t.Parallel()
	var h History
	h.applied("start", Config{Extra: "first"}, nil)
	started := h.Succeeded
	if h.Failing || started.IsZero() || h.Versions[0].Outcome != OutcomeApplied {
		t.Errorf("at the start: %+v", h)
	}
	h.applied("a", Config{}, []Change{{Path: "log.level"}})
	if got := h.applied("a", Config{}, nil); got.Number != 2 || got.Outcome != OutcomeUnchanged {
		t.Errorf("a reload that changes nothing is version %d, %s", got.Number, got.Outcome)
	}
	broken := errors.New("broken")
	for range 3 {
		if v := h.failed("watch", broken); v.Number != 3 {
			t.Errorf("the same failure again is version %d", v.Number)
		}
	}
	if !h.Failing || h.Succeeded.Before(started) {
		t.Errorf("after a failure: failing %v, succeeded %v", h.Failing, h.Succeeded)
	}
	h.failed("SIGHUP", broken)
	if diff := cmp.Diff([]string{"1 applied", "2 applied", "3 failed", "4 failed"}, numbers(&h)); diff != "" || h.Current != 2 {
		t.Errorf("version %d is in force; (-want +got):\n%s", h.Current, diff)
	}
	if h.applied("a", Config{}, nil); h.Failing {
		t.Error("a reload that changes nothing is a failure")
	}
	if c, err := h.config(1); err != nil || c.Extra != "first" {
		t.Errorf("configuration of version 1: %v, %v", c.Extra, err)
	}
	for number, want := range map[int]string{3: "version 3 was never in force", 9: "version 9 is not among the last 20"} {
		if _, err := h.config(number); err == nil || err.Error() != want {
			t.Errorf("configuration of version %d: %v, want %s", number, err, want)
		}
	}
}

// TestHistoryForgets: the history keeps the version in force, however often a change
// fails.
func TestHistoryForgets(t *testing.T) {
	t.Parallel()
	var h History
	h.applied("start", Config{}, nil)
	for i := range 2 * maxHistory {
		h.failed("SIGHUP", fmt.Errorf("fault %d", i))
	}
	got := numbers(&h)
	if len(got) != maxHistory || got[0] != "1 applied" || got[maxHistory-1] != "41 failed" {
		t.Errorf("remembered: %q", got)
	}
}
