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
	// CallBudget is that of the connection.
	CallBudget() *CallBudget
}

// A CallBudget counts what the calls of a connection hold for their handlers together. The
// zero value is empty, and a nil one is never full. All methods may be called concurrently.
type CallBudget struct {
	mu    sync.Mutex // guards what follows
	bytes int
	freed chan struct{} // closed when the budget is not full any more; nil if nobody waits
}

const (
	// callBudget is how much the calls of a connection hold before each has only its share.
	callBudget = 16 << 20
	// callShare is how much grpc-go may hold of a call. Its buffers are of 16 KiB each, however
	// little is in them.
	callShare = 64 << 10
)

// add notes that so many bytes more are held, or less.
func (b *CallBudget) add(n int) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bytes += n; b.bytes < callBudget && b.freed != nil {
		close(b.freed)
		b.freed = nil
	}
}

// full returns nil unless the budget is full, and then what is closed when it is no more.
func (b *CallBudget) full() <-chan struct{} {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bytes < callBudget {
		return nil
	}
	if b.freed == nil {
		b.freed = make(chan struct{})
	}
	return b.freed
}

// overflowStep is how much an overflow reads at once.
const overflowStep = 16 << 10

// overflow is what has come of a body before it is asked for. A goroutine reads it, until the
// end of the body or an error, which Close of the body is. While the budget is full, it reads
// only what is asked for. Then net/http's windows hold back the client, and other uploads of
// its connection with it.
type overflow struct {
	windows StreamWindows
	stream  uint32
	// window is how much it has when it holds back the client. What the window of the stream
	// lets through may come behind that.
	window int
	budget *CallBudget
	closed <-chan struct{} // closed with the body
	wanted chan struct{}   // has an element when Read waits
	ended  chan struct{}   // closed when the goroutine has ended

	mu    sync.Mutex // guards what follows
	moved sync.Cond  // tells Read of changes
	bytes []byte
	err   error
	keeps bool // the client is held back
}

// newOverflow begins to read the body. It returns nil where its client cannot be held back.
func newOverflow(body io.Reader, closed <-chan struct{}, windows StreamWindows, window int) *overflow {
	stream, ok := StreamOf(body)
	if !ok || !windows.KeepWindow(stream) {
		return nil
	}
	o := &overflow{
		windows: windows, stream: stream, window: window, budget: windows.CallBudget(), keeps: true,
		closed: closed, wanted: make(chan struct{}, 1), ended: make(chan struct{}),
	}
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
	o.budget.add(-len(o.bytes))
}

// fill reads the body to its end.
func (o *overflow) fill(body io.Reader) {
	defer close(o.ended)
	step := make([]byte, overflowStep)
	for {
		if freed := o.budget.full(); freed != nil {
			select {
			case <-freed:
			case <-o.wanted:
			case <-o.closed: // As the next read will say.
			}
		}
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
	o.budget.add(len(p))
	o.bytes, o.err = append(o.bytes, p...), err
	if !o.keeps && len(o.bytes) >= o.window {
		o.keeps = o.windows.KeepWindow(o.stream)
	}
	o.moved.Signal()
}

// Read implements [io.Reader] for one goroutine.
func (o *overflow) Read(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.bytes) == 0 && o.err == nil {
		o.give() // What was kept may be all that the client can send.
		select {
		case o.wanted <- struct{}{}:
		default:
		}
		o.moved.Wait()
	}
	n := copy(p, o.bytes)
	o.budget.add(-n)
	if o.bytes = o.bytes[n:]; len(o.bytes) > 0 {
		return n, nil
	}
	o.bytes = nil
	o.give()
	return n, o.err
}

// give holds back the client no more. The caller holds mu.
func (o *overflow) give() {
	if o.keeps {
		o.keeps = false
		o.windows.GiveWindow(o.stream, false)
	}
}
