package protocols

import "golang.org/x/net/http2"

// A trackedWrite is one Write of the server. It walks over the frames in p and
// writes them in as few pieces as it can: one, where nothing comes between and nothing is taken out.
type trackedWrite struct {
	t     *http2Track
	p     []byte
	sent  int       // p[:sent] is on the wire, taken out, or held back.
	at    int       // p[:at] has been looked at.
	saved wireState // What was known at sent.
}

// run does it all. On an error, sent says how much of p the server need not write again.
func (w *trackedWrite) run() error {
	t := w.t
	if t.broken {
		return w.pass()
	}
	out := &t.wire.out
	head := 0 // Where the incomplete head begins, if it does so in p.
	for {
		if t.pending.Load() != 0 && out.mayInsert() {
			if err := w.flush(w.at); err != nil {
				return err
			}
			if _, err := t.insert(); err != nil {
				return err
			}
			w.saved = t.wire
		}
		if w.at == len(w.p) {
			break
		}
		if out.atBoundary() {
			head = w.at
		}
		if err := w.step(head); err != nil {
			return err
		}
	}
	if out.have == 0 || !t.wire.away.ours || out.wired > 0 {
		err := w.flush(len(w.p))
		if err == nil {
			out.wired = out.have
		}
		return err
	}
	// The head may be a GOAWAY's, which is not to be told before it is known.
	if err := w.flush(head); err != nil {
		return err
	}
	out.owed = out.have
	w.sent = len(w.p)
	return nil
}

// step goes on by a payload, or what there is of it, or a piece of a head.
func (w *trackedWrite) step(head int) error {
	out := &w.t.wire.out
	wasLeft := out.left > 0
	n, complete := out.advance(w.p[w.at:])
	w.at += n
	switch {
	case wasLeft && out.drop:
		out.drop = out.left > 0
		w.skip()
	case !complete:
	case w.t.wire.isNeedless():
		if err := w.flush(head); err != nil {
			return err
		}
		out.note(out.frame())
		out.drop = out.left > 0
		w.skip()
	default:
		if err := w.repay(); err != nil {
			return err
		}
		w.t.passed()
	}
	return nil
}

// flush writes the bytes up to end that are not yet written. If that fails, it
// puts the track back to what is on the wire.
func (w *trackedWrite) flush(end int) error {
	if end <= w.sent {
		return nil
	}
	run := w.p[w.sent:end]
	n, err := w.t.conn.inner.Write(run)
	w.sent += n
	if err != nil {
		w.t.redo(w.saved, run[:n])
		return err
	}
	w.saved = w.t.wire
	return nil
}

// skip passes over the bytes up to at without writing them.
func (w *trackedWrite) skip() {
	w.sent = w.at
	w.saved = w.t.wire
}

// repay writes what earlier writes have held back of the head that is complete now, before the rest of it.
func (w *trackedWrite) repay() error {
	out := &w.t.wire.out
	if out.owed == 0 {
		return nil
	}
	if _, err := w.t.conn.inner.Write(out.head[:out.owed]); err != nil {
		w.t.abort() // The server takes these bytes for written.
		return err
	}
	w.saved.out.wired, w.saved.out.owed = w.saved.out.have, 0
	return nil
}

// pass writes p as it is.
func (w *trackedWrite) pass() (err error) {
	w.sent, err = w.t.conn.inner.Write(w.p)
	return err
}

// isNeedless reports whether the frame whose head has become complete is to be taken out.
//
// A client must not see the last stream of a GOAWAY grow (RFC 9113, section 6.8), and grpc-go's closes
// the connection if it does. So behind a GOAWAY of ours one of the server's that lowers nothing
// is taken out, unless it brings an error code. One whose first bytes are on the wire is too late to take out.
func (s *wireState) isNeedless() bool {
	h := s.out.frame()
	if !s.away.ours || s.out.wired > 0 || h.typ != http2.FrameGoAway || h.length < keptPayload {
		return false
	}
	last, code := goAwayFields(s.out.payload())
	return code == http2.ErrCodeNo && last >= s.away.last
}

// passed takes note of a frame of the server's whose head is complete, and goes to the client.
func (t *http2Track) passed() {
	h := t.wire.out.frame()
	t.wire.out.note(h)
	switch {
	case h.typ == http2.FrameGoAway && h.length >= keptPayload:
		last, _ := goAwayFields(t.wire.out.payload())
		t.wire.away.server = true
		t.wire.away.last = min(t.wire.away.last, last)
		t.noteAway(t.wire.out.payload())
		t.marks.Or(markTold | markSettled)
	case h.typ == http2.FrameWindowUpdate && h.stream == 0 && h.length == windowUpdateLen:
		t.window.Add(int64(increment(t.wire.out.payload())))
	case h.typ == http2.FramePing && !h.isAck():
		t.notePing()
	case h.flags.Has(http2.FlagDataEndStream) && (h.typ == http2.FrameData || h.typ == http2.FrameHeaders):
		if r := t.resets.Load(); r != nil {
			r.ended(h.stream, t.highest.Load())
		}
	}
}

// redo goes back to what was known at saved, and lets it follow p, which is on the wire.
func (t *http2Track) redo(saved wireState, p []byte) {
	t.wire = saved
	out := &t.wire.out
	for len(p) > 0 {
		n, complete := out.advance(p)
		p = p[n:]
		if complete {
			t.passed()
		}
	}
	out.wired = out.have
}
