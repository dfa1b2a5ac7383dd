package h2

import (
	"crypto/tls"
	"encoding/binary"
	"runtime"
	"slices"
	"time"

	"golang.org/x/net/http2"
)

// insertTimeout bounds how long ask waits for its frame to be written.
const insertTimeout = time.Second

// faultTime is how long a client has to read the error for which its connection ends, and to
// close it. net/http and grpc-go give it as long.
const faultTime = time.Second

// noGoAway is more than any GOAWAY can name.
const noGoAway = maxStreamID + 1

// resetsDebug is the debug data of the GOAWAY to a client that has gone on with resets.
const resetsDebug = "too many streams were reset"

// The debug data of grpc-go's first GOAWAY.
const (
	debugIdle = "max_idle"
	debugAge  = "max_age"
)

// An output is what a track knows about the server's output.
//
// The head of an incomplete frame is held back until its rest comes, since it may
// be a frame to take out. A Write that fails may leave half a frame on the wire, so it
// is the last one. Both servers keep to that: net/http closes the connection, and
// the writer of grpc-go returns the same error from then on.
type output struct {
	walk walk
	err  error // Of the Write that failed; returned by all later ones.

	begun bool // The first SETTINGS is written, which comes first (RFC 9113, section 3.4).
	block bool // A header block is open, which nothing may interrupt (section 4.3).
	drop  bool // The rest of the current payload is taken out.

	ours  bool // One of the GOAWAYs was ours.
	final bool // So that no GOAWAY of ours follows.

	// dropSettings is set while the server's first SETTINGS are still to be taken out.
	dropSettings bool

	dropACKs uint8  // How many ACKs of the server are still to be taken out.
	lastTold uint32 // The lowest stream that a GOAWAY has named, or noGoAway.
	marks    uint32 // What is true when the Write under way succeeds.
}

// resetStreams are the last streams that the server has reset.
type resetStreams struct {
	ids  [16]uint32 // A ring.
	next int
}

// note reports whether the server has reset the stream before, and keeps it.
func (r *resetStreams) note(stream uint32) bool {
	if slices.Contains(r.ids[:], stream) {
		return true
	}
	r.ids[r.next] = stream
	r.next = (r.next + 1) % len(r.ids)
	return false
}

// mayInsert reports whether a frame of ours may come next.
func (o *output) mayInsert() bool {
	return o.begun && !o.block && o.walk.atBoundary() && o.err == nil
}

// smallWrite is the length below which a write of net/http's HTTP/2 server yields
// first. net/http collects the frames of all streams while a write is under way, and
// the first answer of many goes out alone. So the handlers that are ready run first,
// and the next write takes what they have answered. If none is ready, nothing is
// waited for. grpc-go does the same with the same figure. With 64 streams at a time,
// a request takes two fifths less processor time (h2c-streams in testdata/bench).
const smallWrite = 1000

// Begin returns what is to be written in place of p, the server's next bytes.
// [Track.Finish] must follow, with the result of writing it.
//
// The two are no method Write, and are not inlined, so that little is on the stack while
// the bytes are written; see Write of the type Conn in the package sniff.
//
//go:noinline
func (t *Track) Begin(p []byte) []byte {
	if t.pace != nil && len(p) < smallWrite {
		runtime.Gosched()
	}
	t.mu.Lock()
	if t.out.err != nil {
		return nil
	}
	return t.compose(p)
}

// Finish ends what Begin began with what the write has returned. It returns n, or 0 and
// the error of the write that failed first.
//
//go:noinline
func (t *Track) Finish(n int, err error) (int, error) {
	if t.out.err == nil {
		t.out.err = err
	}
	if err = t.out.err; err == nil {
		t.marks.Or(t.out.marks)
	}
	isFirst := t.out.marks&(markTold|markSettled) == markTold
	t.out.marks = 0
	t.mu.Unlock()
	if err != nil {
		t.End()
		return 0, err
	}
	if isFirst {
		t.pingLater()
	}
	if t.pending.Load() != 0 {
		t.settle()
	}
	return n, nil
}

// ask has a frame written, once. It waits for that, but no longer than insertTimeout.
func (t *Track) ask(what uint32) {
	if t.asked.Or(what) >= what {
		return // It was asked for before, or what makes it needless was.
	}
	t.pending.Or(what)
	t.within(t.settle)
}

// askNow is ask for a caller that may close the connection behind the frame: it waits for a
// write that is under way.
func (t *Track) askNow(what uint32) {
	t.within(func() {
		t.mu.Lock()
		if t.asked.Or(what) < what {
			t.pending.Or(what)
		}
		t.writePending()
	})
}

// within waits for write, but no longer than insertTimeout.
func (t *Track) within(write func()) {
	done := make(chan struct{})
	go func() {
		write()
		close(done)
	}()
	timeout := time.NewTimer(insertTimeout)
	defer timeout.Stop()
	select {
	case <-done:
	case <-timeout.C:
	}
}

// settle writes what is pending, if it may come now and no other goroutine is
// writing. That one settles when it has finished.
func (t *Track) settle() {
	for t.pending.Load() != 0 && t.mu.TryLock() {
		if !t.writePending() {
			return
		}
	}
}

// writePending writes what is pending, and reports whether it could. The caller has mu,
// which writePending gives back.
func (t *Track) writePending() bool {
	if !t.out.mayInsert() {
		t.mu.Unlock()
		return false
	}
	var err error
	if frames := t.compose(nil); len(frames) > 0 {
		if _, err = t.inner.Write(frames); err != nil {
			t.abort()
		}
	}
	_, err = t.Finish(0, err)
	return err == nil
}

// abort closes the connection below its server, which may never write again and so would
// not notice a failed write. Closing a *tls.Conn would write once more, so abort closes what
// is below it.
func (t *Track) abort() {
	inner := t.inner
	if c, ok := inner.(*tls.Conn); ok {
		inner = c.NetConn()
	}
	_ = inner.Close()
}

// An edit composes what is to be written for p. It copies nothing where only the ends of
// p are cut.
type edit struct {
	p          []byte
	done       int    // p[:done] is decided on.
	start, end int    // p[start:end] is kept, behind out.
	out        []byte // Nil while nothing is copied.
}

// pass keeps what is not decided on of p[:to].
func (e *edit) pass(to int) {
	if to <= e.done {
		return
	}
	if e.end < e.done { // Something was cut in between.
		if e.end > e.start {
			e.copy()
		}
		e.start = e.done
	}
	e.end, e.done = to, to
}

// copy moves what is kept to out.
func (e *edit) copy() {
	const room = 128 // For the frames of ours.
	if e.out == nil {
		e.out = make([]byte, 0, len(e.p)+room)
	}
	e.out = append(e.out, e.p[e.start:e.end]...)
	e.start = e.end
}

// insert puts b behind p[:at].
func (e *edit) insert(at int, b []byte) {
	e.pass(at)
	e.copy()
	e.out = append(e.out, b...)
}

// cut leaves p[from:to] out.
func (e *edit) cut(from, to int) {
	e.pass(from)
	e.done = to
}

// result returns a part of p if nothing was copied.
func (e *edit) result() []byte {
	e.pass(len(e.p))
	if e.out == nil {
		return e.p[e.start:e.end]
	}
	return append(e.out, e.p[e.start:e.end]...)
}

// compose returns what is to be written for p, the server's next bytes: without the
// frames that the client must not see, without an incomplete head at the end, and with
// what is pending at the first place where it may stand. Mostly that is p itself. The
// caller has mu.
func (t *Track) compose(p []byte) []byte {
	o := &t.out
	e := edit{p: p}
	held := o.walk.have // How much of the current head earlier writes have held back.
	head := 0           // Where the current head begins.
	for at := 0; ; {
		if t.pending.Load() != 0 && o.mayInsert() {
			if frames := t.pendingFrames(len(p) == 0); len(frames) > 0 {
				e.insert(at, frames)
			}
		}
		if at == len(p) {
			break
		}
		if o.walk.atBoundary() {
			head = at
		}
		inPayload := o.walk.left > 0
		n, complete := o.walk.advance(p[at:])
		if inPayload && o.drop {
			e.cut(at, at+n)
		}
		at += n
		switch {
		case !complete:
		case t.isNeedless():
			e.cut(head, at)
			o.drop, held = true, 0
		default:
			if held > 0 {
				e.insert(0, o.walk.head[:held])
			}
			o.drop, held = false, 0
			t.passed(o.walk.frame())
		}
	}
	if o.walk.have > 0 {
		e.cut(head, len(p))
	}
	return e.result()
}

// isNeedless reports whether the frame whose head is complete is to be taken out: the
// ACKs and the SETTINGS that were sent in its place, an ACK of what an encoderTable hides, a
// second RST_STREAM of a stream, an update of a window that is kept, the answer to a marker
// of the pace, and a GOAWAY that lowers nothing behind one of ours.
//
// net/http resets a stream that it has answered early, and then once more for each DATA
// frame that was under way (RFC 9113, sections 5.1 and 5.4.2, have it ignore those). nginx
// fails its next request on the connection for that.
//
// A client must not see a GOAWAY's last stream grow (section 6.8), and grpc-go's closes the
// connection if it does.
func (t *Track) isNeedless() bool {
	o := &t.out
	switch h := o.walk.frame(); {
	case h.Type == http2.FrameSettings && h.IsAck() && o.dropACKs > 0:
		if o.dropACKs--; o.dropACKs == 0 {
			t.releaseSettings()
		}
		return true
	case h.Type == http2.FrameSettings && h.IsAck() && t.pace != nil && t.pace.table.mute.Load():
		return true
	case h.Type == http2.FrameSettings && !h.IsAck() && o.dropSettings:
		o.dropSettings = false
		return true
	case h.Type == http2.FrameRSTStream && t.pace != nil:
		if t.pace.reset == nil {
			t.pace.reset = new(resetStreams)
		}
		return t.pace.reset.note(h.Stream)
	case h.Type == http2.FrameWindowUpdate && h.Stream != 0 && t.pace != nil && h.Length == WindowUpdateLen:
		return t.pace.kept.Load().keep(h.Stream, Uint31(o.walk.payload()))
	case h.Type == http2.FramePing && h.IsAck() && t.pace.isAnswer(o.walk.payload()):
		return true
	case h.Type == http2.FrameGoAway && h.Length >= goAwayLen && o.ours:
		last, code := goAwayFields(o.walk.payload())
		if code == http2.ErrCodeNo && last >= o.lastTold {
			t.open.leave(last)
			return true
		}
	}
	return false
}

// passed takes note of a frame of the server that goes to the client.
func (t *Track) passed(h Header) {
	o := &t.out
	switch h.Type {
	case http2.FrameData:
		t.sentData.Add(uint64(h.Length))
		t.noteAnswer(h)
	case http2.FrameSettings:
		o.begun = true
		if t.pace != nil && !h.IsAck() {
			t.pace.unacked.Add(1)
		}
	case http2.FrameHeaders:
		o.block = !h.Flags.Has(http2.FlagHeadersEndHeaders)
		t.noteAnswer(h)
	case http2.FrameRSTStream:
		if h.Length == rstStreamLen {
			t.fault(h.Stream, http2.ErrCode(binary.BigEndian.Uint32(o.walk.payload())))
		}
		t.ended(h.Stream)
	case http2.FramePushPromise, http2.FrameContinuation:
		o.block = !h.Flags.Has(http2.FlagContinuationEndHeaders) // The same bit for both.
	case http2.FramePing:
		if !h.IsAck() {
			t.notePing(o.walk.payload())
		}
	case http2.FrameWindowUpdate:
		if t.pace != nil && h.Stream == 0 && h.Length == WindowUpdateLen {
			t.pace.connRoom.Add(int64(Uint31(o.walk.payload())))
		}
	case http2.FrameGoAway:
		if h.Length >= goAwayLen {
			t.noteGoAway(o.walk.payload())
		}
	}
}

// noteAnswer takes note of a part of a response.
func (t *Track) noteAnswer(h Header) {
	if h.Flags.Has(http2.FlagDataEndStream) { // HEADERS uses the same bit.
		t.answered.Add(1)
		t.sentData.Add(1)
		t.ended(h.Stream)
	}
	// The server may call a stream ended before it has written the frame that says so.
	if t.marks.Load()&(markAsked|markRead) != 0 {
		t.marks.And(^(markAsked | markRead)) // AskRead asks anew.
	}
	if r := t.resets.Load(); r != nil {
		r.answered(h.Stream, t.highest.Load())
	}
}

// noteGoAway takes note of a GOAWAY of the server, and of why it leaves. net/http
// gives no debug data, and leaves by itself only when the connection is idle.
func (t *Track) noteGoAway(payload []byte) {
	last, code := goAwayFields(payload)
	told := (t.marks.Load()|t.out.marks)&markTold != 0
	t.out.final = true
	t.out.lastTold = min(t.out.lastTold, last)
	t.open.leave(last)
	t.out.marks |= markTold | markSettled
	t.marks.Or(markTelling)
	switch debug := string(payload[goAwayLen:]); {
	case code != http2.ErrCodeNo || told:
	case debug == debugAge:
		t.marks.Or(markAged) // Now, because the client may close when it has it.
	case debug == debugIdle || debug == "":
		t.marks.Or(markIdle)
	}
}

// pendingFrames returns the frames that are asked for, as written now. GOAWAY comes before
// the RST_STREAM of a refused stream: grpc-js and C-core ask once more as soon as they have
// that, on the same connection if they do not know better. PINGs stay pending unless the
// write is of nothing else; alone says that the server writes nothing with it.
func (t *Track) pendingFrames(alone bool) []byte {
	o, asked := &t.out, t.pending.Swap(0)
	if pings := asked & askPings; pings != 0 && (!alone || asked != pings) {
		t.pending.Or(pings)
		asked &^= pings
	}
	owed := t.owedFrames(asked)
	var frames []byte
	switch {
	case asked&^(askOwed|askWindows|askPings) == 0:
		return owed
	case asked&askFault != 0:
		o.lastTold = min(o.lastTold, t.nameLast())
		if code := t.faultCode(); code != 0 {
			frames = AppendGoAway(frames, o.lastTold, code, "")
		} else { // It was told to leave for its resets, and has not.
			frames = AppendGoAway(frames, o.lastTold, http2.ErrCodeEnhanceYourCalm, resetsDebug)
		}
		asked |= askFinal
	case o.final:
		return owed
	default:
		if asked&askGoAway != 0 {
			o.lastTold = maxStreamID
			frames = AppendGoAway(frames, maxStreamID, http2.ErrCodeNo, "")
		}
		if asked&askFinal != 0 {
			o.lastTold = t.nameLast()
			frames = AppendGoAway(frames, o.lastTold, http2.ErrCodeNo, "")
		}
	}
	o.ours = true
	o.marks |= markTold
	t.marks.Or(markTelling)
	if asked&askFinal != 0 {
		o.final = true
		o.marks |= markSettled
	}
	return append(frames, owed...)
}

// owedFrames returns what a stream needs that was refused, what was kept of the windows of
// others, or changes them, and PINGs.
func (t *Track) owedFrames(asked uint32) []byte {
	var frames []byte
	if asked&askWindows != 0 {
		frames = t.pace.kept.Load().take()
	}
	if asked&askPing != 0 && !t.out.final {
		frames = AppendFrame(frames, http2.FramePing, 0, goAwayPing[:])
		t.marks.Or(markPinged)
	}
	if asked&askRead != 0 {
		frames = AppendFrame(frames, http2.FramePing, 0, binary.BigEndian.AppendUint32([]byte(readPing), uint32(t.sentData.Load())))
	}
	if asked&askOwed == 0 {
		return frames
	}
	if stream := t.calls.refused.Swap(0); stream != 0 {
		code := binary.BigEndian.AppendUint32(nil, uint32(http2.ErrCodeRefusedStream))
		frames = appendStreamFrame(frames, http2.FrameRSTStream, 0, stream, code)
	}
	if refund := t.calls.refund.Swap(0); refund != 0 {
		frames = AppendFrame(frames, http2.FrameWindowUpdate, 0, binary.BigEndian.AppendUint32(nil, refund))
	}
	return frames
}
