package h2

import (
	"sync/atomic"
	"time"
)

const (
	// resetWindow is the minute of MaxResetsPerMinute.
	resetWindow = time.Minute
	// endedStreams is for how many of the latest streams a resetBound knows whether the
	// server has ended them. More than that are seldom open at once, since the usual
	// limit is 100. The reset of an older stream is counted.
	endedStreams = 256
	wordBits     = 64
)

// A resetBound counts the streams that a client resets, in two buckets of a window each.
// Of the older bucket it counts the part that the window still covers. The writing
// goroutine sets bits; the reading one owns all else.
type resetBound struct {
	started  time.Time // Of the newer bucket.
	newer    int
	older    int
	exceeded bool
	bits     [endedStreams / wordBits]atomic.Uint64
}

// reset takes note of a RST_STREAM. Streams that the server has ended do not count: their
// reset costs nothing, and grpc-go's clients send it whenever a call is answered before
// its request has ended. The first reset makes the resetBound, which most connections
// never need.
func (t *Track) reset(stream uint32) {
	if t.maxResets <= 0 {
		return
	}
	r := t.resets.Load()
	if r == nil {
		r = &resetBound{started: time.Now()}
		t.resets.Store(r)
	}
	if r.exceeded || r.hasEnded(stream, t.highest.Load()) || r.count(time.Now()) <= int(t.maxResets) {
		return
	}
	r.exceeded = true
	t.ask(askCalm)
	if t.watch != nil && t.watch.OnFlood != nil {
		t.watch.OnFlood(t)
	}
}

// count counts a reset, and returns how many there were in the window up to now.
func (r *resetBound) count(now time.Time) int {
	if age := now.Sub(r.started); age >= 2*resetWindow {
		r.started, r.older, r.newer = now, 0, 0
	} else if age >= resetWindow {
		r.started, r.older, r.newer = r.started.Add(resetWindow), r.newer, 0
	}
	r.newer++
	covered := resetWindow - now.Sub(r.started)
	return r.newer + int(int64(r.older)*int64(covered)/int64(resetWindow))
}

// bit returns a stream's bit. A client's streams are odd (RFC 9113, section 5.1.1).
func (r *resetBound) bit(stream uint32) (word *atomic.Uint64, mask uint64) {
	i := stream / 2 % endedStreams
	return &r.bits[i/wordBits], 1 << (i % wordBits)
}

// isRecent reports whether bits has room for stream, while highest is the last one.
func isRecent(stream, highest uint32) bool {
	return stream <= highest && (highest-stream)/2 < endedStreams
}

// opened clears the bits of the streams behind last up to stream.
func (r *resetBound) opened(last, stream uint32) {
	first := last + 2
	if last == 0 {
		first = 1
	}
	if !isRecent(first, stream) {
		first = stream - 2*(endedStreams-1)
	}
	for ; first <= stream; first += 2 {
		word, mask := r.bit(first)
		word.And(^mask)
	}
}

// ended notes that the server has ended stream.
func (r *resetBound) ended(stream, highest uint32) {
	if isRecent(stream, highest) {
		word, mask := r.bit(stream)
		word.Or(mask)
	}
}

func (r *resetBound) hasEnded(stream, highest uint32) bool {
	word, mask := r.bit(stream)
	return isRecent(stream, highest) && word.Load()&mask != 0
}
