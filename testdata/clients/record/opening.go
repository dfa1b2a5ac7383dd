package record

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

// maxOpening bounds what an opening keeps; real ones have a few hundred bytes.
const maxOpening = 1 << 20

// opening keeps what an HTTP/2 client sends, from the preface to the end of its
// first header block.
type opening struct {
	bytes []byte
	whole bool // The header block has ended.
}

// Write implements [io.Writer]; it never fails.
func (o *opening) Write(p []byte) (int, error) {
	if o.whole || len(o.bytes) > maxOpening {
		return len(p), nil
	}
	o.bytes = append(o.bytes, p...)
	for off := len(http2.ClientPreface); len(o.bytes)-off >= frameHeaderLen; {
		head := o.bytes[off:]
		end := off + frameHeaderLen + int(binary.BigEndian.Uint32(head)>>8)
		if len(o.bytes) < end {
			break
		}
		switch http2.FrameType(head[3]) {
		case http2.FrameHeaders, http2.FrameContinuation:
			if http2.Flags(head[4]).Has(http2.FlagHeadersEndHeaders) { // CONTINUATION's flag is the same.
				o.bytes, o.whole = o.bytes[:end], true
				return len(p), nil
			}
		}
		off = end
	}
	return len(p), nil
}
