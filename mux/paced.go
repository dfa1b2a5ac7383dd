package mux

import (
	"sync"
	"time"
)

// paced writes what may happen often, as lines that do not. The first line of a key is
// written at once. What happens within the time behind a line is merged into one, which is
// written when the time is over. All methods may be called concurrently.
type paced[K comparable, V any] struct {
	every time.Duration
	merge func(before, now V) V
	write func(K, V) // called without a lock

	mu    sync.Mutex // guards what follows
	lines map[K]*pacedLine[V]
	ended bool
}

// pacedLine is a key whose last line is not older than the time.
type pacedLine[V any] struct {
	next  *V // what has happened since; nil for nothing
	timer *time.Timer
}

func newPaced[K comparable, V any](every time.Duration, merge func(before, now V) V, write func(K, V)) *paced[K, V] {
	return &paced[K, V]{every: every, merge: merge, write: write, lines: make(map[K]*pacedLine[V])}
}

// note takes in what has happened.
func (p *paced[K, V]) note(key K, v V) {
	p.mu.Lock()
	if line := p.lines[key]; line != nil {
		if line.next != nil {
			v = p.merge(*line.next, v)
		}
		line.next = &v
		p.mu.Unlock()
		return
	}
	if !p.ended {
		p.lines[key] = &pacedLine[V]{timer: time.AfterFunc(p.every, func() { p.due(key) })}
	}
	p.mu.Unlock()
	p.write(key, v)
}

// due writes what has happened in the time behind a line.
func (p *paced[K, V]) due(key K) {
	p.mu.Lock()
	line := p.lines[key]
	switch {
	case line == nil: // The end was faster.
		p.mu.Unlock()
		return
	case line.next == nil:
		delete(p.lines, key)
		p.mu.Unlock()
		return
	}
	v := *line.next
	line.next = nil
	line.timer.Reset(p.every)
	p.mu.Unlock()
	p.write(key, v)
}

// end writes what is left. What comes later is written at once.
func (p *paced[K, V]) end() {
	p.mu.Lock()
	lines := p.lines
	p.lines, p.ended = make(map[K]*pacedLine[V]), true
	for _, line := range lines {
		line.timer.Stop()
	}
	p.mu.Unlock()
	for key, line := range lines {
		if line.next != nil {
			p.write(key, *line.next)
		}
	}
}
