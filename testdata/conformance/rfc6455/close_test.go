package rfc6455

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestClose is family 7: the close handshake and its codes.
func TestClose(t *testing.T) {
	hello, bye := text("Hello World!"), closing(normal, "")
	long := text(strings.Repeat("BAsd7&jh23", 26*1024)) // 260 KiB.
	oneByte := frame{opcode: opClose, payload: []byte{0x03}}
	cases := []wsCase{
		{name: "7.1.1", send: []frame{hello, bye}, want: echoes(hello)},
		{name: "7.1.2", send: []frame{bye, bye}},
		{name: "7.1.3", send: []frame{bye, ping("")}},
		{name: "7.1.4", send: []frame{bye, hello}},
		{name: "7.1.5", send: []frame{part(text("fragment1")), bye, rest("fragment2")}},
		{name: "7.1.6", send: []frame{long, hello, bye, ping("")}, want: echoes(long, hello)},
		{name: "7.3.1", send: []frame{{opcode: opClose}}, code: noStatus},
		{name: "7.3.2", send: []frame{oneByte}, code: protocolError},
		{name: "7.3.3", send: []frame{bye}},
		{name: "7.3.4", send: []frame{closing(normal, "Hello World!")}},
		{name: "7.3.5", send: []frame{closing(normal, strings.Repeat("*", maxControl-2))}},
		{name: "7.3.6", send: []frame{closing(normal, strings.Repeat("*", maxControl-1))}, code: protocolError},
		{name: "7.5.1", send: []frame{closing(normal, "\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5\xED\xA0\x80edited")}, code: invalidData},
	}
	runCases(t, slices.Concat(cases, closeCodes()))
}

// closeCodes are 7.7 and 7.9, with the codes that were registered after them,
// and 7.13. A code that may stand in a close frame comes back; others are
// protocol errors (RFC 6455, section 7.4).
func closeCodes() []wsCase {
	var cases []wsCase
	for i, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999, 1012, 1013, 1014} {
		cases = append(cases, wsCase{name: fmt.Sprintf("7.7.%d code %d", i+1, code), send: []frame{closing(code, "")}, code: code})
	}
	for i, code := range []int{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 1015} {
		cases = append(cases, wsCase{name: fmt.Sprintf("7.9.%d code %d", i+1, code), send: []frame{closing(code, "")}, code: protocolError})
	}
	for i, code := range []int{5000, 65535} {
		cases = append(cases, wsCase{name: fmt.Sprintf("7.13.%d code %d", i+1, code), send: []frame{closing(code, "")}, code: protocolError})
	}
	return cases
}
