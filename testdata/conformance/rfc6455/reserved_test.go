package rfc6455

import (
	"fmt"
	"testing"
)

// TestReservedBits is family 3: RSV bits without an extension that defines them.
func TestReservedBits(t *testing.T) {
	hello, bin := text("Hello, world!"), binaryOf([]byte("\x00\xFF\xFE\xFD\xFC\xFB\x00\xFF"))
	rsv := func(f frame, bits byte) frame { f.rsv = bits; return f }
	runCases(t, []wsCase{
		{name: "3.1", send: []frame{rsv(hello, 1)}, code: protocolError},
		{name: "3.2", send: []frame{hello, rsv(hello, 2), ping("")}, want: echoes(hello), code: protocolError},
		{name: "3.3", send: []frame{hello, rsv(hello, 3), ping("")}, chop: 20, want: echoes(hello), code: protocolError},
		{name: "3.4", send: []frame{hello, rsv(hello, 4), ping("")}, chop: 1, want: echoes(hello), code: protocolError},
		{name: "3.5", send: []frame{rsv(bin, 5)}, code: protocolError},
		{name: "3.6", send: []frame{rsv(ping("Hello, world!"), 6)}, code: protocolError},
		{name: "3.7", send: []frame{rsv(closing(normal, ""), 7)}, code: protocolError},
	})
}

// TestReservedOpcodes is family 4: opcodes 3 to 7 and 11 to 15.
func TestReservedOpcodes(t *testing.T) {
	var cases []wsCase
	hello := text("Hello, world!")
	for _, group := range []struct {
		name  string
		first byte
	}{{"4.1", 3}, {"4.2", 11}} {
		reserved := func(i byte, payload string) frame { return frame{opcode: group.first + i, payload: []byte(payload)} }
		name := func(i int) string { return fmt.Sprintf("%s.%d", group.name, i) }
		cases = append(cases,
			wsCase{name: name(1), send: []frame{reserved(0, "")}, code: protocolError},
			wsCase{name: name(2), send: []frame{reserved(1, "reserved opcode payload")}, code: protocolError},
			wsCase{name: name(3), send: []frame{hello, reserved(2, ""), ping("")}, want: echoes(hello), code: protocolError},
			wsCase{name: name(4), send: []frame{hello, reserved(3, "payload"), ping("")}, want: echoes(hello), code: protocolError},
			wsCase{name: name(5), send: []frame{hello, reserved(4, "payload"), ping("")}, chop: 1, want: echoes(hello), code: protocolError})
	}
	runCases(t, cases)
}
