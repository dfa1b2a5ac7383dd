package pool_test

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/muxserve/muxserve/pool"
)

// TestPlacesComeBack: however connections yield their places, change pools, become exempt,
// are named and closed at the same time, all places are there again at the end, once.
func TestPlacesComeBack(t *testing.T) {
	const total, perTag, workers, rounds = 12, 4, 8, 300
	tags := []pool.Tag{"http1", "http2", "websocket"}
	var set pool.Set
	set.SetLimits(pool.Limits{
		Config: pool.Config{MaxConnections: total, PerAddress: 5, OnLimit: pool.Refuse},
		PerTag: map[pool.Tag]int{"http1": perTag, "http2": perTag, "websocket": perTag},
	})
	client := pipeFrom(t, "192.0.2.1").RemoteAddr()
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range rounds {
				c := new(pool.Conn)
				set.Add(c, bench{}, nil)
				var together sync.WaitGroup
				for _, do := range []func(){
					func() { set.Yield(c) },
					func() { set.Yield(c) },
					func() { set.Exempt(c) },
					func() { set.Identify(c, client) },
					func() { set.MoveWithin(c, tags[rand.N(len(tags))]) },
					func() { set.MoveWithin(c, tags[rand.N(len(tags))]) },
					func() {
						if tag := tags[rand.N(len(tags))]; set.Reserve(c, tag) {
							set.MoveReserved(c, tag)
						}
					},
					func() { _ = c.Close() },
				} {
					if rand.N(4) > 0 {
						together.Go(do)
					}
				}
				together.Wait()
				_ = c.Close()
			}
		})
	}
	wg.Wait()
	if n, left := set.Yielded(), set.Len(); n != 0 || left != 0 {
		t.Errorf("%d yielded and %d live, want none", n, left)
	}
	for _, tag := range tags {
		for range perTag {
			if !set.Reserve(nil, tag) {
				t.Errorf("%s: a place is lost", tag)
			}
		}
		if set.Reserve(nil, tag) {
			t.Errorf("%s: a place is given out twice", tag)
		}
	}
	for range total {
		if refuse := set.Add(new(pool.Conn), bench{}, nil); refuse != "" {
			t.Errorf("a place of all is lost: %s", refuse)
		}
	}
	if set.Add(new(pool.Conn), bench{}, nil) == "" {
		t.Error("a place of all is given out twice")
	}
}
