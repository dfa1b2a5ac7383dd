package mux

import (
	"time"

	"github.com/muxserve/muxserve/pool"
)

// Disconnect ends the connections that which selects, and returns how many there were.
// Their clients are told to leave, as by a drain. What is under way goes on for at most
// patience, and then they are cut; with 0 they are closed at once. Disconnect does not wait
// for that, and keeps no connection in memory behind its end. which is called for each live
// connection.
func (s *Server) Disconnect(which func(ConnInfo) bool, patience time.Duration) int {
	leaving := s.books.all(func(c *conn) bool { return which(c.info()) })
	for _, c := range leaving {
		if patience <= 0 || c.stage() < stageServing { // It has nothing under way.
			s.departures.cut(c)
		} else {
			s.departures.leave(c, reasonDisconnected, 0)
		}
	}
	if patience > 0 && len(leaving) > 0 {
		refs := refsOf(leaving)
		s.running.background.run(func() {
			select {
			case <-time.After(patience):
				for _, ref := range refs {
					if c := ref.Value(); c != nil {
						s.departures.cut(c)
					}
				}
			case <-s.running.serving.Done(): // The end of the server closes them.
			}
		})
	}
	return len(leaving)
}

// cut closes a connection, whatever is under way on it.
func (d *departures) cut(c *conn) {
	switch {
	case c.account.State() == pool.StateClosing:
	case c.stage() < stageServing: // The layers above belong to the goroutine that recognises it.
		c.account.SetCloseReason(reasonDisconnected)
		_ = c.account.Close()
	case d.books.endsLikeComplete(c):
		c.abort(reasonDisconnected)
	default:
		c.closeFor(reasonDisconnected)
	}
}
