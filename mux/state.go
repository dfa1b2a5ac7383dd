package mux

import (
	"fmt"
	"sync/atomic"
)

// stage is how far a connection has come. It only moves forward, one stage at a time, but
// a connection may be closed at any stage.
type stage uint32

// The stages of a connection.
const (
	stageAccepted stage = iota // it is accounted for
	stageOpen                  // its PROXY header and its TLS handshake are over
	stageKnown                 // its verdict stands
	stageServing               // it is dispatched: to its server, or to be refused
	stageClosed                // it is closed, or being closed
)

var stageNames = [...]string{"accepted", "open", "known", "serving", "closed"}

// String returns the name of the stage.
func (s stage) String() string { return stageNames[s] }

// departure says whether the client was told to leave. It only moves forward.
type departure uint32

// The steps of a departure.
const (
	staying     departure = iota
	departTold            // the client was told to leave, and requests under way go on
	departFinal           // the client of an HTTP/2 connection is told its last stream
)

const departureMask = 3

// Bits beside the stage and the departure.
const (
	listedBit  = 1 << 5 // the connection stands among the closed ones
	begunBit   = 1 << 6 // net/http is done with the head of its first request
	lastBit    = 1 << 7 // its next answer is the last, unless that switches to another protocol
	closingBit = 1 << 8 // Close was called
)

// life is the stage and the departure of a connection. The zero value is accepted and
// staying. All methods may be called concurrently.
type life struct{ bits atomic.Uint32 }

// begin notes that net/http has read the head of a request.
func (l *life) begin() {
	if !l.hasBegun() {
		l.bits.Or(begunBit)
	}
}

func (l *life) hasBegun() bool { return l.bits.Load()&begunBit != 0 }

// markLast notes that the next answer is the last.
func (l *life) markLast() { l.bits.Or(lastBit) }

func (l *life) isLast() bool { return l.bits.Load()&lastBit != 0 }

// markClosing notes that the layers are being closed. TLS says goodbye first, and waits 5 s
// where the client takes nothing.
func (l *life) markClosing() { l.bits.Or(closingBit) }

func (l *life) isClosing() bool { return l.bits.Load()&closingBit != 0 }

// markListed reports whether the connection is to be put among the closed ones, once.
func (l *life) markListed() bool { return l.bits.Or(listedBit)&listedBit == 0 }

// departureShift is where the departure stands in the bits, behind the stage.
const departureShift = 3

func splitLife(bits uint32) (stage, departure) {
	return stage(bits & (1<<departureShift - 1)), departure(bits >> departureShift & departureMask)
}

func (l *life) stage() stage {
	s, _ := splitLife(l.bits.Load())
	return s
}

func (l *life) departure() departure {
	_, d := splitLife(l.bits.Load())
	return d
}

// advance moves the connection to the next stage, or closes it. It returns the stage
// before, and reports whether the call has moved it: a closed connection stays closed,
// because another goroutine may close a connection at any time. Any other transition is
// an error, and changes nothing.
func (l *life) advance(to stage) (from stage, moved bool, err error) {
	for {
		bits := l.bits.Load()
		from, _ = splitLife(bits)
		switch {
		case from == stageClosed:
			return from, false, nil
		case to != stageClosed && to != from+1:
			return from, false, fmt.Errorf("mux: a connection cannot go from %v to %v", from, to)
		case l.bits.CompareAndSwap(bits, bits-uint32(from)+uint32(to)):
			return from, true, nil
		}
	}
}

// depart moves the departure forward, and reports whether the call has moved it.
func (l *life) depart(to departure) bool {
	for {
		bits := l.bits.Load()
		_, from := splitLife(bits)
		if to <= from {
			return false
		}
		if l.bits.CompareAndSwap(bits, bits&^(departureMask<<departureShift)|uint32(to)<<departureShift) {
			return true
		}
	}
}

// panicOnInvalidTransition makes a programming error loud in tests. In production it is
// logged, and the connection goes on.
var panicOnInvalidTransition bool

// advance moves the connection to another stage, and reports whether it has. The first
// move to stageServing or beyond settles the connection.
func (c *conn) advance(to stage) bool {
	from, moved, err := c.life.advance(to)
	if err != nil {
		if panicOnInvalidTransition {
			panic(err)
		}
		c.root.books.logger.Error("invalid transition of a connection", keyConnID, c.account.ID(), keyErr, err)
	}
	if moved && from < stageServing && to >= stageServing {
		c.settle()
	}
	return moved
}

// isTold reports whether the client has been told to leave.
func (c *conn) isTold() bool { return c != nil && c.departure() >= departTold }

// isServing reports whether the connection is with its server.
func (c *conn) isServing() bool { return c.stage() == stageServing }
