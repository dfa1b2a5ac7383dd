package main

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// session is one stream that echoes numbered messages. One goroutine sends and
// leaves, another one receives; close may be called at any time.
type session interface {
	send(n uint64) error
	// receive returns the number of the next echo, and [io.EOF] when the server has
	// ended the stream in order after leave.
	receive() (uint64, error)
	// told is closed when the connection is told to leave by GOAWAY; nil where
	// the error of receive says it.
	told() <-chan struct{}
	// leave ends the stream from this side: nothing is sent any more, and what
	// was sent is still answered.
	leave()
	// isGoingAway reports whether an error of receive is the close code 1001.
	isGoingAway(err error) bool
	close()
}

// message is an operation of a messenger.
type message struct {
	number   uint64
	deadline time.Time
	done     func()
	sent     bool // over some session
}

// messenger holds one session open, as long-lived clients do: it sends numbered
// messages, and when it is told to leave it ends the session in order and opens
// the next one at once. One goroutine, run, owns all of its state but the queue.
type messenger struct {
	t    *tally
	open func(context.Context) (session, error)

	queue chan *message
	stop  chan struct{} // closed by close
	ended chan struct{} // closed when run has returned

	pending  map[uint64]*message // without an answer so far
	answered map[uint64]bool
}

// queueLen is more than the messages that come within operationTime.
const queueLen = 10_000

func newMessenger(t *tally, queue int, open func(context.Context) (session, error)) *messenger {
	return &messenger{
		t: t, open: open,
		queue: make(chan *message, queue), stop: make(chan struct{}), ended: make(chan struct{}),
		pending: make(map[uint64]*message), answered: make(map[uint64]bool),
	}
}

// reopenPause is how long a messenger waits that could not open a session.
const reopenPause = 20 * time.Millisecond

// run holds a session open until close is called.
func (m *messenger) run(ctx context.Context) {
	defer close(m.ended)
	for pause := time.Duration(0); !m.isStopped(pause); {
		// Where no server is left, sessions cannot be opened or end at once; messages have their time all the same.
		m.takeQueue()
		m.expire(time.Now())
		s, err := m.open(ctx)
		if err == nil {
			m.serve(s)
			pause = 0
			continue
		}
		m.t.failed.Add(1)
		m.t.faultf("opening a stream: %v", err)
		pause = reopenPause
	}
}

// takeQueue takes the messages that wait, for the next session to send.
func (m *messenger) takeQueue() {
	for {
		select {
		case msg := <-m.queue:
			m.t.sent.Add(1)
			m.pending[msg.number] = msg
		default:
			return
		}
	}
}

// isStopped reports whether close is called within d.
func (m *messenger) isStopped(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-m.stop:
		return true
	case <-timer.C:
	}
	select {
	case <-m.stop: // Both may have been ready.
		return true
	default:
		return false
	}
}

// reception is what the reading side of a session gets.
type reception struct {
	number uint64
	err    error // not nil for the last one
}

// receiveAll passes on what s receives, until it ends.
func receiveAll(s session, to chan<- reception) {
	for {
		n, err := s.receive()
		to <- reception{n, err}
		if err != nil {
			return
		}
	}
}

// sweepInterval is how often messages without an answer are looked at.
const sweepInterval = time.Second

// serve uses a session until it ends.
func (m *messenger) serve(s session) {
	defer s.close()
	received := make(chan reception)
	go receiveAll(s, received)
	m.resend(s)
	sweep := time.NewTicker(sweepInterval)
	defer sweep.Stop()
	queue, told, stop := m.queue, s.told(), m.stop
	leaving := false
	for {
		select {
		case msg := <-queue:
			m.t.sent.Add(1)
			m.send(s, msg)
		case r := <-received:
			if r.err == nil {
				m.settle(r.number)
				continue
			}
			m.account(s, r.err, stop == nil)
			return
		case <-told:
			told, queue = nil, nil
			if !leaving {
				leaving = true
				s.leave()
			}
		case <-stop:
			stop, queue = nil, nil
			if !leaving {
				leaving = true
				s.leave()
			}
		case now := <-sweep.C:
			m.expire(now)
		}
	}
}

// resend sends again what the last session has left without an answer.
func (m *messenger) resend(s session) {
	for _, n := range slices.Sorted(maps.Keys(m.pending)) {
		if m.pending[n].sent {
			m.t.resent.Add(1)
		}
		m.send(s, m.pending[n])
	}
}

// send sends a message. When it cannot, the session is about to end, and the
// message goes out on the next one.
func (m *messenger) send(s session, msg *message) {
	m.pending[msg.number] = msg
	msg.sent = s.send(msg.number) == nil || msg.sent
}

// settle takes the answer to a message.
func (m *messenger) settle(n uint64) {
	msg, ok := m.pending[n]
	switch {
	case ok:
		delete(m.pending, n)
		m.answered[n] = true
		m.t.answered.Add(1)
		msg.done()
	case m.answered[n]:
		m.t.doubled.Add(1)
		m.t.faultf("message %d was answered twice", n)
	default:
		m.t.failed.Add(1)
		m.t.faultf("message %d was answered, and is none of ours or late", n)
	}
}

// expire gives up the messages whose time is over.
func (m *messenger) expire(now time.Time) {
	for n, msg := range m.pending {
		if now.After(msg.deadline) {
			delete(m.pending, n)
			m.t.lost.Add(1)
			m.t.faultf("message %d has no answer after %v", n, operationTime)
			msg.done()
		}
	}
}

// account takes note of how a session has ended.
func (m *messenger) account(s session, err error, ours bool) {
	switch {
	case s.isGoingAway(err):
		m.t.goingAway.Add(1)
	case isTold(s):
		m.t.goAway.Add(1)
		if !errors.Is(err, io.EOF) {
			m.t.failed.Add(1)
			m.t.faultf("a stream was cut after GOAWAY: %v", err)
		}
	case !ours:
		m.t.untold.Add(1)
		m.t.faultf("a stream ended without being told: %v", err)
	}
}

// isTold reports whether the session's connection was told to leave by GOAWAY.
func isTold(s session) bool {
	select {
	case <-s.told():
		return true
	default:
		return false
	}
}

// messages are clients that each hold a session open and send messages in turn.
type messages struct {
	messengers []*messenger
	shutdown   func() // closes what the sessions share; may be nil
	next       atomic.Uint64
}

var _ client = (*messages)(nil)

// newMessages runs n messengers; open opens the sessions of number i.
func newMessages(ctx context.Context, t *tally, n int, open func(ctx context.Context, i int) (session, error), shutdown func()) *messages {
	m := &messages{shutdown: shutdown}
	for i := range n {
		each := newMessenger(t, max(queueLen/n, 1), func(ctx context.Context) (session, error) { return open(ctx, i) })
		m.messengers = append(m.messengers, each)
		go each.run(ctx)
	}
	return m
}

// begin implements [client].
func (m *messages) begin(_ context.Context, n uint64, done func()) {
	to := m.messengers[m.next.Add(1)%uint64(len(m.messengers))]
	select {
	case to.queue <- &message{number: n, deadline: time.Now().Add(operationTime), done: done}:
	default:
		// Nobody has taken a message for much longer than operationTime.
		to.t.sent.Add(1)
		to.t.lost.Add(1)
		done()
	}
}

// close implements [client].
func (m *messages) close() {
	var wg sync.WaitGroup
	for _, each := range m.messengers {
		close(each.stop)
		wg.Go(func() { <-each.ended })
	}
	wg.Wait()
	if m.shutdown != nil {
		m.shutdown()
	}
}
