package rfc6455

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestPings is family 2: pings and pongs.
func TestPings(t *testing.T) {
	var ten []frame
	for i := range 10 {
		ten = append(ten, ping(fmt.Sprintf("payload-%d", i)))
	}
	longest := ping(strings.Repeat("\xFE", maxControl))
	binaryPing := ping("\x00\xFF\xFE\xFD\xFC\xFB\x00\xFF")
	runCases(t, []wsCase{
		{name: "2.1", send: []frame{ping("")}, want: echoes(ping(""))},
		{name: "2.2", send: []frame{ping("Hello, world!")}, want: echoes(ping("Hello, world!"))},
		{name: "2.3", send: []frame{binaryPing}, want: echoes(binaryPing)},
		{name: "2.4", send: []frame{longest}, want: echoes(longest)},
		{name: "2.5", send: []frame{ping(strings.Repeat("\xFE", maxControl+1))}, code: protocolError},
		{name: "2.6", send: []frame{longest}, chop: 1, want: echoes(longest)},
		{name: "2.7", send: []frame{pong("")}},
		{name: "2.8", send: []frame{pong("unsolicited pong payload")}},
		{name: "2.9", send: []frame{pong("unsolicited pong payload"), ping("ping payload")}, want: echoes(ping("ping payload"))},
		{name: "2.10", send: ten, want: echoes(ten...)},
		{name: "2.11", send: slices.Clone(ten), chop: 1, want: echoes(ten...)},
	})
}
