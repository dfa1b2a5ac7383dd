package mux

import (
	"net/http"
	"sync/atomic"
	"time"
)

// dates formats the Date field of HTTP/1.1 responses (RFC 9110 section 6.6.1) once in a while instead of once a response,
// which is where net/http spends some 2 % of a small one. The zero value is ready to use.
type dates struct{ last atomic.Pointer[dated] }

// dated is the value of the field at a tick of the connections' clock.
type dated struct {
	tick  uint32
	value []string // shared by many responses, and not to be changed
}

const dateField = "Date"

// set sets the field at the time tick and reports true, unless the handler has decided about it. The header gets no first field by it
// and none beyond the eighth: with these a map begins to grow, which costs more than to format the time.
func (d *dates) set(h http.Header, tick uint32) bool {
	const roomy = 7
	if n := len(h); n == 0 || n > roomy {
		return false
	}
	if _, ok := h[dateField]; ok {
		return false
	}
	now := d.last.Load()
	if now == nil || now.tick != tick {
		now = d.renew(now, tick)
	}
	h[dateField] = now.value
	return true
}

// renew asks the clock on the wall, which may have been set.
func (d *dates) renew(last *dated, tick uint32) *dated {
	now := &dated{tick, []string{time.Now().UTC().Format(http.TimeFormat)}}
	if last != nil && last.value[0] == now.value[0] {
		now.value = last.value
	}
	d.last.Store(now)
	return now
}
