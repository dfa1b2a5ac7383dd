// Package h2 follows the frames of HTTP/2 connections, takes frames out of what a
// server writes, and puts others in.
package h2

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

// Lengths, sizes and numbers that RFC 9113 defines.
const (
	HeaderLen       = 9 // RFC 9113, section 4.1.
	SettingLen      = 6 // RFC 9113, section 6.5.1.
	PingLen         = 8 // RFC 9113, section 6.7.
	WindowUpdateLen = 4 // RFC 9113, section 6.9.
	rstStreamLen    = 4 // RFC 9113, section 6.4.

	// goAwayLen is the length of a GOAWAY's payload without debug data: the last
	// stream and the error code (RFC 9113, section 6.8).
	goAwayLen = 8
	// debugLen is how much of a GOAWAY's debug data a walk keeps. grpc-go says
	// there why it leaves.
	debugLen = 8

	// MaxFrameSize is the initial SETTINGS_MAX_FRAME_SIZE (RFC 9113, section 6.5.2), and
	// the only value that grpc-go takes.
	MaxFrameSize = 16384
	// DefaultWindow is the initial window of a connection and of a stream (RFC 9113,
	// section 6.9.2).
	DefaultWindow = 65535

	// maxStreamID is the largest stream ID (RFC 9113, section 5.1.1). A GOAWAY that
	// names it refuses no stream (section 6.8).
	maxStreamID = 1<<31 - 1
)

// A Header is the fixed part of an HTTP/2 frame (RFC 9113, section 4.1).
type Header struct {
	Length int
	Type   http2.FrameType
	Flags  http2.Flags
	Stream uint32
}

// ParseHeader parses the first HeaderLen bytes of b.
func ParseHeader(b []byte) Header {
	_ = b[HeaderLen-1]
	return Header{
		Length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		Type:   http2.FrameType(b[3]),
		Flags:  http2.Flags(b[4]),
		Stream: Uint31(b[5:]), // The highest bit is reserved.
	}
}

// IsAck reports the ACK flag, which is the same bit for SETTINGS and PING.
func (h Header) IsAck() bool { return h.Flags.Has(http2.FlagSettingsAck) }

// kept returns how much of the frame's payload a walk keeps.
func (h Header) kept() int {
	switch h.Type {
	case http2.FramePing:
		return min(h.Length, PingLen)
	case http2.FrameGoAway:
		return min(h.Length, goAwayLen+debugLen)
	case http2.FrameWindowUpdate:
		return min(h.Length, WindowUpdateLen)
	case http2.FrameRSTStream:
		return min(h.Length, rstStreamLen)
	default:
		return 0
	}
}

// HeadersFragment takes padding and priority off a HEADERS frame's payload
// (RFC 9113, section 6.2). It reports false where they do not fit.
func HeadersFragment(h Header, payload []byte) (fragment, priority []byte, ok bool) {
	padding := 0
	if h.Flags.Has(http2.FlagHeadersPadded) {
		if len(payload) < 1 {
			return nil, nil, false
		}
		padding, payload = int(payload[0]), payload[1:]
	}
	if h.Flags.Has(http2.FlagHeadersPriority) {
		const priorityLen = 5
		if len(payload) < priorityLen {
			return nil, nil, false
		}
		priority, payload = payload[:priorityLen], payload[priorityLen:]
	}
	if padding > len(payload) {
		return nil, nil, false
	}
	return payload[:len(payload)-padding], priority, true
}

// Uint31 reads a number whose highest bit is reserved.
func Uint31(b []byte) uint32 { return binary.BigEndian.Uint32(b) &^ (1 << 31) }

// AppendFrame appends a frame of stream 0.
func AppendFrame(b []byte, typ http2.FrameType, flags http2.Flags, payload []byte) []byte {
	n := len(payload)
	b = append(b, byte(n>>16), byte(n>>8), byte(n), byte(typ), byte(flags), 0, 0, 0, 0)
	return append(b, payload...)
}

// appendStreamFrame appends a frame of a stream.
func appendStreamFrame(b []byte, typ http2.FrameType, flags http2.Flags, stream uint32, payload []byte) []byte {
	at := len(b)
	b = AppendFrame(b, typ, flags, payload)
	binary.BigEndian.PutUint32(b[at+HeaderLen-4:], stream)
	return b
}

// AppendGoAway appends a GOAWAY frame.
func AppendGoAway(b []byte, last uint32, code http2.ErrCode, debug string) []byte {
	payload := binary.BigEndian.AppendUint32(make([]byte, 0, goAwayLen+len(debug)), last)
	payload = binary.BigEndian.AppendUint32(payload, uint32(code))
	return AppendFrame(b, http2.FrameGoAway, 0, append(payload, debug...))
}

// goAwayFields returns the last stream and the error code of a GOAWAY's payload,
// which has at least goAwayLen bytes.
func goAwayFields(payload []byte) (last uint32, code http2.ErrCode) {
	return Uint31(payload), http2.ErrCode(binary.BigEndian.Uint32(payload[4:]))
}

// endsHeaders reports whether the frame is the last of a header block.
func (h Header) endsHeaders() bool {
	return (h.Type == http2.FrameHeaders || h.Type == http2.FrameContinuation) && h.Flags.Has(http2.FlagHeadersEndHeaders)
}

// A walk follows the frames of one direction of an HTTP/2 connection, however
// the bytes are split. It keeps the current frame's head: the header, and the
// beginning of the payload for the types that [Header.kept] knows.
type walk struct {
	head [HeaderLen + goAwayLen + debugLen]byte
	have uint8  // How much of an incomplete head is there, else 0.
	want uint8  // How long the head is, as far as is known.
	left uint32 // How much of the payload is to come behind the head.
}

// atBoundary reports whether the next byte begins a frame.
func (w *walk) atBoundary() bool { return w.have == 0 && w.left == 0 }

// advance takes in the beginning of p, which is not empty, and returns how much:
// the rest of a payload, or a piece of a head. It reports whether the head is now
// complete.
func (w *walk) advance(p []byte) (n int, complete bool) {
	if w.left > 0 {
		n = min(int(w.left), len(p))
		w.left -= uint32(n)
		return n, false
	}
	if w.have == 0 {
		w.want = HeaderLen
	}
	for {
		taken := copy(w.head[w.have:w.want], p[n:])
		n += taken
		if w.have += uint8(taken); w.have < w.want {
			return n, false
		}
		h := w.frame()
		kept := h.kept()
		if w.want == HeaderLen && kept > 0 {
			w.want += uint8(kept)
			continue
		}
		w.left = uint32(h.Length - kept)
		w.have = 0
		return n, true
	}
}

// next returns where p has the type of the frame that it goes on with, whose header is returned
// as far as it is known then: 0 stands for the rest. It returns -1 where p has no type.
func (w *walk) next(p []byte) (at int, h Header) {
	const lengthLen = 3 // The type stands behind the length (RFC 9113, section 4.1).
	at = lengthLen - int(w.have)
	if w.left > 0 || at < 0 || at >= len(p) {
		return -1, h
	}
	var head [HeaderLen]byte
	n := copy(head[:], w.head[:w.have])
	copy(head[n:], p)
	return at, ParseHeader(head[:])
}

// isWithin reports whether what advance has returned last belongs to the payload of a frame
// of the type.
func (w *walk) isWithin(typ http2.FrameType) bool {
	return w.have == 0 && http2.FrameType(w.head[3]) == typ
}

// frame returns the header of the frame whose head was completed last.
func (w *walk) frame() Header { return ParseHeader(w.head[:]) }

// payload returns what was kept of that frame's payload.
func (w *walk) payload() []byte { return w.head[HeaderLen:w.want] }
