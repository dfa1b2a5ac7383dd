package main

import (
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSwitchFormat: older loggers write in the new format, with their attributes and
// groups.
func TestSwitchFormat(t *testing.T) {
	t.Parallel()
	noTime := &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}
	var text, json strings.Builder
	var inJSON atomic.Bool
	plain := slog.New(switchable{
		text: slog.NewTextHandler(&text, noTime), json: slog.NewJSONHandler(&json, noTime), inJSON: &inJSON,
	})
	derived := plain.With("a", 1).WithGroup("g").With("b", 2)
	derived.Info("one", "c", 3)
	inJSON.Store(true)
	derived.Info("two", "c", 3)
	plain.Debug("silent")
	plain.Info("three")
	if diff := cmp.Diff("level=INFO msg=one a=1 g.b=2 g.c=3\n", text.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	const want = `{"level":"INFO","msg":"two","a":1,"g":{"b":2,"c":3}}` + "\n" + `{"level":"INFO","msg":"three"}` + "\n"
	if diff := cmp.Diff(want, json.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
