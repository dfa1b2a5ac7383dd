package h2

import (
	"io"

	"golang.org/x/net/http2"
)

// A firstACK takes the client's first ACK of SETTINGS out of what the server reads. The
// client acknowledges with it the SETTINGS that were sent in the server's place, and
// net/http ends a connection whose client acknowledges more than net/http has sent.
//
// Until that ACK comes, the bytes of each frame's header are held back until the header
// is complete, and no read goes beyond the frame. The reading goroutine owns it.
type firstACK struct {
	head  [HeaderLen]byte
	have  int // How much of the header is there.
	given int // How much of it the server has.
	left  int // How much is to come before the next header: of the preface, or of a payload.
}

// read reads from src into p, which is not empty. It reports whether the ACK is out.
func (f *firstACK) read(src io.Reader, p []byte) (n int, out bool, err error) {
	if f.left > 0 {
		n, err = src.Read(p[:min(len(p), f.left)])
		f.left -= n
		return n, false, err
	}
	for f.have < HeaderLen {
		n, err := src.Read(f.head[f.have:])
		if f.have += n; f.have < HeaderLen && err != nil {
			return 0, false, err
		}
	}
	h := ParseHeader(f.head[:])
	if h.Type == http2.FrameSettings && h.IsAck() && h.Length == 0 {
		n, err = src.Read(p)
		return n, true, err
	}
	n = copy(p, f.head[f.given:])
	if f.given += n; f.given == HeaderLen {
		f.have, f.given, f.left = 0, 0, h.Length
	}
	return n, false, nil
}

// AwaitsACK reports whether the client's first ACK is still to be taken out. Then reads
// have to come through [Track.ReadToACK].
func (t *Track) AwaitsACK() bool { return t.firstACK != nil }

// ReadToACK reads from src, which has what the client sends.
func (t *Track) ReadToACK(src io.Reader, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, out, err := t.firstACK.read(src, p)
	if out {
		t.firstACK = nil
	}
	return n, err
}
