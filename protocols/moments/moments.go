// Package moments says when connections have to leave: the moments at which a drain tells
// its clients, the age of a connection, the steps by which an HTTP/2 connection goes, and how
// long a client may take to answer a ping.
//
// Every function is pure: what is random comes from the caller's source, and the time from
// the caller's clock. Package mux calls them with its own, and the simulation in
// testdata/fleet with a seeded source and a clock that jumps.
package moments

import (
	"iter"
	"math"
	"math/rand/v2"
	"time"
)

// Random is the process's own source. It is safe for concurrent use, and no secret may
// depend on it.
var Random = rand.New(global{}) //nolint:gosec // A herd is spread, no secret is made.

// global is math/rand/v2's source, which its functions share.
type global struct{}

// Uint64 implements [rand.Source].
func (global) Uint64() uint64 { return rand.Uint64() } //nolint:gosec // A herd is spread, no secret is made.

// Spread yields each of n clients once, in a random order, with the moment at which it is
// told to leave: a random one of its own part of over. The moments are random, not their
// number: no moment is crowded by chance.
func Spread(r *rand.Rand, n int, over time.Duration) iter.Seq2[int, time.Duration] {
	return func(yield func(int, time.Duration) bool) {
		for i, which := range r.Perm(n) {
			at := time.Duration((float64(i) + r.Float64()) / float64(n) * float64(over))
			if !yield(which, at) {
				return
			}
		}
	}
}

// Times that a drain keeps free.
const (
	// AnswerTime is how long a drain waits for clients to answer the PING behind the first
	// GOAWAY.
	AnswerTime = time.Second
	// lastWords is the part of the step's time that is kept for the answers of the clients
	// that are told last.
	lastWords = AnswerTime + 500*time.Millisecond
)

// Within returns over how much time clients are told where over is configured and the
// step ends after left. A client that is not told within the step would be cut without a
// word.
func Within(over, left time.Duration) time.Duration {
	return max(0, min(over, left-min(left/2, lastWords)))
}

// FreshTime is how long an HTTP/1.1 connection without a request counts as one that will
// soon have another. Its client would send that into the close, so the next response tells
// it, or the sweep closes it later.
const FreshTime = 500 * time.Millisecond

// Fresh returns what counts as [FreshTime] while a drain tells its clients over a spread.
func Fresh(over time.Duration) time.Duration { return min(over/4, FreshTime) }

// AgeJitter is how much of its limit a connection's age may differ from it. grpc-go has the
// same for those that it serves. Table `growth` of testdata/fleet: with an age of 30 min it
// makes the peak behind an outage a fifth of what it is without, and new replicas are
// filled 2 min later. Half of the limit would make it a third of that, and cost 8 min more.
const AgeJitter = 0.1

// Age returns how old a connection may become under a limit: a random time within jitter,
// a share of the limit, so that connections which began together do not end together.
func Age(r *rand.Rand, limit time.Duration, jitter float64) time.Duration {
	most := time.Duration(float64(limit) * jitter)
	return limit - most + time.Duration(r.Int64N(int64(2*most)+1))
}

// Cut returns when the requests of a connection that is told now are cut: patience later,
// and never, which is 0, without one.
func Cut(now, patience time.Duration) time.Duration {
	if patience <= 0 {
		return 0
	}
	return now + patience
}

// PingAfter is how long behind the first GOAWAY its PING is sent. A client that leaves when it
// has no stream open does so first: Apache's mod_proxy_http2 stays for one more request, which
// it fails, where it owes the answer to a PING.
const PingAfter = 100 * time.Millisecond

// GoAwayPatience is how long a client may take to answer the PING behind the first GOAWAY.
const GoAwayPatience = 5 * time.Second

// DrainPatience is how long a client may take none of the bytes that its server's system holds
// for it, when a drain waits for nothing else. Longer, and each that has gone would hold the
// drain up; shorter, and one that reads by large steps would lose the end of its answer.
const DrainPatience = 15 * time.Second

// busyPatience is the same for a client that has streams open. Its answer may stand behind
// what it receives, and a request behind that is lost to it.
const busyPatience = time.Minute

// Told is an HTTP/2 connection, as a sweep finds it, whose client was told to leave by a
// GOAWAY that refuses no stream.
type Told struct {
	Ago      time.Duration // how long ago
	Patience time.Duration // how long its answer may take: [GoAwayPatience], mostly
	Answered bool          // The client has answered the PING behind that GOAWAY.
	Idle     bool          // No stream is open.
	Final    bool          // The client was told its last stream, by a second GOAWAY.
	Stays    bool          // No stream is open, nor was one at the last sweep.
	Over     bool          // The moment of [Cut] has passed.
	// Unnamed is set where no last stream is named, because nothing would refuse those beyond.
	// A client that has answered the PING opens none.
	Unnamed bool
}

// Step is what a sweep does with a connection that was told to leave.
type Step int

// The steps. The first GOAWAY has been sent before them.
const (
	Wait       Step = iota // The client may not know yet, or streams are open.
	LastStream             // Send the second GOAWAY, which names the last stream.
	End                    // Close the connection.
)

// Next returns the next step.
func (t Told) Next() Step {
	knows := t.Answered || t.Idle && t.Ago > t.Patience || t.Ago > busyPatience
	switch {
	case t.Over, (t.Final || t.Unnamed && knows) && t.Stays:
		return End
	case knows && !t.Final && !t.Unnamed:
		return LastStream // An idle one is closed at the next sweep, so that the frame gets there first.
	default:
		return Wait
	}
}

// A ping stands behind what was sent before it. The client's system or a proxy may hold
// megabytes of that, and the server does not see the client take them.
const (
	// pingRate is how many bytes before a ping give the client another second to answer.
	pingRate = 16 << 10
	// LongestQueue is the most that [ReadTime] returns. A client that is gone is found behind
	// it.
	LongestQueue = 5 * time.Minute
	// ManyUnread is of how many bytes a client is asked by a ping whether it has read them, while
	// it gets more. So a client that is gone is mostly found within [ReadTime] of these, 16 s.
	ManyUnread = 256 << 10
)

// ReadTime returns how long a client may take to read n bytes.
func ReadTime(n uint64) time.Duration {
	return time.Duration(min(float64(n)/pingRate, LongestQueue.Seconds()) * float64(time.Second))
}

// PingTimeout returns how long a client has to answer a ping where timeout is configured and
// the client may not have read so many bytes that stand before the ping.
func PingTimeout(timeout time.Duration, before uint64) time.Duration {
	return Sum(timeout, ReadTime(before))
}

// Sum returns a + b, and the longest time that there is where that is too long.
func Sum(a, b time.Duration) time.Duration { return a + min(b, math.MaxInt64-a) }

// The time between two sweeps is an eighth of the shortest time that they measure, within
// bounds.
const (
	minSweep = 10 * time.Millisecond
	maxSweep = time.Second
	perSweep = 8
)

// SweepEvery returns the time between two sweeps that measure these times. Those that are
// not positive are not measured.
func SweepEvery(measured ...time.Duration) time.Duration {
	every := maxSweep
	for _, d := range measured {
		if d > 0 {
			every = min(every, d/perSweep)
		}
	}
	return max(every, minSweep)
}
