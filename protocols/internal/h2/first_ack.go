package h2

import (
	"io"

	"golang.org/x/net/http2"
)

// A firstACK takes the client's first ACK of SETTINGS out of what the server reads. The
// client acknowledges with it the SETTINGS that were sent in the server's place, and
// net/http ends a connection whose client acknowledges more than net/http has sent.
//
// It also holds the client's second SETTINGS back until the server has acknowledged the
// first; see [Options].HoldSettings. Everything else passes: a client over net.Pipe reads
// the server's SETTINGS only when what it writes is read.
//
// Until both ACKs have come, the bytes of each frame's header are held back until the
// header is complete, and no read goes beyond the frame. The reading goroutine owns it.
type firstACK struct {
	head    [HeaderLen]byte
	have    int  // How much of the header is there.
	given   int  // How much of it the server has.
	left    int  // How much is to come before the next header: of the preface, or of a payload.
	out     bool // The ACK is out.
	settled bool // The server has the client's first SETTINGS.
}

// read reads from src into p, which is not empty. It reads nothing where it has taken out
// the ACK.
func (f *firstACK) read(src io.Reader, p []byte, serverAcked <-chan struct{}) (n int, err error) {
	if f.left > 0 {
		n, err = src.Read(p[:min(len(p), f.left)])
		f.left -= n
		return n, err
	}
	for f.have < HeaderLen {
		n, err := src.Read(f.head[f.have:])
		if f.have += n; f.have < HeaderLen && err != nil {
			return 0, err
		}
	}
	h := ParseHeader(f.head[:])
	switch {
	case f.given > 0 || h.Type != http2.FrameSettings:
	case !h.IsAck():
		if f.settled && serverAcked != nil {
			<-serverAcked
		}
		f.settled = true
	case h.Length == 0 && !f.out:
		f.have, f.out = 0, true
		return 0, nil
	}
	n = copy(p, f.head[f.given:])
	if f.given += n; f.given == HeaderLen {
		f.have, f.given, f.left = 0, 0, h.Length
	}
	return n, nil
}

// AwaitsACK reports whether the client's first ACK is still to be taken out, or that of
// the server to be waited for. Then reads have to come through [Track.ReadToACK].
func (t *Track) AwaitsACK() bool {
	if f := t.firstACK; f != nil && f.out && f.have == 0 && f.left == 0 && (t.serverAcked == nil || t.marks.Load()&markReleased != 0) {
		t.firstACK = nil
	}
	return t.firstACK != nil
}

// ReadToACK reads from src, which has what the client sends.
func (t *Track) ReadToACK(src io.Reader, p []byte) (n int, err error) {
	for len(p) > 0 && n == 0 && err == nil {
		if !t.AwaitsACK() {
			return src.Read(p)
		}
		n, err = t.firstACK.read(src, p, t.serverAcked)
	}
	return n, err
}
