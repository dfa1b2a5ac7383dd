package main

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReplaceOutput: older loggers write to the new handler, with their attributes and
// groups.
func TestReplaceOutput(t *testing.T) {
	t.Parallel()
	noTime := &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}
	var text, json strings.Builder
	var o output
	o.set(slog.NewTextHandler(&text, noTime))
	plain := slog.New(newReplaceable(&o))
	derived := plain.With("a", 1).WithGroup("g").With("b", 2)
	derived.Info("one", "c", 3)
	o.set(slog.NewJSONHandler(&json, noTime))
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
