package protocols

import "sync"

// An ackGate keeps what follows the client's first SETTINGS from the server
// until the server has acknowledged them. net/http acknowledges two SETTINGS
// frames by one ACK when the second comes before the first ACK is written; the
// settingsFilter would take that one out, and the client's second SETTINGS would
// stay without an answer (RFC 9113, section 6.5.3).
//
// The reading side calls admit; open is safe at any time.
type ackGate struct {
	before int // How many bytes may pass before the ACK. Owned by the reading side.
	once   sync.Once
	acked  chan struct{}
}

func newACKGate(before int) *ackGate { return &ackGate{before: before, acked: make(chan struct{})} }

// admit returns as much of p as may be read into. At the gate it waits.
func (g *ackGate) admit(p []byte) []byte {
	if g.before > 0 && len(p) > 0 {
		return p[:min(len(p), g.before)]
	}
	<-g.acked
	return p
}

// open lets everything pass from now on.
func (g *ackGate) open() { g.once.Do(func() { close(g.acked) }) }

// gated reports whether Read may have to wait for the server's ACK.
func (t *http2Track) gated() bool {
	g := t.gate.Load()
	if g == nil {
		return false
	}
	select {
	case <-g.acked:
		return false
	default:
		return true
	}
}
