package pool

import (
	"time"
)

// account is what a Set keeps for one tag. The first three fields never change; the others are guarded by Set.mu.
type account struct {
	set   *Set
	tag   Tag
	began time.Time // Set.began, near at hand for each read and write

	arrivals rate // by second since began
	totals   Stats
	// past is what the pool has moved, without its live connections' own counters: those
	// are added when somebody asks. A connection that leaves with r bytes leaves r here, and r
	// is taken off where it goes to, so that bytes count in the pool that moved them and no connection
	// has to remember what it brought. The part of a pool may be below zero, as a number that
	// wraps around; the sum with the live ones never is.
	past      traffic
	live      traffic // while Stats adds up
	lifetimes lifetimes
	reserved  int // places taken by Reserve
	rejected  map[string]uint64
}

// now returns the nanoseconds since the Set began.
func (a *account) now() int64 { return int64(time.Since(a.began)) }

// at returns the time that lies so many nanoseconds after the Set's beginning.
func (a *account) at(nanoseconds int64) time.Time { return a.began.Add(time.Duration(nanoseconds)) }

// traffic is what was moved, by one connection or by many.
type traffic struct {
	bytesReceived, bytesSent       uint64
	messagesReceived, messagesSent uint64
}

func (t *traffic) add(more traffic) {
	t.bytesReceived += more.bytesReceived
	t.bytesSent += more.bytesSent
	t.messagesReceived += more.messagesReceived
	t.messagesSent += more.messagesSent
}

func (t *traffic) subtract(less traffic) {
	t.bytesReceived -= less.bytesReceived
	t.bytesSent -= less.bytesSent
	t.messagesReceived -= less.messagesReceived
	t.messagesSent -= less.messagesSent
}

// account returns the account of tag, which it opens at the first time. The caller holds mu.
func (s *Set) account(tag Tag) *account {
	a := s.accounts[tag]
	if a == nil {
		if s.accounts == nil {
			s.began = time.Now()
			s.accounts = make(map[Tag]*account)
		}
		a = &account{set: s, tag: tag, began: s.began}
		s.accounts[tag] = a
	}
	return a
}

// Stats returns the totals of every pool that was ever used, by tag.
func (s *Set) Stats() map[string]Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.accounts {
		a.live = traffic{}
	}
	for c := range s.conns {
		// The bytes of a live connection without a protocol are booked nowhere
		// until its pool is known, so that no counter ever runs backwards.
		if a := c.account.Load(); a.tag != Sniffing {
			a.live.add(c.traffic())
		}
	}
	all := make(map[string]Stats, len(s.accounts))
	now := second(time.Since(s.began))
	for tag, a := range s.accounts {
		moved := a.past
		moved.add(a.live)
		stats := a.totals
		stats.BytesReceived, stats.BytesSent = moved.bytesReceived, moved.bytesSent
		stats.MessagesReceived, stats.MessagesSent = moved.messagesReceived, moved.messagesSent
		arrivals := counted{&a.arrivals, stats.Accepted}
		stats.AcceptedPerSecond = lastSecond(now, arrivals)
		stats.AcceptedPerMinute = lastMinute(now, arrivals)
		all[string(tag)] = stats
	}
	return all
}

// ConnDurations returns how long connections have lived from the accept to the close, by
// the pool that they were closed in, for every pool that was ever used. The buckets reach from a second to a day.
func (s *Set) ConnDurations() map[string]DurationTotals {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]DurationTotals, len(s.accounts))
	for tag, a := range s.accounts {
		all[string(tag)] = a.lifetimes.totals()
	}
	return all
}
