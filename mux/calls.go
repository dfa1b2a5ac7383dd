package mux

import (
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/codes"
)

// otherMethods is what calls are counted under whose method is not registered, or is one of
// too many.
const otherMethods = "other"

// maxMethods bounds how many methods calls are counted by.
const maxMethods = 512

// methodCounts counts gRPC calls by method and code. The zero value is ready to use. All
// methods may be called concurrently.
type methodCounts struct {
	known sync.Map // string -> *codeCounts
	size  atomic.Int64
}

// codeCounts counts by gRPC's codes. The last one is for those that there are not.
type codeCounts [codes.Unauthenticated + 2]atomic.Uint64

// show has a registered method shown from now on, where they are not too many.
func (m *methodCounts) show(method string) {
	if _, ok := m.known.Load(method); !ok && m.size.Add(1) <= maxMethods {
		m.known.LoadOrStore(method, new(codeCounts))
	}
}

// of returns the counts of a method, or those of all that are not shown. It does not keep the
// method, which is the client's text where a server takes unknown services.
func (m *methodCounts) of(method string) *codeCounts {
	counts, ok := m.known.Load(method)
	if !ok {
		counts, _ = m.known.LoadOrStore(otherMethods, new(codeCounts))
	}
	return counts.(*codeCounts) //nolint:forcetypeassert // Nothing else is stored.
}

func (c *codeCounts) add(code codes.Code) { c[min(code, codes.Unauthenticated+1)].Add(1) }

// list returns the counts by method and code, and 0 for the code OK of every method.
func (m *methodCounts) list() map[string]map[int]uint64 {
	all := make(map[string]map[int]uint64)
	m.known.Range(func(method, counts any) bool {
		byCode := map[int]uint64{int(codes.OK): 0}
		c, _ := counts.(*codeCounts)
		for code := range c {
			if n := c[code].Load(); n > 0 {
				byCode[code] = n
			}
		}
		name, _ := method.(string)
		all[name] = byCode
		return true
	})
	return all
}
