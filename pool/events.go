package pool

import (
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// EventKind says what happened, in one word.
type EventKind string

// The kinds of events, and the fields of Event that each fills besides Kind, Seq and Time.
const (
	// A connection was accepted: Conn, Tag.
	EventAdded EventKind = "added"
	// A connection was closed: Conn, Tag, and Reason, which [Conn.CloseReason] explains.
	EventRemoved EventKind = "removed"
	// A connection changed its pool: Conn, Tag, From.
	EventRetagged EventKind = "retagged"
	// A connection was too slow: Conn, Tag, Reason, before its EventRemoved; or what
	// [Set.Report] was given.
	EventTimeout EventKind = "timeout"
	// A connection was reset, likewise, with Err; or what [Set.Report] was given; or an
	// observer panicked, with Err and the Reason "observer_panic".
	EventError EventKind = "error"
	// A limit refused a connection, one event each time: Tag, Reason, and Conn where there
	// is one.
	EventLimitReached EventKind = "limit_reached"
	// The health of a pool changed: Tag, Old, New.
	EventHealthChanged EventKind = "health_changed"
)

// Event is something that happened in a [Set].
type Event struct {
	Kind EventKind
	// Seq numbers the events of a Set in the order in which they happened. It is
	// rising, and counts only while somebody observes. Time is when.
	Seq  uint64
	Time time.Time

	// Conn is nil where the event is about no single connection. It may be closed
	// by the time the observer looks at it; its account can still be read.
	Conn *Conn
	// Tag is the pool it happened in, the new one for EventRetagged, where From is the
	// old one. It is [TotalTag] for the health of all pools together.
	Tag, From Tag
	// Reason is a word that says why: one of the package's constants, or the caller's own.
	Reason   string
	Err      error
	Old, New Health
}

// observers are the functions that are told. The zero value has none.
type observers struct {
	list atomic.Pointer[[]*observer] // nil while there are none; never changed in place
	mu   sync.Mutex                  // held to change list
}

type observer struct{ observe func(Event) }

// Observe has f called for each event from now on, until cancel is called. A call
// that has begun may end after that. While nobody observes, an event costs one atomic load.
//
// f is called by the goroutine that caused the event, before the method that did
// so returns: f should be quick, and it may be called by several goroutines at a
// time. It is called without any lock, and may call the Set and its connections; the
// events that it causes are told before its own call returns, and so reach those who observe
// since later before the event that it was called for.
//
// What one goroutine does to a connection is told in order, so EventAdded comes
// first. What two goroutines do at once may be told in either order: a connection
// that one moves while another closes it can be told removed before retagged. Where
// that matters, Seq has the true order: who keeps a state forgets an event that is older than the
// one it has seen.
//
// A panic of f does not reach the server. The observers are told of it by an EventError,
// once for each call that panicked, and not for a call with such an event.
func (s *Set) Observe(f func(Event)) (cancel func()) {
	o := &observer{observe: f}
	s.observers.change(func(list []*observer) []*observer { return append(list, o) })
	return func() {
		s.observers.change(func(list []*observer) []*observer {
			return slices.DeleteFunc(list, func(other *observer) bool { return other == o })
		})
	}
}

// change replaces the list by what edit makes of a copy.
func (o *observers) change(edit func([]*observer) []*observer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var list []*observer
	if old := o.list.Load(); old != nil {
		list = slices.Clone(*old)
	}
	if list = edit(list); len(list) == 0 {
		o.list.Store(nil)
		return
	}
	o.list.Store(&list)
}

// Report tells the observers of something that the Set cannot see for itself: an
// EventTimeout or an EventError. The caller fills in Kind and whichever it knows of Conn, Tag, Reason
// and Err; Tag is the connection's own where it is empty.
func (s *Set) Report(e Event) {
	if !s.number(&e) {
		return
	}
	if e.Tag == "" && e.Conn != nil {
		e.Tag = s.Tag(e.Conn)
	}
	s.tell(&e)
}

// number gives an event its number and time, and reports whether there are observers.
func (s *Set) number(e *Event) (observed bool) {
	if s.observers.list.Load() == nil {
		return false
	}
	e.Seq, e.Time = s.lastSeq.Add(1), time.Now()
	return true
}

// step holds the events of one method that holds Set.mu, on its stack. Few methods have
// more than stepEvents.
type step struct {
	events [stepEvents]Event
	count  int
	more   []Event
}

const stepEvents = 4

// note keeps an event for unlock to tell. The caller holds mu.
func (s *Set) note(events *step, e Event) {
	if s.observers.list.Load() == nil {
		return
	}
	if e.Seq = s.lastSeq.Add(1); events.count == 0 {
		e.Time = time.Now()
	} else {
		e.Time = events.events[0].Time // What one method does happens at one time.
	}
	if events.count < stepEvents {
		events.events[events.count] = e
		events.count++
		return
	}
	events.more = append(events.more, e)
}

// unlock unlocks mu, and then tells the observers what has happened while it was held.
func (s *Set) unlock(events *step) {
	s.mu.Unlock()
	for i := range events.count {
		s.tell(&events.events[i])
	}
	for i := range events.more {
		s.tell(&events.more[i])
	}
}

// tell calls the observers.
func (s *Set) tell(e *Event) {
	list := s.observers.list.Load()
	if list == nil {
		return
	}
	for _, o := range *list {
		s.call(o, e)
	}
}

// reasonPanic is the reason of an EventError that tells of an observer's panic.
const reasonPanic = "observer_panic"

func (s *Set) call(o *observer, e *Event) {
	defer func() {
		v := recover()
		if v == nil || e.Reason == reasonPanic {
			return
		}
		s.Report(Event{Kind: EventError, Reason: reasonPanic,
			Err: fmt.Errorf("pool: an observer panicked at %s: %v\n%s", e.Kind, v, debug.Stack())})
	}()
	o.observe(*e)
}
