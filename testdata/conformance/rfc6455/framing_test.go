package rfc6455

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// TestFraming is family 1: messages at the borders of the three forms of a length.
func TestFraming(t *testing.T) {
	var cases []wsCase
	sizes := []int{0, 125, 126, 127, 128, 65535, 65536}
	for i, size := range sizes {
		txt := text(strings.Repeat("*", size))
		bin := binaryOf(bytes.Repeat([]byte{0xFE}, size))
		cases = append(cases,
			wsCase{name: fmt.Sprintf("1.1.%d", i+1), send: []frame{txt}, want: echoes(txt)},
			wsCase{name: fmt.Sprintf("1.2.%d", i+1), send: []frame{bin}, want: echoes(bin)})
	}
	// The last ones are cut across every border of the reader's.
	const chop = 997
	txt, bin := text(strings.Repeat("*", 65536)), binaryOf(bytes.Repeat([]byte{0xFE}, 65536))
	runCases(t, append(cases,
		wsCase{name: "1.1.8", send: []frame{txt}, chop: chop, want: echoes(txt)},
		wsCase{name: "1.2.8", send: []frame{bin}, chop: chop, want: echoes(bin)}))
}

// TestMasksAndLengths is about what Autobahn, being a proper client, leaves out
// (RFC 6455, sections 5.1 and 5.2).
func TestMasksAndLengths(t *testing.T) {
	hello := text("hello")
	unmasked, unmaskedPing := hello, ping("")
	unmasked.unmasked, unmaskedPing.unmasked = true, true
	in16, in64, long64 := hello, hello, text(strings.Repeat("*", 1000))
	in16.wide, in64.wide, long64.wide = 16, 64, 64
	negative := hello
	negative.claim = -1
	runCases(t, []wsCase{
		{name: "unmasked text", send: []frame{hello, unmasked}, want: echoes(hello), code: protocolError},
		{name: "unmasked ping", send: []frame{hello, unmaskedPing}, want: echoes(hello), code: protocolError},
		// A length should be in its shortest form; the server need not insist.
		{name: "5 bytes in a 16-bit length", send: []frame{in16}, want: echoes(in16)},
		{name: "5 bytes in a 64-bit length", send: []frame{in64}, want: echoes(in64)},
		{name: "1000 bytes in a 64-bit length", send: []frame{long64}, want: echoes(long64)},
		{name: "highest bit of a 64-bit length", send: []frame{negative}, code: protocolError},
		{name: "frame in the handshake's segment", send: []frame{hello, ping("1")}, firstInHandshake: true, want: echoes(hello, ping("1"))},
	})
}
