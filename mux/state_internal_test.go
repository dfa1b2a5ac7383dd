package mux

import (
	"sync"
	"sync/atomic"
	"testing"
)

// at returns a life at a stage and a departure.
func at(s stage, d departure) *life {
	l := new(life)
	l.bits.Store(uint32(s) | uint32(d)<<departureShift)
	return l
}

// TestStages walks every transition between two stages. The departure stays as it is.
func TestStages(t *testing.T) {
	legal := map[[2]stage]bool{
		{stageAccepted, stageOpen}:   true,
		{stageOpen, stageKnown}:      true,
		{stageKnown, stageServing}:   true,
		{stageAccepted, stageClosed}: true,
		{stageOpen, stageClosed}:     true,
		{stageKnown, stageClosed}:    true,
		{stageServing, stageClosed}:  true,
	}
	for from := stageAccepted; from <= stageClosed; from++ {
		for to := stageAccepted; to <= stageClosed; to++ {
			for d := staying; d <= departFinal; d++ {
				l := at(from, d)
				was, moved, err := l.advance(to)
				want := legal[[2]stage{from, to}]
				if was != from || moved != want {
					t.Errorf("%v to %v: from %v, moved %t, want %t", from, to, was, moved, want)
				}
				if invalid := !want && from != stageClosed; (err != nil) != invalid {
					t.Errorf("%v to %v: error %v, want one: %t", from, to, err, invalid)
				}
				end := from
				if want {
					end = to
				}
				if l.stage() != end || l.departure() != d {
					t.Errorf("%v to %v: now %v and %d", from, to, l.stage(), l.departure())
				}
			}
		}
	}
}

// TestDepartures walks every transition between two departures. The stage stays as it is.
func TestDepartures(t *testing.T) {
	for from := staying; from <= departFinal; from++ {
		for to := staying; to <= departFinal; to++ {
			for s := stageAccepted; s <= stageClosed; s++ {
				l := at(s, from)
				if moved := l.depart(to); moved != (to > from) {
					t.Errorf("%d to %d: moved %t", from, to, moved)
				}
				if l.departure() != max(from, to) || l.stage() != s {
					t.Errorf("%d to %d: now %d and %v", from, to, l.departure(), l.stage())
				}
			}
		}
	}
}

// TestLifeTogether: of all goroutines that try the same transition, one makes it.
func TestLifeTogether(t *testing.T) {
	for range 200 {
		l := at(stageKnown, staying)
		var served, closed, told atomic.Int32
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if _, moved, err := l.advance(stageClosed); moved && err == nil {
					closed.Add(1)
				}
			})
			wg.Go(func() {
				if l.depart(departTold) {
					told.Add(1)
				}
			})
		}
		wg.Go(func() {
			if _, moved, err := l.advance(stageServing); err != nil {
				t.Error(err)
			} else if moved {
				served.Add(1)
			}
		})
		wg.Wait()
		if closed.Load() != 1 || told.Load() != 1 || served.Load() > 1 {
			t.Fatalf("closed %d times, told %d, served %d", closed.Load(), told.Load(), served.Load())
		}
	}
}

// TestInvalidTransition: an invalid transition panics in tests.
func TestInvalidTransition(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("an invalid transition does not panic")
		}
	}()
	c := &conn{root: &root{books: New().books}}
	c.advance(stageServing)
}

// TestInvalidTransitionInProduction: in production an invalid transition is logged, and
// the connection lives.
func TestInvalidTransitionInProduction(t *testing.T) {
	panicOnInvalidTransition = false
	defer func() { panicOnInvalidTransition = true }()
	c := &conn{root: &root{books: New().books}}
	if c.advance(stageServing) || c.stage() != stageAccepted {
		t.Errorf("the stage is %v", c.stage())
	}
}

// TestList: a connection is listed once, and that changes nothing else.
func TestList(t *testing.T) {
	l := at(stageServing, departTold)
	if !l.markListed() || l.markListed() {
		t.Error("it was not listed once")
	}
	if !l.depart(departFinal) {
		t.Error("it did not depart")
	}
	if _, moved, err := l.advance(stageClosed); !moved || err != nil {
		t.Errorf("moved %v, %v", moved, err)
	}
	if l.markListed() || l.stage() != stageClosed || l.departure() != departFinal {
		t.Errorf("listed again, or %v and %v", l.stage(), l.departure())
	}
}
