package websocket

import (
	"testing"
	"unicode/utf8"
)

// FuzzUTF8Checker: the checker agrees with package utf8 on the whole text, however it is
// split.
func FuzzUTF8Checker(f *testing.F) {
	for _, s := range []string{"", "plain", "κόσμε", "\xce", "\xed\xa0\x80", "\xf4\x90\x80\x80", "a\xf0\x9f\x98\x80b", "\xf0\x9f\x98"} {
		f.Add([]byte(s), uint8(1))
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, text []byte, step uint8) {
		size := int(step)%7 + 1
		var c utf8Checker
		valid := true
		for rest := text; len(rest) > 0 && valid; {
			n := min(size, len(rest))
			_, err := c.Write(rest[:n])
			valid = err == nil
			rest = rest[n:]
		}
		valid = valid && len(c.partial) == 0
		if want := utf8.Valid(text); valid != want {
			t.Errorf("%q in steps of %d: valid %v, want %v", text, size, valid, want)
		}
	})
}
