package h2

import (
	"encoding/binary"
	"sync"

	"golang.org/x/net/http2"
)

// keptWindows has what net/http has given back of the flow-control windows of some streams,
// and the client has not been told of (RFC 9113, section 6.9). net/http gives back what is
// read of a body, on the stream and on the connection. So a body that is read on holds back
// neither, and by this its client is held back on its stream alone.
type keptWindows struct {
	mu      sync.Mutex
	streams map[uint32]uint32 // increments, by stream
	frames  []byte            // WINDOW_UPDATEs that are to be written
}

// KeepWindow keeps updates of a stream's window from the client from now on. It reports
// false on a connection of another server than net/http.
func (t *Track) KeepWindow(stream uint32) bool {
	if t.pace == nil {
		return false
	}
	k := t.pace.windows.Load()
	if k == nil {
		t.pace.windows.CompareAndSwap(nil, &keptWindows{streams: make(map[uint32]uint32)})
		k = t.pace.windows.Load()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.streams[stream] += 0
	return true
}

// GiveWindow ends what KeepWindow began. The client is told of what was kept, unless the
// stream is over.
func (t *Track) GiveWindow(stream uint32, over bool) {
	k := t.pace.windows.Load()
	k.mu.Lock()
	n := k.streams[stream]
	delete(k.streams, stream)
	if over || n == 0 {
		k.mu.Unlock()
		return
	}
	k.frames = appendStreamFrame(k.frames, http2.FrameWindowUpdate, 0, stream, binary.BigEndian.AppendUint32(nil, n))
	k.mu.Unlock()
	t.pending.Or(askWindows)
	go t.settle() // In another goroutine, since the client may read nothing.
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
	return frames
}
