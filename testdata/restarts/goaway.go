package main

import "encoding/binary"

// The layout of HTTP/2 frames (RFC 9113 sections 4.1 and 6.8).
const (
	frameHeaderLen = 9
	frameGoAway    = 0x7
	goAwayLen      = 8 // Its payload without debug data: the last stream and the error code.
)

// goAwayFollower finds GOAWAY frames in what an HTTP/2 server sends. It follows
// the frames however they are split. The zero value stands at the start of a
// connection; one goroutine uses it.
type goAwayFollower struct {
	header  [frameHeaderLen]byte
	have    int // how much of header is there
	left    int // how much of the payload is to come
	payload []byte

	// frames is how many GOAWAY frames have come, and code the error code of the last one.
	frames int
	code   uint32
}

// feed takes the next bytes of the stream.
func (f *goAwayFollower) feed(p []byte) {
	for len(p) > 0 {
		if f.have < frameHeaderLen {
			n := copy(f.header[f.have:], p)
			f.have += n
			p = p[n:]
			if f.have < frameHeaderLen {
				return
			}
			f.left = int(f.header[0])<<16 | int(f.header[1])<<8 | int(f.header[2])
			f.payload = f.payload[:0]
		}
		n := min(f.left, len(p))
		if f.header[3] == frameGoAway && len(f.payload) < goAwayLen {
			f.payload = append(f.payload, p[:min(n, goAwayLen-len(f.payload))]...)
		}
		f.left -= n
		p = p[n:]
		if f.left == 0 {
			f.end()
		}
	}
}

// end ends a frame.
func (f *goAwayFollower) end() {
	f.have = 0
	if f.header[3] == frameGoAway && len(f.payload) == goAwayLen {
		f.frames++
		f.code = binary.BigEndian.Uint32(f.payload[4:])
	}
}
