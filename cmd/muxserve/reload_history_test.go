package main

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
	"github.com/muxserve/muxserve/mux"
)

// numbers returns the numbers of what is remembered, with the outcomes.
func numbers(v *versions) []string {
	_, history := v.list()
	var all []string
	for _, each := range history {
		all = append(all, fmt.Sprint(each.Number, " ", each.Outcome))
	}
	return all
}

func TestVersions(t *testing.T) {
	t.Parallel()
	first, second := settings.Default(), settings.Default()
	change := []mux.Change{{Path: "log.level"}}
	var v versions
	v.start(first)
	if ok, at := v.status(); !ok || !at.IsZero() {
		t.Errorf("status %v, %v at the start", ok, at)
	}
	v.applied("a", change, second)
	if got := v.applied("a", nil, second); got.Number != 2 || got.Outcome != mux.OutcomeUnchanged {
		t.Errorf("a reload that changes nothing is version %d, %s", got.Number, got.Outcome)
	}
	broken := errors.New("broken")
	for range 3 {
		v.failed("watch", broken)
	}
	if ok, at := v.status(); ok || at.IsZero() {
		t.Errorf("status %v, %v after a failure", ok, at)
	}
	v.failed("SIGHUP", broken)
	if diff := cmp.Diff([]string{"1 applied", "2 applied", "3 failed", "4 failed"}, numbers(&v)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if s, err := v.settings(1); err != nil || s != first {
		t.Errorf("settings of version 1: %v", err)
	}
	for number, want := range map[int]string{3: "version 3 was never in force", 9: "version 9 is not among the last 20"} {
		if _, err := v.settings(number); err == nil || err.Error() != want {
			t.Errorf("settings of version %d: %v, want %s", number, err, want)
		}
	}
	if current, _ := v.list(); current != 2 {
		t.Errorf("version %d is in force", current)
	}
}

// TestVersionsForget: what is in force is never forgotten, however often a change fails.
func TestVersionsForget(t *testing.T) {
	t.Parallel()
	var v versions
	v.start(settings.Default())
	for i := range 2 * maxVersions {
		v.failed("SIGHUP", fmt.Errorf("fault %d", i))
	}
	got := numbers(&v)
	if len(got) != maxVersions || got[0] != "1 applied" || got[maxVersions-1] != "41 failed" {
		t.Errorf("remembered: %q", got)
	}
}
