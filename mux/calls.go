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

// of returns the counts of a method, which is shown from now on.
func (m *methodCounts) of(method string) *codeCounts {
	if counts, ok := m.known.Load(method); ok {
		return counts.(*codeCounts) //nolint:forcetypeassert // Nothing else is stored.
	}
	if method != otherMethods && m.size.Add(1) > maxMethods {
		return m.of(otherMethods)
	}
	counts, _ := m.known.LoadOrStore(method, new(codeCounts))
	return counts.(*codeCounts) //nolint:forcetypeassert // The same.
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
