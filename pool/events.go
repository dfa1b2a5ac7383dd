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

// The kinds of events, and the fields of Event that each fills besides Kind, Seq and
// Time.
const (
	// EventAdded: a connection was accepted. Conn, Tag.
	EventAdded EventKind = "added"
	// EventRemoved: a connection was closed. Conn, Tag, Reason; see [Conn.CloseReason].
	EventRemoved EventKind = "removed"
	// EventRetagged: a connection changed its pool. Conn, Tag, From.
	EventRetagged EventKind = "retagged"
	// EventTimeout: a connection was too slow. Conn, Tag, Reason, before its EventRemoved;
	// or what [Set.Report] was given.
	EventTimeout EventKind = "timeout"
	// EventError: a connection was reset. Likewise, with Err. Or an observer panicked: Err,
	// and the Reason "observer_panic".
	EventError EventKind = "error"
	// EventLimitReached: a limit refused a connection. Tag, Reason, Conn where there is one.
	EventLimitReached EventKind = "limit_reached"
	// EventHealthChanged: the health of a pool changed. Tag, Old, New.
	EventHealthChanged EventKind = "health_changed"
)

// Event is something that happened in a [Set].
type Event struct {
	Kind EventKind
	// Seq numbers the events of a Set in the order in which they happened, while there
	// are observers. Time is when.
	Seq  uint64
	Time time.Time

	// Conn is nil where the event is about no single connection. It may be closed
	// by the time the observer looks at it; its account can still be read.
	Conn *Conn
	// Tag is the pool it happened in, the new one for EventRetagged, where From is the
	// old one. It is [TotalTag] for the health of all pools together.
	Tag, From Tag
	// Reason is a word that says why: one of the package's constants, or the caller's
	// own.
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

// Observe has f called for each event from now on, until cancel is called. A call that
// has begun may end after that. Without observers, an event costs one atomic load.
//
// The goroutine that causes an event calls f before its own method returns. So f should
// be quick, and several goroutines may call it at a time. No lock is held: f may call the
// Set and its connections. The events that f causes are told before f returns. Observers
// that were added later see them before the event that f was called for.
//
// What one goroutine does to a connection is told in order, so EventAdded comes first.
// What two goroutines do at once may be told in either order: where one moves a
// connection while the other closes it, EventRemoved may come before EventRetagged. Seq
// has the true order, so an observer that keeps a state ignores an event that is older
// than the last one.
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

// Report tells the observers of something that the Set cannot see for itself. The caller
// fills in Kind and what it knows of Conn, Tag, Reason and Err. An empty Tag stands for
// the connection's own.
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
