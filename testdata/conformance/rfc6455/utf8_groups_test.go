package rfc6455

import "strings"

// utf8Groups are the texts of Autobahn's 6.5 to 6.23.
func utf8Groups() []utf8Group {
	const ok, bad = true, false
	return []utf8Group{
		{"6.5", ok, []string{"\xCE\xBA", kosme[:5], kosme[:7], kosme[:9], kosme}},
		{"6.6 cut", bad, cutWithinRunes(kosme)},
		// The first and the last code point of each length.
		{"6.7", ok, []string{"\x00", "\xC2\x80", "\xE0\xA0\x80", "\xF0\x90\x80\x80"}},
		{"6.8", bad, []string{"\xF8\x88\x80\x80\x80", "\xFC\x84\x80\x80\x80\x80"}},
		{"6.9", ok, []string{"\x7F", "\xDF\xBF", "\xEF\xBF\xBF", "\xF4\x8F\xBF\xBF"}},
		{"6.10", bad, []string{"\xF7\xBF\xBF\xBF", "\xFB\xBF\xBF\xBF\xBF", "\xFD\xBF\xBF\xBF\xBF\xBF"}},
		{"6.11", ok, []string{"\xED\x9F\xBF", "\xEE\x80\x80", "\xEF\xBF\xBD", "\xF4\x8F\xBF\xBF"}},
		{"6.11 beyond", bad, []string{"\xF4\x90\x80\x80"}},
		{"6.12 continuation bytes", bad, append(repeats("\x80\xBF", 7), "\xBF", allBytes(0x80, 0xBF))},
		{"6.13 lonely starts", bad, []string{
			spaced(0xC0, 0xDF), spaced(0xE0, 0xEF), spaced(0xF0, 0xF7), spaced(0xF8, 0xFB), spaced(0xFC, 0xFD),
		}},
		{"6.14 last byte missing", bad, lastByteMissing()},
		{"6.15 all of 6.14", bad, []string{strings.Join(lastByteMissing(), "")}},
		{"6.16 impossible bytes", bad, []string{"\xFE", "\xFF", "\xFE\xFE\xFF\xFF"}},
		// Overlong forms of U+002F, of the code point below each length's first, and of U+0000.
		{"6.17 overlong", bad, []string{
			"\xC0\xAF", "\xE0\x80\xAF", "\xF0\x80\x80\xAF", "\xF8\x80\x80\x80\xAF", "\xFC\x80\x80\x80\x80\xAF",
		}},
		{"6.18 overlong", bad, []string{
			"\xC1\xBF", "\xE0\x9F\xBF", "\xF0\x8F\xBF\xBF", "\xF8\x87\xBF\xBF\xBF", "\xFC\x83\xBF\xBF\xBF\xBF",
		}},
		{"6.19 overlong", bad, []string{
			"\xC0\x80", "\xE0\x80\x80", "\xF0\x80\x80\x80", "\xF8\x80\x80\x80\x80", "\xFC\x80\x80\x80\x80\x80",
		}},
		{"6.20 surrogates", bad, surrogates},
		{"6.21 surrogate pairs", bad, surrogatePairs()},
		{"6.22 noncharacters", ok, noncharacters()},
		{"6.23 specials", ok, []string{
			"\uFFF9", "\uFFFA", "\uFFFB", "\uFFFC", "\uFFFD", "\uFFFE", "\uFFFF",
		}},
	}
}

// cutWithinRunes returns every beginning of s that ends within a code point.
func cutWithinRunes(s string) []string {
	starts := make(map[int]bool)
	for i := range s {
		starts[i] = true
	}
	var cut []string
	for i := range len(s) {
		if !starts[i] {
			cut = append(cut, s[:i])
		}
	}
	return cut
}

// repeats returns the first 1, 2, ... n bytes of s repeated.
func repeats(s string, n int) []string {
	s = strings.Repeat(s, n)
	all := make([]string, n)
	for i := range all {
		all[i] = s[:i+1]
	}
	return all
}

func allBytes(first, last int) string {
	var b []byte
	for i := first; i <= last; i++ {
		b = append(b, byte(i))
	}
	return string(b)
}

func spaced(first, last int) string {
	var b []byte
	for i := first; i <= last; i++ {
		b = append(b, byte(i), ' ')
	}
	return string(b)
}

// lastByteMissing returns sequences of two to six bytes, low and high, without their last.
func lastByteMissing() []string {
	return []string{
		"\xC0", "\xE0\x80", "\xF0\x80\x80", "\xF8\x80\x80\x80", "\xFC\x80\x80\x80\x80",
		"\xDF", "\xEF\xBF", "\xF7\xBF\xBF", "\xFB\xBF\xBF\xBF", "\xFD\xBF\xBF\xBF\xBF",
	}
}

// surrogates are the UTF-16 surrogates at the borders of their ranges.
var surrogates = []string{
	"\xED\xA0\x80", "\xED\xAD\xBF", "\xED\xAE\x80", "\xED\xAF\xBF", "\xED\xB0\x80", "\xED\xBE\x80", "\xED\xBF\xBF",
}

func surrogatePairs() []string {
	var pairs []string
	for _, high := range surrogates[:4] {
		for _, low := range []string{surrogates[4], surrogates[6]} {
			pairs = append(pairs, high+low)
		}
	}
	return pairs
}

// noncharacters are the last two code points of each plane, which are valid.
func noncharacters() []string {
	var all []string
	for plane := rune(0); plane <= 0x10; plane++ {
		all = append(all, string(plane<<16|0xFFFE), string(plane<<16|0xFFFF))
	}
	return all
}
