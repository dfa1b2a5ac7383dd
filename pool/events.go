package pool

import (
	"fmt"
	"runtime/debug"
	"slices"
	"time"
)

// EventKind says what happened, in one word.
type EventKind string

// The kinds of events, and the fields of Event that each fills besides Kind, Seq and
// Time.
const (
	EventAdded    EventKind = "added"    // a connection was accepted: Conn, Tag
	EventRemoved  EventKind = "removed"  // and closed: Conn, Tag, Reason (see [Conn.CloseReason])
	EventRetagged EventKind = "retagged" // or changed its pool: Conn, Tag, From
	// EventTimeout: a connection was too slow. Conn, Tag, Reason, before its EventRemoved;
	// or what [Set.Report] was given.
	EventTimeout EventKind = "timeout"
	// EventError: a connection was reset. Likewise, with Err. Or an observer panicked: Err,
	// and the Reason "observer_panic".
	EventError         EventKind = "error"
	EventLimitReached  EventKind = "limit_reached"  // a connection was refused: Tag, Reason, mostly Conn
	EventHealthChanged EventKind = "health_changed" // of a pool: Tag, Old, New
)

// Event is something that happened in a [Set].
type Event struct {
	Kind EventKind
	Seq  uint64 // numbers the events of a Set in the order in which they happened
	Time time.Time

	// Conn is nil where the event is about no single connection. The account of a closed
	// one can still be read.
	Conn *Conn
	// Tag is the pool it happened in, the new one for EventRetagged, where From is the
	// old one. It is [TotalTag] for the health of all pools together.
	Tag, From Tag
	Reason    string // a word of the package or of the caller
	Err       error
	Old, New  Health
}

type observer func(Event)

// Observe has f called for each event from now on, until cancel is called. A call that
// has begun may end after that. Without observers, an event costs one atomic load.
//
// The goroutine that causes an event calls f before its own method returns. So f should
// be quick, and several goroutines may call it at a time. No lock is held: f may call the
// Set and its connections. The events that f causes are told before f returns. Observers
// that were added later see them before the event that f was called for.
//
// What one goroutine does to a connection is told in order, so EventAdded comes first.
// What two goroutines do at once may be told in either order: EventRemoved may come
// before EventRetagged. Seq has the true order, so an observer that keeps a state ignores
// an event that is older than the last one.
//
// A panic of f does not reach the server. The observers are told of it by an EventError,
// except where the call that panicked was with such an event.
func (s *Set) Observe(f func(Event)) (cancel func()) {
	o := observer(f)
	s.replaceObserver(nil, &o)
	return func() { s.replaceObserver(&o, nil) }
}

// replaceObserver takes out gone and appends added; either may be nil.
func (s *Set) replaceObserver(gone, added *observer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*observer
	if old := s.observers.Load(); old != nil {
		list = slices.Clone(*old)
	}
	list = slices.DeleteFunc(append(list, added), func(o *observer) bool { return o == nil || o == gone })
	if len(list) == 0 {
		s.observers.Store(nil)
		return
	}
	s.observers.Store(&list)
}

// Report tells the observers of something that the Set cannot see. The caller fills in
// Kind and what it knows of Conn, Tag, Reason and Err. An empty Tag stands for the
// connection's own.
func (s *Set) Report(e Event) {
	if !s.number(&e) {
		return
	}
	if e.Tag == "" && e.Conn != nil {
		e.Tag = e.Conn.Tag()
	}
	s.tell(&e)
}

// number gives an event its number and time, and reports whether there are observers.
func (s *Set) number(e *Event) (observed bool) {
	if s.observers.Load() == nil {
		return false
	}
	e.Seq, e.Time = s.lastSeq.Add(1), time.Now()
	return true
}

// pendingEvents are those of one method, to be told behind its lock: seldom more than two.
// They are on the stack of each goroutine that closes a connection.
type pendingEvents struct {
	events [2]Event
	count  int
	more   []Event
}

// note keeps an event for tellAll to tell.
func (s *Set) note(events *pendingEvents, e Event) {
	if s.observers.Load() == nil {
		return
	}
	if e.Seq = s.lastSeq.Add(1); events.count == 0 {
		e.Time = time.Now()
	} else {
		e.Time = events.events[0].Time // What one method does happens at one time.
	}
	if events.count < len(events.events) {
		events.events[events.count] = e
		events.count++
		return
	}
	events.more = append(events.more, e)
}

// unlock unlocks mu, and then tells the observers what happened while it was held.
func (s *Set) unlock(events *pendingEvents) {
	s.mu.Unlock()
	s.tellAll(events)
}

// tellAll tells the observers of all events of a method. The caller holds no lock.
func (s *Set) tellAll(events *pendingEvents) {
	for i := range events.count {
		s.tell(&events.events[i])
	}
	for i := range events.more {
		s.tell(&events.more[i])
	}
}

// tell calls the observers.
func (s *Set) tell(e *Event) {
	if list := s.observers.Load(); list != nil {
		for _, o := range *list {
			s.call(*o, e)
		}
	}
}

// reasonPanic is the reason of an EventError that tells of an observer's panic.
const reasonPanic = "observer_panic"

func (s *Set) call(observe observer, e *Event) {
	defer func() {
		if v := recover(); v != nil && e.Reason != reasonPanic {
			err := fmt.Errorf("pool: an observer panicked at %s: %v\n%s", e.Kind, v, debug.Stack())
			s.Report(Event{Kind: EventError, Reason: reasonPanic, Err: err})
		}
	}()
	observe(*e)
}
