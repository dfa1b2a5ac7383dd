package h2

import (
	"slices"
	"sync"
)

// openStreams knows which streams of a connection have ended: their answers are complete on
// the wire, or the client or the server has reset them. The others are open, up to the
// highest that the client has opened. grpc-go answers behind its handlers: an answer waits
// in its queue for the client's window while no handler runs.
//
// Where streams end in their order nothing is kept but the last. A stream may be said to
// have ended more than once. Behind its GOAWAY a server drops streams without a word, so
// those are taken for ended. The zero value is ready to use.
type openStreams struct {
	mu     sync.Mutex // guards what follows; held for no read or write
	beyond uint32     // one more than the highest stream that has ended
	final  uint32     // one more than the last stream that the server serves; 0: it serves all
	below  *gaps      // nil until streams have ended out of their order, which saves 16 bytes
}

// gaps are the open streams below the highest that has ended, in their order.
type gaps []streamRange

// streamRange are the client's streams from first to last, whose numbers are odd (RFC 9113,
// section 5.1.1).
type streamRange struct{ first, last uint32 }

// find returns the range that has a stream.
func (g gaps) find(stream uint32) (i int, found bool) {
	return slices.BinarySearchFunc(g, stream, func(r streamRange, s uint32) int {
		switch {
		case r.last < s:
			return -1
		case r.first > s:
			return 1
		default:
			return 0
		}
	})
}

// has reports whether a stream is open, where highest is the last that the client has opened.
func (o *openStreams) has(stream, highest uint32) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if stream > o.beyond {
		return stream <= highest
	}
	if o.below == nil {
		return false
	}
	_, found := o.below.find(stream)
	return found
}

// end notes that a stream has ended, which the client has opened.
func (o *openStreams) end(stream uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if stream > o.beyond {
		o.endAbove(stream, stream)
		return
	}
	if o.below == nil {
		return
	}
	open := *o.below
	i, found := o.below.find(stream)
	if !found {
		return
	}
	switch g := &open[i]; {
	case g.first == g.last:
		*o.below = slices.Delete(open, i, i+1)
	case g.first == stream:
		g.first += 2
	case g.last == stream:
		g.last -= 2
	default:
		rest := streamRange{stream + 2, g.last}
		g.last = stream - 2
		*o.below = slices.Insert(open, i+1, rest)
	}
}

// open notes that the client has opened a stream, where last was the highest before. Those
// between them it cannot open any more.
func (o *openStreams) open(last, stream uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	next := stream // the lowest that may be open
	if o.final != 0 && stream >= o.final {
		next += 2
	}
	if first := (last + 1) | 1; first < next {
		o.endAbove(first, next-2)
	}
}

// leave notes that the server serves no stream beyond last.
func (o *openStreams) leave(last uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if last < maxStreamID && (o.final == 0 || last+1 < o.final) {
		o.final = last + 1
	}
}

// endAbove notes that streams have ended above all others that have. The caller holds mu.
func (o *openStreams) endAbove(first, last uint32) {
	if open := o.beyond | 1; open < first {
		if o.below == nil {
			o.below = new(gaps)
		}
		*o.below = append(*o.below, streamRange{open, first - 2})
	}
	o.beyond = last + 1
}

// any reports whether a stream up to last is open, which the client has opened.
func (o *openStreams) any(last uint32) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.final != 0 {
		last = min(last, o.final-1)
	}
	return last > o.beyond || o.below != nil && len(*o.below) > 0 && (*o.below)[0].first <= last
}
