package pool

import (
	"sync/atomic"
	"time"
)

// eventList are the events of one step, from the time at which they are noted until
// they are told.
type eventList struct {
	time   time.Time
	events []Event
}

const (
	// spareListCount is how many lists are kept for the next steps: about as many as
	// there are goroutines that tell at a time.
	spareListCount = 8
	// spareListLength is the longest list that is kept. A step has few events, but for
	// one that judges every pool anew.
	spareListLength = 8
)

// spareLists keeps lists of events for the next steps, so that an event costs no allocation.
// It is not a [sync.Pool] because that may forget what it was given at any time. The zero value is empty.
type spareLists struct {
	slots [spareListCount]atomic.Pointer[eventList]
}

// take returns an empty list. It is called by one goroutine at a time, the one that holds Set.mu.
func (s *spareLists) take() *eventList {
	for i := range s.slots {
		if s.slots[i].Load() == nil {
			continue
		}
		if list := s.slots[i].Swap(nil); list != nil {
			return list
		}
	}
	return &eventList{events: make([]Event, 0, spareListLength)}
}

// put gives back a list that nobody looks at any more.
func (s *spareLists) put(list *eventList) {
	if cap(list.events) > spareListLength {
		return
	}
	clear(list.events) // They would keep connections from the garbage collector.
	list.events = list.events[:0]
	for i := range s.slots {
		if s.slots[i].CompareAndSwap(nil, list) {
			return
		}
	}
}
