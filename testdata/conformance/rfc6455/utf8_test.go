package rfc6455

import (
	"fmt"
	"slices"
	"testing"
)

const (
	kosme  = "\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5"
	valid  = "Hello-\xC2\xB5@\xC3\x9F\xC3\xB6\xC3\xA4\xC3\xBC\xC3\xA0\xC3\xA1-UTF-8!!"
	broken = kosme + "\xED\xA0\x80edited" // A UTF-16 surrogate stands in the middle.
)

// TestUTF8 is family 6: text must be UTF-8, however it is split (RFC 6455,
// sections 5.6 and 8.1).
func TestUTF8(t *testing.T) {
	octets := func(s string) []frame { return fragments(text(s), 1) }
	cases := []wsCase{
		{name: "6.1.1", send: []frame{text("")}, want: echoes(text(""))},
		{name: "6.1.2", send: []frame{part(text("")), part(rest("")), rest("")}, want: echoes(text(""))},
		{name: "6.1.3", send: []frame{part(text("")), part(rest("middle frame payload")), rest("")}, want: echoes(text("middle frame payload"))},
		{name: "6.2.1", send: []frame{text(valid)}, want: echoes(text(valid))},
		{name: "6.2.2", send: []frame{part(text(valid[:12])), rest(valid[12:])}, want: echoes(text(valid))},
		{name: "6.2.3", send: octets(valid), want: echoes(text(valid))},
		{name: "6.2.4", send: octets(kosme), want: echoes(text(kosme))},
		{name: "6.3.1", send: []frame{text(broken)}, code: invalidData},
		{name: "6.3.2", send: octets(broken), code: invalidData},
	}
	runCases(t, slices.Concat(cases, failFast(), sequences()))
}

// failFast is 6.4: the server closes at the bad byte. The first two never end
// their message. The last two have the bad byte within a frame; a server may wait
// for the frame's end, which Autobahn counts as "non-strict", and this one does.
func failFast() []wsCase {
	tooHigh := kosme + "\xF4\x90\x80\x80" + "edited" // Beyond U+10FFFF from the second byte on.
	return []wsCase{
		{name: "6.4.1", send: []frame{part(text(kosme)), part(rest("\xF4\x90\x80\x80"))}, code: invalidData},
		{name: "6.4.2", send: []frame{part(text(kosme + "\xF4")), part(rest("\x90"))}, code: invalidData},
		{name: "6.4.3 non-strict", send: []frame{text(tooHigh)}, chop: len(kosme), code: invalidData},
		{name: "6.4.4 non-strict", send: []frame{text(tooHigh)}, chop: 1, code: invalidData},
	}
}

// sequences are 6.5 to 6.23, after Markus Kuhn's "UTF-8 decoder capability and
// stress test". Each is sent whole and octet by octet in fragments.
func sequences() []wsCase {
	var cases []wsCase
	for _, group := range utf8Groups() {
		for i, s := range group.texts {
			name := fmt.Sprintf("%s.%d", group.name, i+1)
			whole := wsCase{name: name, send: []frame{text(s)}}
			octets := wsCase{name: name + " in octets", send: fragments(text(s), 1)}
			for _, c := range []wsCase{whole, octets} {
				if group.valid {
					c.want = echoes(text(s))
				} else {
					c.code = invalidData
				}
				cases = append(cases, c)
			}
		}
	}
	return cases
}

type utf8Group struct {
	name  string
	valid bool
	texts []string
}
