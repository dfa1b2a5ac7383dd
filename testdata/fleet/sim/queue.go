package sim

import "time"

// what is the kind of an event.
type what uint8

const (
	doConnect what = iota // who is a link, arg its epoch
	doRetry               // the same; the balancer's
	doServe
	doTimeout
	doTell
	doAge
	doClose
	doNotice
	doLeft // who is a replica, arg its life
	doStop
	doEndSpread
	doForce
	doEnd
	doStart
	doCheck  // who is a replica, arg a view
	doMark   // who is a replica, arg a view and whether it is up
	doAction // who is one of the scenario's events
	doRoll   // who is a roll
	doSample
)

// entry is an event in the queue.
type entry struct {
	at   time.Duration
	seq  uint32 // Events of one moment happen in the order in which they were made.
	who  uint32
	arg  uint32
	what what
}

func (e *entry) before(o *entry) bool {
	return e.at < o.at || e.at == o.at && int32(e.seq-o.seq) < 0
}

// queue is a heap of events with four children a node.
type queue struct {
	heap []entry
	seq  uint32
}

func (q *queue) push(e entry) {
	q.seq++
	e.seq = q.seq
	q.heap = append(q.heap, e)
	i := len(q.heap) - 1
	for i > 0 {
		parent := (i - 1) / 4
		if !e.before(&q.heap[parent]) {
			break
		}
		q.heap[i] = q.heap[parent]
		i = parent
	}
	q.heap[i] = e
}

func (q *queue) pop() entry {
	first, last := q.heap[0], q.heap[len(q.heap)-1]
	q.heap = q.heap[:len(q.heap)-1]
	n := len(q.heap)
	if n == 0 {
		return first
	}
	i := 0
	for {
		child := 4*i + 1
		if child >= n {
			break
		}
		least := child
		for c := child + 1; c < min(child+4, n); c++ {
			if q.heap[c].before(&q.heap[least]) {
				least = c
			}
		}
		if !q.heap[least].before(&last) {
			break
		}
		q.heap[i] = q.heap[least]
		i = least
	}
	q.heap[i] = last
	return first
}
