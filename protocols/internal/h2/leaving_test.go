package h2

import (
	"bytes"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
)

// TestPingBehindGoAway: the PING follows the first GOAWAY later, in a write of its own and not
// within a header block. It does not where a final GOAWAY comes first, or the connection ends.
func TestPingBehindGoAway(t *testing.T) {
	headers := func(flags http2.Flags) []byte {
		return appendStreamFrame(nil, http2.FrameHeaders, flags, 1, []byte("block"))
	}
	answer := headers(http2.FlagHeadersEndHeaders | http2.FlagHeadersEndStream)
	rest := appendStreamFrame(nil, http2.FrameContinuation, http2.FlagContinuationEndHeaders, 1, []byte("end"))
	write := func(p []byte) func(*trackedConn) { return func(c *trackedConn) { _, _ = c.Write(p) } }
	for name, test := range map[string]struct {
		do   func(*trackedConn)
		then func(*trackedConn) // later
		want []byte             // behind the first GOAWAY
	}{
		"alone":              {want: goAwayPingFrame()},
		"behind an answer":   {do: write(answer), want: slices.Concat(answer, goAwayPingFrame())},
		"within a block":     {do: write(headers(0)), then: write(rest), want: slices.Concat(headers(0), rest, goAwayPingFrame())},
		"behind half a head": {do: write(answer[:4]), then: write(answer[4:]), want: slices.Concat(answer, goAwayPingFrame())},
		"final GOAWAY":       {do: (*trackedConn).FinalGoAway, want: AppendGoAway(nil, 0, http2.ErrCodeNo, "")},
		"server's GOAWAY":    {do: write(AppendGoAway(nil, 0, http2.ErrCodeNo, "")), want: AppendGoAway(nil, 0, http2.ErrCodeNo, "")},
		"end":                {do: func(c *trackedConn) { c.End() }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inner := &wireConn{}
				c, _ := newTracked(inner, Options{})
				c.GoAway() // The server's first write takes it along.
				if _, err := c.Write(serverSettings()); err != nil {
					t.Fatal(err)
				}
				if test.do != nil {
					test.do(c)
				}
				c.mu.Lock()
				if bytes.Contains(inner.wrote.Bytes(), goAwayPingFrame()) {
					t.Error("the PING came at once")
				}
				c.mu.Unlock()
				sleepPast()
				if test.then != nil {
					test.then(c)
				}
				want := slices.Concat(serverSettings(), firstGoAway(), test.want)
				if diff := cmp.Diff(want, inner.wrote.Bytes()); diff != "" || inner.mixed {
					t.Errorf("mixed %t, wrote (-want +got):\n%s", inner.mixed, diff)
				}
			})
		})
	}
}
