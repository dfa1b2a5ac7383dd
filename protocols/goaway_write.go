package protocols

import (
	"cmp"
	"crypto/tls"
	"time"

	"golang.org/x/net/http2"
)

// insertTimeout bounds the writing of a frame of ours while the server writes nothing.
const insertTimeout = time.Second

// resetsDebug is what the GOAWAY for too many resets says to people.
const resetsDebug = "too many streams were reset"

// Write writes p, which is the server's, and between its frames what was asked for. It looks at every frame, and
// returns as a net.Conn's Write does. It is safe with everything but itself and [Conn.Write].
//
//go:noinline
func (t *http2Track) Write(p []byte) (int, error) {
	t.mu.Lock()
	w := trackedWrite{t: t, p: p, saved: t.wire}
	err := w.run()
	t.unlock(err)
	return w.sent, err
}

// beginPlain takes mu for a write of p as it is, which endPlain ends. Where p needs more than that, it reports false.
//
//go:noinline
func (t *http2Track) beginPlain(p []byte) bool {
	t.mu.Lock()
	if t.isPlain(p) {
		t.plain = p
		return true
	}
	t.mu.Unlock()
	return false
}

// endPlain ends what beginPlain began, and returns what the write did.
//
//go:noinline
func (t *http2Track) endPlain(n int, err error) (int, error) {
	if err != nil {
		t.redo(t.wire, t.plain[:n])
	}
	t.plain = nil
	t.unlock(err)
	return n, err
}

// unlock gives mu back behind a write, with its error. If it went well, what was asked for meanwhile may be written.
func (t *http2Track) unlock(err error) {
	t.data.Store(t.wire.out.data)
	t.mu.Unlock()
	if err == nil {
		t.settle(false)
	}
}

// writeFiltered is Write for what the filter leaves of p.
func (t *http2Track) writeFiltered(p []byte) (int, error) {
	n, err := t.filter.write(t, p)
	if gate := t.gate.Load(); gate != nil && (t.filter.acks == 0 || err != nil) {
		gate.open()
	}
	if t.filter.finished() {
		t.filter = nil
	}
	return n, err
}

// isPlain reports whether p can be written as it is and changes nothing of what is known: whole frames, as most writes are,
// while nothing is to come between them. It counts their DATA, and takes note of the server's own PING and of the room that it
// makes on the connection: grpc-go sends these with every other call. A write that fails is the connection's last, so
// it does not matter that they are counted before, and once more behind it.
func (t *http2Track) isPlain(p []byte) bool {
	out := &t.wire.out
	if t.pending.Load() != 0 || t.broken || t.wire.away.ours || !out.mayInsert() {
		return false
	}
	var data, room uint64
	pings := false
	for len(p) > 0 {
		if len(p) < frameHeaderLen {
			return false
		}
		h := parseFrameHeader(p)
		if len(p)-frameHeaderLen < h.length {
			return false
		}
		switch h.typ {
		case http2.FrameData:
			data += uint64(h.length)
			if h.flags.Has(http2.FlagDataEndStream) && t.resets.Load() != nil {
				return false
			}
		case http2.FramePing:
			pings = pings || !h.isAck()
		case http2.FrameWindowUpdate:
			if h.stream == 0 && h.length == windowUpdateLen {
				room += increment(p[frameHeaderLen:])
			}
		case http2.FrameSettings:
		case http2.FrameHeaders:
			if !h.flags.Has(http2.FlagHeadersEndHeaders) || h.flags.Has(http2.FlagHeadersEndStream) && t.resets.Load() != nil {
				return false
			}
		default:
			return false
		}
		p = p[frameHeaderLen+h.length:]
	}
	out.data += data
	if room > 0 {
		t.window.Add(int64(room))
	}
	if pings {
		t.notePing()
	}
	return true
}

// settle writes what is pending, if it may come now and nobody has mu; who has will do it.
// With bounded, it does not wait long for a client that reads nothing.
func (t *http2Track) settle(bounded bool) {
	for t.pending.Load() != 0 && t.mu.TryLock() {
		ok := t.mayInsert()
		if ok {
			if bounded {
				t.lendDeadline()
			}
			later, err := t.insert()
			ok = !later && err == nil
			if bounded {
				t.returnDeadline()
			}
		}
		t.mu.Unlock()
		if !ok {
			return
		}
	}
}

func (t *http2Track) mayInsert() bool { return !t.broken && t.wire.out.mayInsert() }

// insert writes what is pending. It reports true where not a byte of it could be
// written in time; then it is pending again. It returns an error where the connection had to be closed.
func (t *http2Track) insert() (later bool, err error) {
	asked := t.pending.Swap(0)
	frames, away := t.compose(asked)
	if len(frames) == 0 {
		return false, nil
	}
	if asked&askGoAway != 0 {
		t.marks.Or(markPinged)
	}
	n, err := t.conn.inner.Write(frames)
	if err != nil {
		// A *tls.Conn is broken by any timeout.
		if _, isTLS := t.conn.inner.(*tls.Conn); n == 0 && isTimeout(err) && !isTLS {
			t.pending.Or(asked)
			return true, nil
		}
		t.abort()
		return false, err
	}
	t.wire.away = away
	t.marks.Or(markTold)
	if away.final {
		t.marks.Or(markSettled)
	}
	return false, nil
}

// compose returns the frames for what was asked, and what the client has been told when they are out.
func (t *http2Track) compose(asked uint32) ([]byte, goneAway) {
	away, last := t.wire.away, t.highest.Load()
	var frames []byte
	switch {
	case asked&askCalm != 0:
		away.ours, away.final, away.last = true, true, min(away.last, last)
		return appendGoAway(nil, away.last, http2.ErrCodeEnhanceYourCalm, resetsDebug), away
	case away.server || away.final:
		return nil, away
	}
	if asked&askGoAway != 0 {
		away.ours, away.last = true, maxStreamID
		frames = appendGoAway(frames, maxStreamID, http2.ErrCodeNo, "")
		frames = appendFrame(frames, http2.FramePing, 0, goAwayPing[:])
	}
	if asked&askFinal != 0 {
		away.ours, away.final, away.last = true, true, last
		frames = appendGoAway(frames, last, http2.ErrCode(t.code.Load()), "")
	}
	return frames, away
}

// abort closes a connection that half a frame was written to. A *tls.Conn would
// wait for its peer once more, so it is closed from below.
func (t *http2Track) abort() {
	t.broken = true
	inner := t.conn.inner
	if c, ok := inner.(*tls.Conn); ok {
		inner = c.NetConn()
	}
	_ = inner.Close()
}

// lendDeadline sets a write deadline for a frame of ours.
func (t *http2Track) lendDeadline() {
	t.deadlines.Lock()
	defer t.deadlines.Unlock()
	t.lent = true
	_ = t.conn.inner.SetWriteDeadline(time.Now().Add(insertTimeout))
}

// returnDeadline sets the one that the server wants.
func (t *http2Track) returnDeadline() {
	t.deadlines.Lock()
	defer t.deadlines.Unlock()
	t.lent = false
	_ = t.conn.inner.SetWriteDeadline(t.deadline.time())
}

func (t *http2Track) setWriteDeadline(at time.Time) error {
	t.deadlines.Lock()
	defer t.deadlines.Unlock()
	t.deadline = compactDeadline(at)
	if t.lent {
		return nil
	}
	return t.conn.inner.SetWriteDeadline(at)
}

func (t *http2Track) setDeadlines(at time.Time) error {
	if err := t.conn.inner.SetReadDeadline(at); err != nil {
		return err
	}
	return t.setWriteDeadline(at)
}

// A deadline is a point in time in a third of the size of a time.Time, counted from deadlineBase; 0 is no deadline.
type deadline time.Duration

var deadlineBase = time.Now()

func compactDeadline(t time.Time) deadline {
	if t.IsZero() {
		return 0
	}
	return cmp.Or(deadline(t.Sub(deadlineBase)), 1)
}

func (d deadline) time() time.Time {
	if d == 0 {
		return time.Time{}
	}
	return deadlineBase.Add(time.Duration(d))
}
