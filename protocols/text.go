package protocols

import (
	"strings"
	"unicode/utf8"
)

// MaxText bounds the texts of peers that are shown or logged, in bytes. The longest DNS name
// has 253.
const MaxText = 256

// ellipsis ends a text that was cut.
const ellipsis = "…"

// Shorten returns s where it has at most limit bytes. Otherwise it returns a copy of its
// beginning with an ellipsis, which has no more bytes than that and is valid UTF-8. The copy
// does not keep the memory of s. A limit of less than 3 bytes counts as 3.
func Shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	end := max(limit-len(ellipsis), 0)
	for back := 1; back < utf8.UTFMax && end > 0 && !utf8.RuneStart(s[end]); back++ {
		end--
	}
	return strings.ToValidUTF8(s[:end], "?") + ellipsis
}
