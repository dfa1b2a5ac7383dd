package mux

import (
	"slices"
	"testing"

	"github.com/muxserve/muxserve/listeners"
)

// TestBySockets: addresses of several sockets are opened last, in the order of the
// configuration as far as that leaves it.
func TestBySockets(t *testing.T) {
	var endpoints []*endpoint
	for _, n := range []int{8, 0, 2, 0} {
		endpoints = append(endpoints, &endpoint{config: listeners.Config{ReusePort: n}})
	}
	want := []*endpoint{endpoints[1], endpoints[3], endpoints[2], endpoints[0]}
	if got := bySockets(endpoints); !slices.Equal(got, want) || endpoints[0].config.ReusePort != 8 {
		t.Errorf("got %v, want %v", got, want)
	}
}
