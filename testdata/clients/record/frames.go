package record

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

const (
	frameHeaderLen = 9 // RFC 9113, section 4.1
	goAwayLen      = 8 // The last stream and the error code; RFC 9113, section 6.8.
)

// frames counts the frames of one direction of an HTTP/2 connection, whatever
// pieces it comes in. It keeps no more of a frame than it looks at.
type frames struct {
	head [frameHeaderLen + goAwayLen]byte
	have int    // How many bytes of the frame are in head.
	skip uint32 // How many more bytes belong to the frame.

	settings, acks, headers, goAwayErrors int
}

// Write implements [io.Writer]; it never fails.
func (f *frames) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if f.skip > 0 {
			k := min(uint64(f.skip), uint64(len(p)))
			f.skip -= uint32(k)
			p = p[k:]
			continue
		}
		k := copy(f.head[f.have:f.wanted()], p)
		f.have += k
		p = p[k:]
		if f.have == f.wanted() {
			f.count()
			f.skip = f.length() - uint32(f.have-frameHeaderLen)
			f.have = 0
		}
	}
	return n, nil
}

// wanted returns how many of the frame's first bytes are looked at.
func (f *frames) wanted() int {
	if f.have >= frameHeaderLen && f.typ() == http2.FrameGoAway && f.length() >= goAwayLen {
		return frameHeaderLen + goAwayLen
	}
	return frameHeaderLen
}

func (f *frames) length() uint32 {
	return uint32(f.head[0])<<16 | uint32(f.head[1])<<8 | uint32(f.head[2])
}

func (f *frames) typ() http2.FrameType { return http2.FrameType(f.head[3]) }

func (f *frames) count() {
	switch f.typ() {
	case http2.FrameSettings:
		if http2.Flags(f.head[4]).Has(http2.FlagSettingsAck) {
			f.acks++
		} else {
			f.settings++
		}
	case http2.FrameHeaders:
		f.headers++
	case http2.FrameGoAway:
		code := binary.BigEndian.Uint32(f.head[frameHeaderLen+4:])
		if f.have > frameHeaderLen && http2.ErrCode(code) != http2.ErrCodeNo {
			f.goAwayErrors++
		}
	}
}
