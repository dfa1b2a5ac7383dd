package h2

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"golang.org/x/net/http2"
)

// keptWindows has what net/http has given back of the flow-control windows of some streams,
// and the client has not been told of (RFC 9113, section 6.9). net/http gives back what is
// read of a body, on the stream and on the connection. So a body that is read on holds back
// neither, and by this its client is held back on its stream alone.
//
// It also has the initial window that the client is told, which is never more than
// net/http's. So net/http need not know of it.
type keptWindows struct {
	hidden  bool         // hiddenFrame is being read; the reading goroutine owns it
	unacked atomic.Int32 // SETTINGS of ours that the client has not acknowledged

	mu            sync.Mutex        // guards what follows
	streams       map[uint32]uint32 // increments, by stream
	frames        []byte            // WINDOW_UPDATEs that are to be written
	initial, told uint32            // the initial window, as asked for and as written; 0: the server's
	acks          int               // ACKs that are to be written in the server's place
}

// hiddenFrame is the type that the server sees in place of SETTINGS which are not its own
// business. It is for experiments (RFC 9113, section 11.2), and net/http passes over it.
const hiddenFrame http2.FrameType = 0xff

// kept returns the windows of a connection. It is nil where the server is not net/http.
func (t *Track) kept() *keptWindows {
	if t.pace == nil {
		return nil
	}
	if t.pace.kept.Load() == nil {
		t.pace.kept.CompareAndSwap(nil, &keptWindows{streams: make(map[uint32]uint32)})
	}
	return t.pace.kept.Load()
}

// KeepWindow keeps updates of a stream's window from the client from now on. It reports
// false on a connection of another server than net/http.
func (t *Track) KeepWindow(stream uint32) bool {
	k := t.kept()
	if k == nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.streams[stream] += 0
	return true
}

// GiveWindow ends what KeepWindow began. The client is told of what was kept, unless the
// stream is over.
func (t *Track) GiveWindow(stream uint32, over bool) {
	k := t.pace.kept.Load()
	k.mu.Lock()
	n := k.streams[stream]
	delete(k.streams, stream)
	if over || n == 0 {
		k.mu.Unlock()
		return
	}
	k.frames = appendStreamFrame(k.frames, http2.FrameWindowUpdate, 0, stream, binary.BigEndian.AppendUint32(nil, n))
	k.mu.Unlock()
	t.writeWindows()
}

// writeWindows has the frames of keptWindows written, before all that the server writes from
// now on.
func (t *Track) writeWindows() {
	t.pending.Or(askWindows)
	go t.settle() // In another goroutine, since the client may read nothing.
}

// SetInitialWindow has the client take size for the initial window of its streams, which
// moves the windows of all by the difference, also below zero (RFC 9113, section 6.9.2). What
// the server gives back from now on comes behind that. It does nothing on a connection of
// another server than net/http, whose own initial window is the most that size may be.
func (t *Track) SetInitialWindow(size uint32) {
	k := t.kept()
	if k == nil {
		return
	}
	k.mu.Lock()
	k.initial = size
	k.mu.Unlock()
	t.writeWindows()
}

// hideACK hides the frame that p goes on with from the server, where it may be the ACK of
// SETTINGS of ours: net/http ends a connection whose client acknowledges more than net/http has
// sent. ACKs come in the order of the SETTINGS, and those of net/http, which sends none later
// than its first, come before ours (RFC 9113, section 6.5.3).
//
// It changes the type of an empty SETTINGS frame in place, and does not wait for the flag
// behind it, since the server gets each byte at once. See acknowledged for one that is no ACK.
func (t *Track) hideACK(p []byte) {
	if t.pace == nil {
		return
	}
	k := t.pace.kept.Load()
	if k == nil || k.unacked.Load() == 0 || t.pace.unacked.Load() > 0 {
		return
	}
	at, h := t.in.next(p)
	if at < 0 || h.Type != http2.FrameSettings || h.Length > 0 {
		return
	}
	k.hidden, p[at] = true, byte(hiddenFrame)
}

// acknowledged takes note of a hiddenFrame. One that is no ACK gets its own here.
func (t *Track) acknowledged(ack bool) {
	if t.pace == nil {
		return
	}
	k := t.pace.kept.Load()
	switch {
	case k == nil || !k.hidden:
		return // It is the client's own.
	case ack:
		k.unacked.Add(-1)
	case !t.pace.table.mute.Load():
		k.mu.Lock()
		k.acks++
		k.mu.Unlock()
		t.writeWindows()
	}
	k.hidden = false
}

// keep reports whether an update of a stream's window is kept. A nil k keeps none.
func (k *keptWindows) keep(stream, increment uint32) bool {
	if k == nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	n, kept := k.streams[stream]
	if kept {
		k.streams[stream] = n + increment
	}
	return kept
}

// take returns the frames that are to be written.
func (k *keptWindows) take() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	frames := k.frames
	k.frames = nil
	if k.initial != k.told {
		k.told = k.initial
		k.unacked.Add(1)
		setting := binary.BigEndian.AppendUint16(nil, uint16(http2.SettingInitialWindowSize))
		frames = AppendFrame(frames, http2.FrameSettings, 0, binary.BigEndian.AppendUint32(setting, k.told))
	}
	for ; k.acks > 0; k.acks-- {
		frames = AppendFrame(frames, http2.FrameSettings, http2.FlagSettingsAck, nil)
	}
	return frames
}
