package stress

import (
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/testdata/clients/process"
)

// The openings that slow clients send, a byte a second. The last one is the
// beginning of a ClientHello (RFC 8446, section 4.1.2).
const (
	slowRequest = "GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n"
	slowHello   = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 is what a ClientHello begins with"
)

// maxRatio is how much slower the normal client's p99 may get. In the short
// form, which shares two processors with the race detector, it only tells a
// server that serves on from one that does not.
func maxRatio() float64 { return pick(5.0, 2.0) }

// resolution is the least p99 that is told from zero: what the scheduler of a
// small machine adds to a request here and there.
const resolution = 2 * time.Millisecond

// attempts is how often the comparison is made until it comes out well, since
// other programs share the machine.
const attempts = 3

// TestSlowClients opens a great many connections that send a byte a second,
// while a normal client asks on. They must be gone in time, and the normal
// client must hardly notice.
func TestSlowClients(t *testing.T) {
	cert, key := certificate(t)
	tests := []struct {
		name  string
		args  []string
		says  []string
		bound time.Duration
	}{
		{"plaintext", nil, []string{slowRequest, http2.ClientPreface}, headTime},
		{"TLS", []string{"--tls-cert=" + cert, "--tls-key=" + key}, []string{slowHello}, handshakeTime},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ratio := maxRatio() + 1
			for range attempts {
				p := start(t, process.Options{Args: tt.args})
				ratio = compare(t, p, len(tt.args) > 0, tt.says, tt.bound)
				if ratio <= maxRatio() || t.Failed() {
					break
				}
			}
			if ratio > maxRatio() {
				t.Errorf("the normal client's p99 has grown %.1f-fold at best, want %.1f", ratio, maxRatio())
			}
		})
	}
}

// compare lets a normal client ask as long without slow clients as with them,
// and returns how its p99 has changed.
func compare(t *testing.T, p *process.Process, withTLS bool, says []string, bound time.Duration) float64 {
	t.Helper()
	before := ask(t, p.Addr, withTLS, func() {
		timer := time.NewTimer(bound)
		<-timer.C
	})
	var slow slowResult
	during := ask(t, p.Addr, withTLS, func() {
		slow = runSlowClients(t, slowTask{Addr: p.Addr, Says: says, Bound: bound + slack, Clients: pick(500, 9000)})
	})
	t.Logf("%d slow connections, the last one gone after %v; normal client: %d requests, p99 %v before; %d requests, p99 %v meanwhile; process at most %d MiB",
		slow.Opened, slow.Longest.Round(time.Millisecond), before.answered, before.p99(), during.answered, during.p99(), peakMemory(t, p)>>20)
	if slow.Left > 0 || slow.Failed > 0 {
		t.Errorf("%d connections could not be opened and %d were open after %v", slow.Failed, slow.Left, bound+slack)
	}
	for _, err := range append(before.errs, during.errs...) {
		t.Errorf("the normal client: %v", err)
	}
	return float64(during.p99()) / float64(max(before.p99(), resolution))
}
