package h2

import (
	"sync"
	"testing"
)

// TestStreamGate: what passes is served, and what does not is beyond the last stream that is
// named, however streams come beside that.
func TestStreamGate(t *testing.T) {
	const streams = 100
	for range 200 {
		var g streamGate
		var passed uint32
		var last [2]uint32
		var wg sync.WaitGroup
		wg.Go(func() {
			for stream := uint32(1); stream < 2*streams; stream += 2 {
				if g.pass(stream) {
					passed = stream
				} else if !g.isBeyond(stream) {
					t.Errorf("stream %d neither passes nor is it beyond the last", stream)
				}
			}
		})
		for i := range last {
			wg.Go(func() { last[i] = g.shut() })
		}
		wg.Wait()
		if last[0] != passed || last[1] != passed || g.isBeyond(passed) || !g.isBeyond(passed+2) {
			t.Fatalf("the last that passes is %d, %d and %d are named", passed, last[0], last[1])
		}
	}
}
