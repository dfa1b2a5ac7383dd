package main

import (
	"encoding/binary"
	"fmt"
)

// The layout of HTTP/2 frames (RFC 9113 sections 4.1 and 6.8).
const (
	frameHeaderLen = 9
	frameGoAway    = 0x7
	goAwayLen      = 8 // Its payload without debug data: the last stream and the error code.
)

// maxStream is the last stream that a first GOAWAY has to name: it refuses none of
// those that are on their way (RFC 9113, section 6.8). The bit above it is reserved.
const maxStream = 1<<31 - 1

// goAwayFollower finds GOAWAY frames in what an HTTP/2 server sends. It follows
// the frames however they are split. The zero value stands at the start of a
// connection; one goroutine uses it.
type goAwayFollower struct {
	header  [frameHeaderLen]byte
	have    int // how much of header is there
	left    int // how much of the payload is to come
	payload []byte

	// last is the last stream that each GOAWAY frame has named, and code the error code of the last frame.
	last []uint32
	code uint32
}

// feed takes the next bytes of the stream, as far as to the end of a frame, and
// returns how many it has taken: who feeds can look at each GOAWAY before the next.
func (f *goAwayFollower) feed(p []byte) (taken int) {
	if f.have < frameHeaderLen {
		taken = copy(f.header[f.have:], p)
		f.have += taken
		if f.have < frameHeaderLen {
			return taken
		}
		f.left = int(f.header[0])<<16 | int(f.header[1])<<8 | int(f.header[2])
		f.payload = f.payload[:0]
	}
	rest := p[taken:]
	n := min(f.left, len(rest))
	if f.header[3] == frameGoAway && len(f.payload) < goAwayLen {
		f.payload = append(f.payload, rest[:min(n, goAwayLen-len(f.payload))]...)
	}
	f.left -= n
	if f.left == 0 {
		f.end()
	}
	return taken + n
}

// end ends a frame.
func (f *goAwayFollower) end() {
	f.have = 0
	if f.header[3] == frameGoAway && len(f.payload) == goAwayLen {
		f.last = append(f.last, binary.BigEndian.Uint32(f.payload)&maxStream)
		f.code = binary.BigEndian.Uint32(f.payload[4:])
	}
}

// check returns what is wrong with the GOAWAY frame that came last: the first one
// must refuse no stream, and no later one may name a higher stream than the one before.
func (f *goAwayFollower) check() error {
	switch n := len(f.last); {
	case n == 0:
		return nil
	case n == 1 && f.last[0] != maxStream:
		return fmt.Errorf("the first GOAWAY names stream %d, not %d", f.last[0], maxStream)
	case n > 1 && f.last[n-1] > f.last[n-2]:
		return fmt.Errorf("a GOAWAY names stream %d after one that named %d", f.last[n-1], f.last[n-2])
	default:
		return nil
	}
}
