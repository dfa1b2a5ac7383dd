package protocols

import (
	"cmp"
	"io"
	"sync"
	"sync/atomic"
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
	// SetInitialWindow has the client take size for SETTINGS_INITIAL_WINDOW_SIZE. That moves
	// the windows of all its streams by the difference, also below zero (RFC 9113, section
	// 6.9.2). What the server reads from then on makes room only behind that.
	SetInitialWindow(size uint32)
	// CallBudget is that of the connection.
	CallBudget() *CallBudget
}

// A CallBudget counts what the calls of a connection hold that their handlers have not asked
// for. When that is callBudget, the windows of all streams of the connection become narrow: a
// call that is not read can bring little more then, and all that comes can be read on. So no
// call waits for another. The windows become wide again at half of that.
//
// Only a client that sends more than its windows allow makes the calls hold more than what
// the budget bears. Then bodies are read only as they are asked for.
//
// A nil budget is never full. All methods may be called concurrently.
type CallBudget struct {
	windows StreamWindows
	wide    uint32 // net/http's window of a stream
	// late is what the client may have sent before it knows of a narrow window: the window of
	// the connection.
	late   int
	narrow atomic.Bool // changed under mu

	mu    sync.Mutex // guards what follows
	bytes int
	calls int           // how many have an overflow
	freed chan struct{} // closed when the budget bears more; nil if nobody waits
}

const (
	// callBudget is how much the calls of a connection hold before their windows are narrow.
	callBudget = 16 << 20
	// callShare is how much grpc-go may hold of a call. Its buffers are of 16 KiB each, however
	// little is in them.
	callShare = 64 << 10

	// narrowWindow is how much a client may send on a stream while the windows are narrow. A
	// full one leaves an overflow that needs no further buffer for its next read.
	narrowWindow = 3*overflowStep - 1
	// narrowKept is how much an overflow has then when it holds back the client. grpc-go gets
	// only what the handler asks for, and what its last buffer for that has more.
	narrowKept = overflowStep
	// narrowCall is how much a call can bring then.
	narrowCall = overflowStep + narrowKept + narrowWindow
)

// NewCallBudget returns the budget of a connection that net/http serves with the section c.
func NewCallBudget(windows StreamWindows, c HTTP2Config) *CallBudget {
	return &CallBudget{
		windows: windows,
		wide:    uint32(cmp.Or(c.StreamWindow, defaultStreamWindow)),
		late:    int(cmp.Or(c.ConnectionWindow, defaultConnectionWindow)),
	}
}

// add notes that so many bytes more are held, or less.
func (b *CallBudget) add(n int) {
	if b == nil || n == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bytes += n
	switch narrow := b.narrow.Load(); {
	case !narrow && b.bytes >= callBudget:
		b.narrow.Store(true)
		b.windows.SetInitialWindow(narrowWindow)
	case narrow && b.bytes <= callBudget/2:
		b.narrow.Store(false)
		b.windows.SetInitialWindow(b.wide)
	}
	b.wake()
}

// isNarrow reports whether the windows are narrow.
func (b *CallBudget) isNarrow() bool { return b != nil && b.narrow.Load() }

// addCalls notes that so many calls more have an overflow, or less.
func (b *CallBudget) addCalls(n int) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls += n
	b.wake()
}

// isFull reports whether the calls hold more than they can where the client keeps to its
// windows. The caller holds mu.
func (b *CallBudget) isFull() bool { return b.bytes >= callBudget+b.late+b.calls*narrowCall }

// wake tells those who wait that the budget is not full. The caller holds mu.
func (b *CallBudget) wake() {
	if b.freed != nil && !b.isFull() {
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
	if !b.isFull() {
		return nil
	}
	if b.freed == nil {
		b.freed = make(chan struct{})
	}
	return b.freed
}

// overflowStep is the length of an overflow's buffers.
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
	parts [][]byte   // none is empty; all but the last go to the end of their buffers
	size  int        // of all parts
	err   error
	waits bool // Read takes what comes next
	keeps bool // the client is held back
}

// newOverflow begins to read the body. It returns nil where its client cannot be held back.
func newOverflow(body io.Reader, closed <-chan struct{}, windows StreamWindows, window int) *overflow {
	stream, ok := streamOf(body)
	if !ok || !windows.KeepWindow(stream) {
		return nil
	}
	o := &overflow{
		windows: windows, stream: stream, window: window, budget: windows.CallBudget(), keeps: true,
		closed: closed, wanted: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	o.moved.L = &o.mu
	o.budget.addCalls(1)
	go o.fill(body)
	return o
}

// end waits for the end of the goroutine, when the body is closed.
func (o *overflow) end() {
	<-o.ended
	if o.keeps {
		o.windows.GiveWindow(o.stream, true)
	}
	o.budget.add(-o.size)
	o.budget.addCalls(-1)
}

// fill reads the body to its end.
func (o *overflow) fill(body io.Reader) {
	defer close(o.ended)
	var room []byte // what is left of the last buffer
	for {
		if freed := o.budget.full(); freed != nil {
			select {
			case <-freed:
			case <-o.wanted:
			case <-o.closed: // As the next read will say.
			}
		}
		if len(room) == 0 {
			room = make([]byte, overflowStep)
		}
		n, err := body.Read(room)
		if o.add(room[:n], err); err != nil {
			return
		}
		room = room[n:]
	}
}

// add notes what was read, which goes on in the buffer of the last part unless that is full.
func (o *overflow) add(p []byte, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.budget.add(len(p))
	o.size, o.err = o.size+len(p), err
	if i := len(o.parts) - 1; i >= 0 && len(o.parts[i]) < cap(o.parts[i]) {
		o.parts[i] = o.parts[i][:len(o.parts[i])+len(p)]
	} else if len(p) > 0 {
		o.parts = append(o.parts, p)
	}
	if !o.keeps && !o.waits && (o.size >= o.window || o.size >= narrowKept && o.budget.isNarrow()) {
		o.keeps = o.windows.KeepWindow(o.stream)
	}
	o.waits = false
	o.moved.Signal()
}

// Read implements [io.Reader] for one goroutine.
func (o *overflow) Read(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.size == 0 && o.err == nil {
		o.give() // What was kept may be all that the client can send.
		select {
		case o.wanted <- struct{}{}:
		default:
		}
		o.waits = true
		o.moved.Wait()
	}
	n := 0
	for n < len(p) && len(o.parts) > 0 {
		first := o.parts[0]
		taken := copy(p[n:], first)
		n += taken
		if o.parts[0] = first[taken:]; taken == len(first) {
			o.parts[0] = nil // Its buffer is not kept.
			o.parts = o.parts[1:]
		}
	}
	o.budget.add(-n)
	if o.size -= n; o.size > 0 {
		return n, nil
	}
	o.parts = nil
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
