package protocols

import (
	"io"
	"sync"
)

// StreamWindows is an HTTP/2 connection that can hold back its client by the flow-control
// window of a stream (RFC 9113, section 6.9), while the server reads on.
type StreamWindows interface {
	// KeepWindow keeps updates of the stream's window from the client from now on. It
	// reports false where that is impossible.
	KeepWindow(stream uint32) bool
	// GiveWindow gives the client what was kept, unless the stream is over, and keeps no
	// more.
	GiveWindow(stream uint32, over bool)
}

const (
	// overflowStep is how much an overflow reads at once.
	overflowStep = 16 << 10
	// overflowKept is how much an overflow has when it holds back the client. What the
	// window of the stream lets through may come behind that.
	overflowKept = 64 << 10
)

// overflow is what has come of a body before it is asked for. A goroutine reads it, until the
// end of the body or an error, which Close of the body is.
type overflow struct {
	windows StreamWindows
	stream  uint32
	ended   chan struct{} // closed when the goroutine has ended

	mu    sync.Mutex // guards what follows
	moved sync.Cond  // tells Read of changes
	bytes []byte
	err   error
	keeps bool // the client is held back
}

// newOverflow begins to read the body. It returns nil where its client cannot be held back.
func newOverflow(body io.Reader, windows StreamWindows) *overflow {
	stream, ok := StreamOf(body)
	if !ok || !windows.KeepWindow(stream) {
		return nil
	}
	o := &overflow{windows: windows, stream: stream, keeps: true, ended: make(chan struct{})}
	o.moved.L = &o.mu
	go o.fill(body)
	return o
}

// end waits for the end of the goroutine, when the body is closed.
func (o *overflow) end() {
	<-o.ended
	if o.keeps {
		o.windows.GiveWindow(o.stream, true)
	}
}

// fill reads the body to its end.
func (o *overflow) fill(body io.Reader) {
	defer close(o.ended)
	step := make([]byte, overflowStep)
	for {
		n, err := body.Read(step)
		if o.add(step[:n], err); err != nil {
			return
		}
	}
}

// add notes what was read.
func (o *overflow) add(p []byte, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.bytes, o.err = append(o.bytes, p...), err
	if !o.keeps && len(o.bytes) >= overflowKept {
		o.keeps = o.windows.KeepWindow(o.stream)
	}
	o.moved.Signal()
}

// Read implements [io.Reader] for one goroutine.
func (o *overflow) Read(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.bytes) == 0 && o.err == nil {
		o.moved.Wait()
	}
	n := copy(p, o.bytes)
	if o.bytes = o.bytes[n:]; len(o.bytes) > 0 {
		return n, nil
	}
	o.bytes = nil
	if o.keeps {
		o.keeps = false
		o.windows.GiveWindow(o.stream, false)
	}
	return n, o.err
}
