package pool

import (
	"context"
	"time"
)

// The list of a sweep may be spareList times longer than needed before it is made anew,
// and keptList long in any case.
const (
	spareList = 4
	keptList  = 1024
)

// Sweep calls visit for each live connection, once in every period, until ctx ends; every
// must be above 0. It runs in the caller's goroutine and replaces a timer for each
// connection. While there are no connections it does next to nothing.
//
// visit is called without any lock, for one connection after the other in no particular
// order. now is the same in one sweep: the time at which the sweep began. visit may close
// the connection, which may have been closed already. A sweep that takes longer than its
// period makes the next one late; none is made up for.
func (s *Set) Sweep(ctx context.Context, every time.Duration, visit func(now time.Time, c *Conn)) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var list []*Conn
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		list = s.appendConns(list[:0])
		now := time.Now()
		for _, c := range list {
			if ctx.Err() != nil {
				return
			}
			visit(now, c)
		}
		clear(list) // What is closed must not be kept from the garbage collector.
		if cap(list) > max(keptList, spareList*len(list)) {
			list = nil
		}
	}
}

// appendConns appends all live connections to list.
func (s *Set) appendConns(list []*Conn) []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		list = append(list, c)
	}
	return list
}
