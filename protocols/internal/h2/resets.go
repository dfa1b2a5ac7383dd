package h2

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

const (
	// resetWindow is the minute of MaxResetsPerMinute.
	resetWindow = time.Minute
	// rapidAge is how old a stream may be whose reset counts. Rapid Reset lives on streams
	// that end before they count as open, so that more of them are opened than may be open
	// at once. A client that waits for longer can open no more of them than one that waits
	// for the answers.
	rapidAge = 20 * time.Millisecond
	// recentStreams is for how many of the latest streams a resetBound knows when they were
	// opened and what the server has said. That is more than are usually open at once.
	recentStreams = 256
)

// lateStreams is how many streams a client may open behind the GOAWAY that answers its resets,
// in times of those that it may have open. A busy gateway opens some hundred before it has read
// that GOAWAY, and what its other clients have in flight would be cut.
const lateStreams = 8

// saidAnswer is set of a stream on which the server has sent HEADERS or DATA.
const saidAnswer uint32 = 1

// saidBits is how many bits stand below the time of a stream.
const saidBits = 1

// A resetBound judges a client by the streams that it has had broken off while they were open:
// those that it resets soon after it has opened them and before the server has answered (Rapid
// Reset, CVE-2023-44487), and those that the server resets because of an illegal frame
// (MadeYouReset, CVE-2025-8671). They are too many if in a minute there were more of them than
// allowed, and more than streams that were answered or that the client has reset later. A client
// that cancels calls after a while, or some of many, stays below that. Streams that the server
// refuses do not count, nor does what crosses the end of one.
//
// Counts are in two buckets of a window each. Of the older one the part counts that the
// window still covers.
type resetBound struct {
	mu       sync.Mutex // guards all but the last three
	began    time.Time
	started  time.Time // Of the newer bucket.
	newer    resetCounts
	older    resetCounts
	exceeded bool
	// recent has for each of the latest streams the millisecond in which it was opened,
	// counted from began, above saidAnswer; 0 if that is not known.
	recent [recentStreams]uint32

	told atomic.Bool // A GOAWAY has been sent because they are too many, and the owner knows.
	late uint32      // How many streams were opened since then. The reading goroutine owns it.
}

// resetCounts are the streams that were broken off, and those that went another way.
type resetCounts struct{ broken, good int }

// answersBefore is how many of the answers before the first reset count, in times of the resets
// that are allowed.
const answersBefore = 10

// resetsOf returns the bound, which the first stream that is broken off makes. Most
// connections never need it. It is nil where resets are not bounded.
//
// What was answered before counts as in the last minute: where the link or the server stands
// still, requests and their resets, which a client sends at their deadlines, are read together.
func (t *Track) resetsOf() *resetBound {
	if t.maxResets <= 0 {
		return nil
	}
	if r := t.resets.Load(); r != nil {
		return r
	}
	now := time.Now()
	t.resets.CompareAndSwap(nil, &resetBound{
		began: now, started: now,
		older: resetCounts{good: int(min(int64(t.answered.Load()), answersBefore*int64(t.maxResets)))},
	})
	return t.resets.Load()
}

// reset takes note of a RST_STREAM of the client.
func (t *Track) reset(stream uint32) {
	r := t.resetsOf()
	highest := t.highest.Load()
	if r != nil && t.open.has(stream, highest) && r.cancel(stream, highest, int(t.maxResets)) {
		t.flooded()
	}
}

// fault takes note of a RST_STREAM of the server, with what it gives as the reason. Where
// the client has broken the rules, the handler may run on, as behind a reset of the
// client's. Data that crosses the end of a response breaks none.
//
// The caller has t.mu, so what the client is told follows later.
func (t *Track) fault(stream uint32, code http2.ErrCode) {
	switch code {
	case http2.ErrCodeProtocol, http2.ErrCodeFlowControl, http2.ErrCodeStreamClosed, http2.ErrCodeFrameSize:
	default:
		return
	}
	r := t.resetsOf()
	if r != nil && t.open.has(stream, t.highest.Load()) && r.breakOff(int(t.maxResets)) {
		go t.flooded()
	}
}

// flooded tells the server's owner, who names the client's last stream later, and then the
// client to leave. Behind that the owner knows why the connection ends, if the client goes on.
func (t *Track) flooded() {
	if t.watch != nil && t.watch.OnFlood != nil {
		t.watch.OnFlood(t.inner)
	}
	t.ask(askGoAway)
	t.resets.Load().told.Store(true)
}

// slot returns the place of a stream in recent. A client's streams are odd (RFC 9113,
// section 5.1.1).
func (r *resetBound) slot(stream uint32) *uint32 { return &r.recent[stream/2%recentStreams] }

// isRecent reports whether recent has room for stream, while highest is the last one.
func isRecent(stream, highest uint32) bool {
	return stream <= highest && (highest-stream)/2 < recentStreams
}

// age returns a time as recent keeps it.
func (r *resetBound) age(now time.Time) uint32 {
	return uint32(max(1, now.Sub(r.began).Milliseconds())) << saidBits
}

// opened notes that the client has opened stream, behind last. The reading goroutine calls it.
func (r *resetBound) opened(last, stream uint32) {
	if r.told.Load() {
		r.late++
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	first := last + 2
	if last == 0 {
		first = 1
	}
	if !isRecent(first, stream) {
		first = stream - 2*(recentStreams-1)
	}
	for ; first < stream; first += 2 {
		*r.slot(first) = 0 // It was left out.
	}
	*r.slot(stream) = r.age(time.Now())
}

// answered notes that the server has sent a part of the answer on stream.
func (r *resetBound) answered(stream, highest uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.slot(stream)
	if !isRecent(stream, highest) || *s == 0 || *s&saidAnswer != 0 {
		return
	}
	r.turn(time.Now())
	r.newer.good++
	*s |= saidAnswer
}

// isYoung reports whether a stream was opened within the last rapidAge, as far as is known.
// One that recent has no room for any more is older than all that it has.
func (r *resetBound) isYoung(now time.Time, stream, highest uint32) bool {
	if !isRecent(stream, highest) {
		stream = highest - 2*(recentStreams-1)
	}
	opened := *r.slot(stream) &^ saidAnswer
	return opened != 0 && r.age(now)-opened <= uint32(rapidAge.Milliseconds())<<saidBits
}

// cancel counts an open stream that the client resets: as broken off if it is young and the
// server has not answered. It reports whether there are now too many of those, once.
func (r *resetBound) cancel(stream, highest uint32, most int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if isRecent(stream, highest) {
		if s := *r.slot(stream); s == 0 || s&saidAnswer != 0 {
			return false
		}
	}
	now := time.Now()
	r.turn(now)
	if !r.isYoung(now, stream, highest) {
		r.newer.good++
		return false
	}
	return r.tooMany(now, most)
}

// breakOff counts a stream that the server resets for a fault of the client's, however old it is.
// It reports whether there are now too many, once.
func (r *resetBound) breakOff(most int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.turn(now)
	return r.tooMany(now, most)
}

// tooMany counts a stream that is broken off, and reports whether there are now too many, once.
// The caller holds mu.
func (r *resetBound) tooMany(now time.Time, most int) bool {
	r.newer.broken++
	covered := resetWindow - now.Sub(r.started)
	part := func(n int) int { return int(int64(n) * int64(covered) / int64(resetWindow)) }
	broken := r.newer.broken + part(r.older.broken)
	if r.exceeded || broken <= most || broken <= r.newer.good+part(r.older.good) {
		return false
	}
	r.exceeded = true
	return true
}

// turn begins a bucket where that is due.
func (r *resetBound) turn(now time.Time) {
	if age := now.Sub(r.started); age >= 2*resetWindow {
		r.started, r.older, r.newer = now, resetCounts{}, resetCounts{}
	} else if age >= resetWindow {
		r.started, r.older, r.newer = r.started.Add(resetWindow), r.newer, resetCounts{}
	}
}
