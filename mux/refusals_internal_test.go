package mux

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestRefusalPace: what is refused for the same fault has a line at once and one in ten
// seconds, with the count and the first peer. A fault without a cure has none.
func TestRefusalPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, take := loggedBooks(t)
		check := func(want ...string) {
			t.Helper()
			synctest.Wait()
			if diff := cmp.Diff(want, take()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}
		refuse := func(f *fault, port int) {
			key, remote := refusalKey{"http1", f}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 5), Port: port}
			b.refusals.count(key, remote, time.Now())
			if f.cure != "" {
				b.refusals.lines.note(key, refusedConns{1, remote, nil})
			}
		}
		line := func(f, count, port string) string {
			return `level=WARN msg="connections refused" reason=limit detail="` + f + `" count=` + count +
				` protocol=http1 remote_addr=10.0.0.5:` + port + ` local_addr="" cure=`
		}
		refuse(faultSilent, 1)
		refuse(faultPoolLimit, 7)
		refuse(faultLimit, 8)
		check(line(faultPoolLimit.detail, "1", "7")+`"`+faultPoolLimit.cure+`"`, line(faultLimit.detail, "1", "8")+`"`+faultLimit.cure+`"`)
		for port := range 37 {
			refuse(faultPoolLimit, 100+port)
			time.Sleep(100 * time.Millisecond)
		}
		check()
		time.Sleep(refusalPace - 3700*time.Millisecond)
		check(line(faultPoolLimit.detail, "37", "100") + `"` + faultPoolLimit.cure + `"`)
		time.Sleep(time.Minute)

		refuse(faultPoolLimit, 9)
		refuse(faultPoolLimit, 10)
		b.end()
		check(line(faultPoolLimit.detail, "1", "9")+`"`+faultPoolLimit.cure+`"`, line(faultPoolLimit.detail, "1", "10")+`"`+faultPoolLimit.cure+`"`)

		want := map[string]Refusal{
			faultSilent.detail:    {Protocol: "http1", Reason: "silent", Total: 1, RemoteAddr: "10.0.0.5:1"},
			faultPoolLimit.detail: {Protocol: "http1", Reason: "limit", Total: 40, LastMinute: 2, RemoteAddr: "10.0.0.5:10"},
			faultLimit.detail:     {Protocol: "http1", Reason: "limit", Total: 1, RemoteAddr: "10.0.0.5:8"},
		}
		all := b.refusals.list(time.Now())
		if len(all) != len(faults) {
			t.Errorf("%d faults, want %d", len(all), len(faults))
		}
		for _, r := range all {
			if w, ok := want[r.Detail]; ok != (r.Total > 0) {
				t.Errorf("%+v", r)
			} else if diff := cmp.Diff(w, r, cmpopts.IgnoreFields(Refusal{}, "Detail", "Cure", "Last")); ok && diff != "" {
				t.Errorf("%s (-want +got):\n%s", r.Detail, diff)
			}
		}
	})
}
