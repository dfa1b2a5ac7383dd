package main

import (
	"strings"
	"testing"
)

// TestTableShowsTextsOnly: a text that a peer has chosen makes no row and moves no cursor.
func TestTableShowsTextsOnly(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := table(&out, [][]string{{"ID", "PEER"}, {"1", "a\n99  http1"}, {"2", "\x1b]0;title\x07\x1b[31mred"}, {"3", "tab\tü"}}); err != nil {
		t.Fatal(err)
	}
	want := "ID  PEER\n1   \"a\\n99  http1\"\n2   \"\\x1b]0;title\\a\\x1b[31mred\"\n3   \"tab\\tü\"\n"
	if out.String() != want {
		t.Errorf("got\n%q, want\n%q", out.String(), want)
	}
}
