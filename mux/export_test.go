package mux

import (
	"fmt"
	"net"
	"runtime"
	"time"

	"github.com/muxserve/muxserve/pool"
)

// Accounts returns the accounts of the live connections. A test can read them when the
// connections are gone.
func (s *Server) Accounts() []*pool.Conn { return s.books.conns.Conns() }

// UnseenFaults returns faults of the gauges that no figure shows, on a server without
// connections: reserved places, and counts of clients. It changes the limits.
func (s *Server) UnseenFaults(clients []net.Addr) (faults []string) {
	for _, p := range builtin {
		tag := pool.Tag(p)
		s.books.conns.SetLimits(pool.Limits{PerTag: map[pool.Tag]int{tag: 1}})
		if !s.books.conns.Reserve(nil, tag) {
			faults = append(faults, fmt.Sprintf("%s: a place is reserved", p))
			continue
		}
		if s.books.conns.Reserve(nil, tag) {
			faults = append(faults, fmt.Sprintf("%s: fewer than no place is reserved", p))
		}
		s.books.conns.Release(tag)
	}
	s.books.conns.SetLimits(pool.Limits{Config: pool.Config{PerAddress: 1}})
	for _, client := range clients {
		if first, second := s.identify(client), s.identify(client); first != "" || second != "" {
			faults = append(faults, fmt.Sprintf("%s: the client's count is not zero: %q, %q", client, first, second))
		}
	}
	return faults
}

// identify opens a connection of a client, and a second one, which must be refused. It
// returns what went wrong.
func (s *Server) identify(client net.Addr) (fault string) {
	near, far := net.Pipe()
	defer far.Close()
	var conns [2]pool.Conn
	for i := range conns {
		c := &conns[i]
		s.books.conns.Add(c, near, nil)
		defer c.Close()
		if want := [2]string{"", pool.ReasonAddressLimit}[i]; s.books.conns.Identify(c, client) != want {
			fault = fmt.Sprintf("connection %d", i)
		}
	}
	return fault
}

// NativeConns returns the number of connections that native gRPC calls can be traced to.
func (s *Server) NativeConns() int {
	n := 0
	grpcConns.Range(func(_, c any) bool {
		if c.(*conn).root.books == s.books {
			n++
		}
		return true
	})
	return n
}

// ServeOptional is Serve with optional TLS, as [WithTLS] configures it.
func (s *Server) ServeOptional(l net.Listener) error {
	if err := s.start(); err != nil {
		return err
	}
	return s.serveBrought(&endpoint{sockets: []net.Listener{l}, optional: true, allow: allowAll, brought: true})
}

// FailListener makes the configured listener i fail for good.
func (s *Server) FailListener(i int) error {
	return s.topology.configured()[i].sockets[0].Close()
}

// SetLeaving sets how many connections may be on their way out to make room, and how long
// their clients may go on with requests then.
func (s *Server) SetLeaving(most int, patience time.Duration) {
	m := s.topology.admission.room
	m.mu.Lock()
	defer m.mu.Unlock()
	m.maxLeaving, m.patience = most, patience
}

// SetPatience sets for how long a client may be mute, and slow, before its connection may
// make room.
func (s *Server) SetPatience(mute, slow time.Duration) {
	m := s.topology.admission.room
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mute, m.slow = mute, slow
}

// SetProbeTime sets how long the connection of a probe above a limit lasts at most. It must be
// called before the server serves.
func (s *Server) SetProbeTime(d time.Duration) { s.topology.admission.probes.patience = d }

// CutLasting is what room does with a connection that an earlier search has found to go on
// with requests.
func (s *Server) CutLasting(a *pool.Conn) bool {
	m := s.topology.admission.room
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cut(spare{c: a.Owner().(*conn)})
}

// InMemory returns a function that collects garbage, and returns how many of the connections
// that are live now are still in memory.
func (s *Server) InMemory() func() int {
	refs := refsOf(s.books.all(func(*conn) bool { return true }))
	return func() (n int) {
		for range 5 { // A sync.Pool gives up what it holds at the second.
			runtime.GC()
		}
		for _, ref := range refs {
			if ref.Value() != nil {
				n++
			}
		}
		return n
	}
}

// Waits reports whether a connection waits for a place.
func (s *Server) Waits() bool { return len(s.topology.admission.turn) > 0 }

// Backends returns the number of generations of protocol servers.
func (s *Server) Backends() int { return len(s.topology.allBackends()) }

// PanicOnInvalidTransition makes an invalid transition panic, as it does in all tests.
func PanicOnInvalidTransition() { panicOnInvalidTransition = true }

// StageNames returns the names of the stages of a connection, in their order.
func StageNames() []string { return stageNames[:] }

// LeftBodies returns how many bodies are read behind their handlers on a connection.
func LeftBodies(a *pool.Conn) int {
	return int(a.Owner().(*conn).http2().left.Load())
}

// LeaveIdle tells the client of an idle HTTP/2 connection its last stream, as room does.
func (s *Server) LeaveIdle(a *pool.Conn) {
	s.departures.leaveIdle(a.Owner().(*conn), reasonRoom)
}

// SetLeftTime sets how long a body may be read behind its handler.
func (s *Server) SetLeftTime(d time.Duration) { s.departures.leftTime.Store(int64(d)) }

// SetFresh sets how long an HTTP/1.1 connection without a request counts as fresh.
func (s *Server) SetFresh(d time.Duration) { s.departures.fresh.Store(int64(d)) }

// Roots returns the number of sockets that are served, or were before a reload and have
// connections left.
func (s *Server) Roots() int {
	s.topology.mu.Lock()
	defer s.topology.mu.Unlock()
	return len(s.topology.roots)
}
