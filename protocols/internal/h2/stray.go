package h2

import (
	"bytes"
	"slices"

	"golang.org/x/net/http2"
)

// hideStray hides the frame that p goes on with from net/http, where it is a stray: RST_STREAM
// or WINDOW_UPDATE of a stream that the client has not opened, behind a GOAWAY. nghttpx resets
// a stream whose HEADERS the GOAWAY has kept it from sending. For net/http that is an error of
// the connection (RFC 9113, section 5.1), which ends all answers in flight. Behind a GOAWAY of
// its own net/http passes over such frames, but it does not know of ours. grpc-go always does.
//
// It returns how much of p may be followed. The rest is held until the header is whole: only
// then the stream is known, and the server gets each byte at once.
func (t *Track) hideStray(p []byte) int {
	if t.pace == nil || t.marks.Load()&markTelling == 0 {
		return len(p)
	}
	at, h := t.in.next(p)
	switch {
	case at < 0, h.Type != http2.FrameRSTStream && h.Type != http2.FrameWindowUpdate, h.Length != rstStreamLen:
	case len(p)+int(t.in.have) < HeaderLen:
		t.pace.held = bytes.Clone(p[at:])
		return at
	case h.Stream%2 == 1 && h.Stream > t.highest.Load():
		p[at] = byte(hiddenFrame)
	}
	return len(p)
}

// followHeld is follow for what was held before p, and p.
func (t *Track) followHeld(p []byte) int {
	if t.pace == nil || len(t.pace.held) == 0 {
		return t.follow(p)
	}
	all := slices.Concat(t.pace.held, p)
	t.pace.held = nil
	all = all[:t.follow(all)]
	n := copy(p, all)
	t.pace.rest = all[n:]
	return n
}
