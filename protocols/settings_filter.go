package protocols

import (
	"io"

	"golang.org/x/net/http2"
)

// A settingsFilter takes out of an HTTP/2 server's output what the sniffer has
// already sent in its place: the first SETTINGS frame, and the first ACKs. All
// else passes byte by byte in order, however the writes are split.
//
// It is not safe for concurrent use. HTTP/2 servers write one frame at a time,
// since interleaved frames would be garbage to any client.
type settingsFilter struct {
	settings bool // The server's first SETTINGS is still to be removed.
	acks     int  // How many ACKs are still to be removed.

	header  [frameHeaderLen]byte // The frame header that the last write left incomplete.
	have    int                  // How many bytes of header are there.
	payload int                  // What is still to come of the current frame's payload.
	drop    bool                 // The current frame is removed.
}

func newSettingsFilter(acks int) *settingsFilter {
	return &settingsFilter{settings: true, acks: acks}
}

// finished reports that nothing more is to be removed or held back.
func (f *settingsFilter) finished() bool {
	return !f.settings && f.acks == 0 && f.have == 0 && (f.payload == 0 || !f.drop)
}

// write filters p and writes what is left of it to w in at most one Write. On
// success it returns len(p). After an error the stream is broken, and no byte
// of p counts as written.
func (f *settingsFilter) write(w io.Writer, p []byte) (int, error) {
	out := f.filter(make([]byte, 0, frameHeaderLen+len(p)), p)
	if len(out) > 0 {
		if _, err := w.Write(out); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// filter appends what passes of p to out. An incomplete frame header at the
// end of p is held back until its rest comes.
func (f *settingsFilter) filter(out, p []byte) []byte {
	for len(p) > 0 {
		if f.finished() {
			return append(out, p...)
		}
		if f.payload > 0 {
			n := min(f.payload, len(p))
			if !f.drop {
				out = append(out, p[:n]...)
			}
			f.payload -= n
			p = p[n:]
			continue
		}
		n := copy(f.header[f.have:], p)
		f.have += n
		p = p[n:]
		if f.have == frameHeaderLen {
			out = f.beginFrame(out)
		}
	}
	return out
}

// beginFrame decides about the frame whose header is complete.
func (f *settingsFilter) beginFrame(out []byte) []byte {
	h := parseFrameHeader(f.header[:])
	f.have, f.payload, f.drop = 0, h.length, false
	switch {
	case h.typ != http2.FrameSettings:
	case !h.isAck() && f.settings:
		f.settings, f.drop = false, true
	case h.isAck() && f.acks > 0:
		f.acks--
		f.drop = true
	}
	if f.drop {
		return out
	}
	return append(out, f.header[:]...)
}
