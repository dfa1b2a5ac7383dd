package rfc6455

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/muxserve/muxserve/mux"
)

// TestSizes is family 9: large messages, many fragments, many small writes and
// many messages. Autobahn goes up to 16 MiB; 4 MiB take the same paths.
func TestSizes(t *testing.T) {
	const (
		kib = 1 << 10
		mib = 1 << 20
	)
	var cases []wsCase
	add := func(group int, name string, send func(frame) wsCase, size int) {
		for i, message := range []frame{text(strings.Repeat("*", size)), binaryOf(bytes.Repeat([]byte{0xFE}, size))} {
			c := send(message)
			c.name = fmt.Sprintf("9.%d %s", group+i, name)
			c.want = echoes(message)
			cases = append(cases, c)
		}
	}
	for _, size := range []int{64 * kib, 256 * kib, mib, 4 * mib} {
		add(1, fmt.Sprintf("%d KiB", size/kib), func(m frame) wsCase { return wsCase{send: []frame{m}} }, size)
	}
	for _, n := range []int{64, 256, kib, 4 * kib, 16 * kib, 64 * kib, 256 * kib, mib} {
		add(3, fmt.Sprintf("fragments of %d", n), func(m frame) wsCase { return wsCase{send: fragments(m, n)} }, mib)
	}
	for _, chop := range []int{64, 128, 256, 512, kib, 2 * kib} {
		add(5, fmt.Sprintf("writes of %d", chop), func(m frame) wsCase { return wsCase{send: []frame{m}, chop: chop} }, 256*kib)
	}
	for _, size := range []int{0, 16, 64, 125, 126, kib} {
		for i, message := range []frame{text(strings.Repeat("*", size)), binaryOf(bytes.Repeat([]byte{0xFE}, size))} {
			many := slices.Repeat([]frame{message}, 1000)
			cases = append(cases, wsCase{name: fmt.Sprintf("9.%d messages of %d", 7+i, size), send: many, want: echoes(many...)})
		}
	}
	runCases(t, cases)
}

// TestReadLimit is about messages around the default read limit.
func TestReadLimit(t *testing.T) {
	limit := int(mux.DefaultConfig().WebSocket.ReadLimit)
	fits, tooLong := text(strings.Repeat("*", limit)), text(strings.Repeat("*", limit+1))
	hello := text("hello")
	endless := binaryOf(bytes.Repeat([]byte{0xFE}, 2*limit))
	endless.claim = 1<<63 - 1
	runCasesWithin(t, int64(limit), []wsCase{
		{name: "at the limit", send: []frame{fits, hello}, want: echoes(fits, hello)},
		{name: "at the limit in fragments", send: append(fragments(fits, 1000), hello), want: echoes(fits, hello)},
		{name: "over the limit by one", send: []frame{hello, tooLong}, want: echoes(hello), code: tooBig},
		{name: "over the limit by one in fragments", send: append([]frame{hello}, fragments(tooLong, 1000)...), want: echoes(hello), code: tooBig},
		{name: "of 8 EiB by its header", send: []frame{hello, endless}, want: echoes(hello), code: tooBig},
	})
}
