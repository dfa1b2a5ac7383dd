package mux

import (
	"regexp"
	"strings"
	"testing"
)

// validTraceparent is W3C Trace Context, section 3.2, as a regular expression.
var validTraceparent = regexp.MustCompile(`^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-[\s\S]*)?$`)

// FuzzTraceparent compares the parser with the regular expression.
func FuzzTraceparent(f *testing.F) {
	const good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for _, seed := range []string{
		"", good, good + "-more", "01" + good[2:] + "-more", "01" + good[2:] + "x", "ff" + good[2:],
		strings.ToUpper(good), strings.Replace(good, "00f067aa0ba902b7", "0000000000000000", 1),
		strings.Replace(good, "4bf92f3577b34da6a3ce929d0e0e4736", strings.Repeat("0", 32), 1), good[:54], good + "\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m := validTraceparent.FindStringSubmatch(s)
		want := m != nil && m[1] != "ff" && strings.Trim(m[2], "0") != "" && strings.Trim(m[3], "0") != "" && (m[1] != "00" || m[4] == "")
		trace, span, ok := parseTraceparent(s)
		if ok != want || ok && (trace != m[2] || span != m[3]) {
			t.Errorf("%q: %s %s %v, want %v", s, trace, span, ok, want)
		}
	})
}
