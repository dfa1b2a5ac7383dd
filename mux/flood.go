package mux

import (
	"time"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

// floodGrace is how long a connection whose client has reset too many streams is
// kept for those that it has not.
const floodGrace = 2 * time.Second

// flooded ends a connection whose client was told to calm down. It is rare, so
// that looking for the connection among all of them costs less than each knowing its way back.
func (s *Server) flooded(pc *protocols.Conn) {
	for _, a := range s.conns.Conns(pool.Tag(protocols.HTTP2), pool.Tag(protocols.GRPC)) {
		if c, ok := a.Owner().(*conn); ok && &c.Conn == pc {
			a.SetCloseReason(reasonFlood)
			s.background.run(func() { s.closeFlooded(c) })
			return
		}
	}
}

// closeFlooded closes c when nothing is in flight any more, or the grace is over.
func (s *Server) closeFlooded(c *conn) {
	grace := time.NewTimer(floodGrace)
	defer grace.Stop()
	tick := time.NewTicker(floodGrace / 20)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if c.account.InFlight() > 0 {
				continue
			}
		case <-grace.C:
		case <-s.serving.Done():
		}
		_ = c.Close()
		return
	}
}
