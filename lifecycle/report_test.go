package lifecycle

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

func TestAccounts(t *testing.T) {
	tests := map[string]struct {
		change   func(*Actions)
		want     map[string]int
		wantText string
	}{
		"counted by the caller": {want: map[string]int{"grpc": 3, "http1": 1}, wantText: "lifecycle: drain cut connections: 4"},
		"not counted": {
			change:   func(a *Actions) { a.Forced = nil },
			want:     map[string]int{"http1": 2},
			wantText: "lifecycle: drain cut connections: 2",
		},
		"Forced panics": {
			change:   func(a *Actions) { a.Forced = func() map[string]int { panic("lost count") } },
			wantText: "lifecycle: forced connections: panic: lost count",
		},
		"Remaining panics": {
			change: func(a *Actions) {
				a.Forced = nil
				a.Remaining = func() map[string]int { panic("lost count") }
			},
			wantText: strings.TrimSuffix(strings.Repeat("lifecycle: remaining connections: panic: lost count\n", 6), "\n"),
		},
		"no action at all": {change: func(a *Actions) { *a = Actions{} }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlay(t)
				p.left = map[string]int{"http1": 2}
				p.cut = map[string]int{"grpc": 3, "http1": 1}
				actions := p.actions()
				if tt.change != nil {
					tt.change(&actions)
				}
				report, err := New(DefaultConfig(), actions, nil).Drain(t.Context())
				if diff := cmp.Diff(tt.want, report.Forced); diff != "" {
					t.Errorf("forced (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(tt.wantText, text(err)); diff != "" {
					t.Errorf("error (-want +got):\n%s", diff)
				}
				if got, want := errors.Is(err, ErrForced), total(tt.want) > 0; got != want {
					t.Errorf("errors.Is ErrForced: %v, want %v", got, want)
				}
			})
		})
	}
}
