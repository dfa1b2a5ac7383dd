package mux

import "github.com/muxserve/muxserve/lifecycle"

// DrainProgress is a drain under way, or over.
type DrainProgress struct {
	lifecycle.Progress

	// Told counts the connections that the drain has told to leave.
	Told int64
}

// DrainProgress returns how far the drain has come, and false before it begins. The account
// of a drain that is over is in [Stats].Drain.
func (s *Server) DrainProgress() (DrainProgress, bool) {
	p, begun := s.machine.Progress()
	return DrainProgress{p, s.departures.told.Load()}, begun
}
