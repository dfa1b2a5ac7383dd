package browser

import (
	"fmt"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestAdminWords: the modules of the page name numbers, times and peers as they should.
func TestAdminWords(t *testing.T) {
	s := start(t)
	ctx := newTab(t)
	act(ctx, t, chromedp.Navigate(s.admin+"/"))
	for _, tt := range []struct{ module, expression, want string }{
		{"words", `[0, 0.00004, 0.0041, 0.5, 59.9, 61, 3700, 90000].map(m.span)`, `["0 s","40 µs","4.1 ms","500 ms","59 s","1m 1s","1h 1m","1d 1h"]`},
		{"words", `[0.02, 0.9999, 1.26, 30].map(m.exact)`, `["20 ms","1.0 s","1.3 s","30.0 s"]`},
		{"words", `[0, 0.0001, 0.05, 0.5].map(m.percent)`, `["0 %","<0.1 %","5.0 %","50 %"]`},
		{"words", `[10, 2048, 3e6].map(m.size)`, `["10 B","2.0 KiB","2.9 MiB"]`},
		{"words", `m.named({ websocket: 14, grpc: 3, http1: 0 })`, `"3 gRPC, 14 WebSocket"`},
		{"chart", `[m.ticks(5, 4), m.ticks(3300, 4)]`, `[[0,2,4],[0,1000,2000,3000]]`},
		{"chart", `[0.0013, 4, 77].map(m.roundUp)`, `[0.0016,4,80]`},
		{"chart", `m.fromEdge([{ at: -310, values: { a: 1 } }, { at: -290, values: { a: 3 } }])`, `[{"at":-300,"values":{"a":2}},{"at":-290,"values":{"a":3}}]`},
		{"peers", `["10.", "10.2", "10.2.3.", "1.2.3.4", "1.2.3.4:50", "::1", "2001:db8::/32", "x"].map(m.completed)`,
			`["10.0.0.0/8","10.2.0.0/16","10.2.3.0/24","1.2.3.4","1.2.3.4:50","::1","2001:db8::/32","x"]`},
		{"peers", `[["10.2.", "10.2.9.9:1"], ["10.2.", "10.3.9.9:1"], ["10.2.9.9:1", "10.2.9.9:1"], ["10.2.9.9:1", "10.2.9.9:2"],
			["2001:db8::/32", "[2001:db8:4::1]:80"], ["2001:db8::/32", "[2001:db9::1]:80"], ["::1", "[::1]:4"], ["[::1]:4", "[::1]:4"], ["x", "10.2.9.9:1"], ["", ""]]
			.map(([filter, peer]) => m.matcher(filter)(peer))`, `[true,false,true,false,true,false,true,true,false,true]`},
	} {
		if got := eval[string](ctx, t, fmt.Sprintf(`import("/page/%s.js").then((m) => JSON.stringify(%s))`, tt.module, tt.expression)); got != tt.want {
			t.Errorf("%s: %s is %s, want %s", tt.module, tt.expression, got, tt.want)
		}
	}
}
