package h2

import (
	"sync/atomic"

	"golang.org/x/net/http2"
)

const (
	// maxEncoderTable is the size of net/http's own HPACK table, which a client can only
	// make smaller.
	maxEncoderTable = 4096
	// settingUnknown is what net/http reads in place of HEADER_TABLE_SIZE. Nobody defines it,
	// so it is ignored (RFC 9113, section 6.5.2). Its first byte is that of
	// HEADER_TABLE_SIZE, which the server may have read before the second is there.
	settingUnknown http2.SettingID = 0x00e1
)

// An encoderTable keeps the client from changing the HPACK table of net/http's encoder
// while net/http encodes: it reads SETTINGS in one goroutine and writes responses in
// another, both of which then change the table. The process ends by that, since nothing
// recovers the panic. The server of golang.org/x/net changes its table between two frames.
//
// SETTINGS that come before the first stream pass as they are. In later ones the server does
// not see HEADER_TABLE_SIZE. A table that is smaller than allowed is always right, so it
// needs not know that it may be larger. If it would have to be smaller, the client may not
// rely on that before it has the ACK (RFC 9113, section 6.5.3). It gets none any more, and
// is told to leave.
//
// The reading goroutine owns an encoderTable, but for what is atomic.
type encoderTable struct {
	size   uint32          // what the server's encoder uses at most
	wanted uint32          // the last value that is complete
	value  uint32          // what there is of a value
	id     http2.SettingID // what there is of an identifier
	at     uint8           // where the next byte stands in its setting
	named  uint8           // how often the frame has HEADER_TABLE_SIZE
	on     bool            // the server is net/http
	sound  bool            // the frame is one whose settings net/http reads
	hides  bool            // the server does not see HEADER_TABLE_SIZE
	mute   atomic.Bool     // the client gets no ACK any more
}

// begin takes note of the header of a SETTINGS frame, and whether the client has opened a
// stream before.
func (e *encoderTable) begin(h Header, opened bool) {
	e.sound = e.on && !h.IsAck() && h.Stream == 0 && h.Length%SettingLen == 0
	e.hides, e.at, e.named = opened, 0, 0
}

// follow looks at p, a part of the frame's payload, in which it hides HEADER_TABLE_SIZE.
func (e *encoderTable) follow(p []byte) {
	if !e.sound {
		return
	}
	for i, b := range p {
		if e.at < 2 {
			e.id = e.id<<8 | http2.SettingID(b)
		} else {
			e.value = e.value<<8 | uint32(b)
		}
		isTable := e.id == http2.SettingHeaderTableSize
		if e.at == 1 && isTable && e.hides {
			p[i] = byte(settingUnknown)
		}
		if e.at++; e.at == SettingLen {
			e.at = 0
			if isTable {
				e.wanted, e.named = min(e.value, maxEncoderTable), min(e.named+1, 2)
			}
		}
	}
}

// end is called at the end of the frame. It reports whether the client wants a smaller table
// than the server's encoder may use, once. net/http ends the connection where the frame has a
// setting twice.
func (e *encoderTable) end() (smaller bool) {
	switch {
	case !e.sound || e.named != 1:
		return false
	case !e.hides:
		e.size = e.wanted
		return false
	}
	return e.wanted < e.size && !e.mute.Swap(true)
}

// followSettings looks at a part of the payload of the client's SETTINGS, which may be the
// last.
func (t *Track) followSettings(p []byte) {
	e := &t.pace.table
	if e.follow(p); t.in.left > 0 || !e.end() {
		return
	}
	if t.watch != nil && t.watch.OnSmallerTable != nil {
		t.watch.OnSmallerTable(t.inner) // Before the client can know.
	}
	if t.asked.Or(askGoAway) < askGoAway {
		t.pending.Or(askGoAway)
	}
	go t.settle() // In another goroutine, since the client may read nothing.
}
