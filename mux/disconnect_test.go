package mux_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/muxserve/muxserve/mux"
)

// everything is a condition for Disconnect.
func everything(mux.ConnInfo) bool { return true }

// TestDisconnectAtOnce: without patience, every connection is closed, whatever is under way
// on it.
func TestDisconnectAtOnce(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		busy := s.busy(t)
		stream, echo := s.echoCall(t)
		echo("hello")
		ws := s.webSocket(t)
		silent := s.dial(t)
		eventually(t, "all are there", func() bool { return len(s.Connections()) == 4 })
		if got := s.Disconnect(func(mux.ConnInfo) bool { return false }, 0); got != 0 {
			t.Errorf("%d of none", got)
		}
		if got := s.Disconnect(everything, 0); got != 4 {
			t.Errorf("%d disconnected, want 4", got)
		}
		if _, err := io.Copy(io.Discard, busy); err == nil && s.scheme() == "http" {
			t.Error("the response that was cut looks complete")
		}
		if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("the call: %v", err)
		}
		if _, _, err := ws.Read(t.Context()); err == nil {
			t.Error("the WebSocket goes on")
		}
		_, _ = io.Copy(io.Discard, silent)
		eventually(t, "all are gone", func() bool { return len(s.Connections()) == 0 })
		eventually(t, "they are listed", func() bool { return s.ends()["cut disconnected"] == 4 })
		if got := s.status(t, "/echo"); got != http.StatusOK {
			t.Errorf("a new connection: %d", got)
		}
	})
}

// TestDisconnectWithPatience: clients are told first. What ends in time is not cut.
func TestDisconnectWithPatience(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		idle := s.hold(t)
		ws := s.webSocket(t)
		busy := s.busy(t)
		only := func(c mux.ConnInfo) bool { return c.State != "active" }
		eventually(t, "idle", func() bool { return s.states()["idle"] == 1 && s.states()["upgraded"] == 1 })
		if got := s.Disconnect(only, time.Hour); got != 2 {
			t.Errorf("%d disconnected, want 2", got)
		}
		if _, err := io.Copy(io.Discard, idle); err != nil {
			t.Errorf("the idle connection: %v", err)
		}
		if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
			t.Errorf("the WebSocket: %v, want 1001", err)
		}
		if got := s.Disconnect(everything, time.Hour); got == 0 {
			t.Error("the busy connection was not there")
		}
		eventually(t, "leaving", func() bool { return s.states()["leaving"] == 1 })
		if got := s.Disconnect(everything, time.Millisecond); got != 1 {
			t.Errorf("%d disconnected, want the one that leaves", got)
		}
		_, _ = io.Copy(io.Discard, busy)
		eventually(t, "gone", func() bool { return len(s.Connections()) == 0 })
	})
}

// states counts the connections by their states.
func (s *server) states() map[string]int {
	states := make(map[string]int)
	for _, c := range s.Connections() {
		states[c.State]++
	}
	return states
}

// ends counts what Closed lists, by outcome and reason.
func (s *server) ends() map[string]int {
	ends := make(map[string]int)
	for _, c := range s.Closed() {
		ends[string(c.Outcome)+" "+c.Reason]++
	}
	return ends
}

// TestClosed: each connection that has ended stands in the list once, by how it ended.
func TestClosed(t *testing.T) {
	t.Parallel()
	s := start(t, false, mux.Configure(func(c *mux.Config) {
		c.HTTP1.MaxConnections = 1
		c.Sniff.Timeout = 500 * time.Millisecond
		c.HTTP1.HeaderTimeout = 500 * time.Millisecond
	}))
	end := func(want, first string) {
		t.Helper()
		conn := s.dial(t)
		send(t, conn, first)
		_, _ = io.Copy(io.Discard, conn)
		eventually(t, want, func() bool { return s.ends()[want] == 1 })
	}
	end("closed server_closed", "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	end("refused no_match", "what is this\r\n\r\n")
	end("refused sniff_timeout", "GE")
	end("failed header_timeout", "GET /echo HTTP/1.1\r\nHost: x\r\n")
	held := s.busy(t)
	end("refused limit", "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
	end("closed probe", "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
	_ = held.Close()
	eventually(t, "the first leaves", func() bool { return s.ends()["failed reset"]+s.ends()["closed peer_closed"] == 1 })
	list := s.Closed()
	if len(list) != 7 {
		t.Errorf("%d connections, want 7: %+v", len(list), list)
	}
	for i, c := range list {
		if c.ID == 0 || c.RemoteAddr == "" || c.Closed.Before(c.Opened) || i > 0 && c.Closed.After(list[i-1].Closed) {
			t.Errorf("%d: %+v", i, c)
		}
	}
}

// TestClosedIsBounded: what ends as it should does not push out the rest.
func TestClosedIsBounded(t *testing.T) {
	s := start(t, false)
	conn := s.dial(t)
	send(t, conn, "what is this\r\n\r\n")
	_, _ = io.Copy(io.Discard, conn)
	for range 210 {
		s.status(t, "/echo")
	}
	eventually(t, "all are closed", func() bool { return len(s.Connections()) == 0 })
	if ends := s.ends(); len(s.Closed()) != 201 || ends["refused no_match"] != 1 {
		t.Errorf("%d connections: %v", len(s.Closed()), ends)
	}
}

// TestClosedByADrain: a drain that cuts says which, whether their clients were told to leave
// or not.
func TestClosedByADrain(t *testing.T) {
	for name, timeout := range map[string]time.Duration{"at once": 0, "told first": 200 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			s := start(t, false, mux.Configure(func(c *mux.Config) { c.Drain.Spread, c.Drain.Timeout = 0, timeout }))
			s.busy(t)
			if _, err := s.Drain(t.Context()); !errors.Is(err, mux.ErrForced) {
				t.Errorf("drain: %v", err)
			}
			// The goroutine that closes a connection lists it behind that.
			eventually(t, "the end is listed", func() bool { return s.ends()["cut forced"] == 1 })
			if got := s.Stats().Closed["http1"]; got["forced"] != 1 || got["drain"] != 0 {
				t.Errorf("close reasons %v", got)
			}
		})
	}
}

// TestClosedByADrainBehindItsAge: a connection that was told to leave for its age, and is cut
// by a drain, is among those that were cut.
func TestClosedByADrainBehindItsAge(t *testing.T) {
	s := start(t, false, mux.Configure(func(c *mux.Config) {
		c.HTTP1.MaxAge, c.Drain.Spread, c.Drain.Timeout = 50*time.Millisecond, 0, 0
	}))
	s.busy(t)
	eventually(t, "told", func() bool { return s.Accounts()[0].CloseReason() == "max_age" })
	if _, err := s.Drain(t.Context()); !errors.Is(err, mux.ErrForced) {
		t.Errorf("drain: %v", err)
	}
	eventually(t, "the end is listed", func() bool { return s.ends()["cut forced"] == 1 })
}

// TestReady: Ready says what /readyz does.
func TestReady(t *testing.T) {
	m := mux.New(mux.Configure(noDelay), mux.WithLogger(discard))
	if err := m.Ready(); err == nil || !strings.Contains(err.Error(), "new") {
		t.Errorf("before it serves: %v", err)
	}
	s := serve(t, m)
	eventually(t, "ready", func() bool { return s.Ready() == nil })
	s.SetServing("", false)
	if err := s.Ready(); err == nil || err.Error() != "switched off" {
		t.Errorf("switched off: %v", err)
	}
	s.SetServing("", true)
	if err := s.Ready(); err != nil {
		t.Errorf("switched on: %v", err)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if err := s.Ready(); err == nil || !strings.Contains(err.Error(), "stopped") {
		t.Errorf("after the drain: %v", err)
	}
}
