package mux_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muxserve/muxserve/mux"
)

// TestNothingKeepsEndedConnections: nothing that lasts longer than a connection keeps it in
// memory behind its end. In the bubble time stands still unless the test sleeps, so no timer
// of the server lets go of it.
func TestNothingKeepsEndedConnections(t *testing.T) {
	const (
		swept  = 3 * time.Second        // The sweep has seen the connection several times.
		closed = 600 * time.Millisecond // net/http has ended it: it waits for the client for 500 ms.
	)
	full := func(c *mux.Config) { c.Limits.MaxConnections = 1 }
	slowly := func(c *mux.Config) {
		c.Drain.Spread, c.Drain.Timeout, c.Drain.StepTimeout = time.Hour, 3*time.Hour, 2*time.Hour
	}
	for name, test := range map[string]struct {
		edit func(*mux.Config)
		// use opens connections and ends them. It returns what counts those that have ended.
		use func(*testing.T, *mux.Server, *pipeListener) (inMemory func() int)
	}{
		"probe": {full, func(t *testing.T, s *mux.Server, l *pipeListener) func() int {
			pipeBusy(t, l)
			inMemory := s.InMemory() // The busy one.
			conn := l.dial()
			send(t, conn, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
			both := s.InMemory()
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
			return func() int { return both() - inMemory() }
		}},
		"disconnected": {func(*mux.Config) {}, func(t *testing.T, s *mux.Server, l *pipeListener) func() int {
			conn := pipeIdle(t, l)
			inMemory := s.InMemory()
			s.Disconnect(everything, time.Hour)
			_ = conn.Close()
			return inMemory
		}},
		"made room": {full, func(t *testing.T, s *mux.Server, l *pipeListener) func() int {
			conn := pipeIdle(t, l)
			inMemory := s.InMemory()
			time.Sleep(swept)
			pipeIdle(t, l)
			_, _ = io.Copy(io.Discard, conn)
			return inMemory
		}},
		"reload": {slowly, func(t *testing.T, s *mux.Server, l *pipeListener) func() int {
			conn := pipeIdle(t, l)
			inMemory := s.InMemory()
			(&server{Server: s}).reload(t, func(c *mux.Config) { c.HTTP2.MaxStreams = 17 })
			synctest.Wait()
			_ = conn.Close()
			return inMemory
		}},
		"drain": {slowly, func(t *testing.T, s *mux.Server, l *pipeListener) func() int {
			conn := pipeIdle(t, l)
			inMemory := s.InMemory()
			pipeBusy(t, l)
			go func() { _, _ = s.Drain(context.Background()) }()
			time.Sleep(closed) // The clients are being told.
			_ = conn.Close()
			return inMemory
		}},
		"upload": {func(*mux.Config) {}, func(t *testing.T, s *mux.Server, l *pipeListener) func() int {
			conn := l.dial()
			send(t, conn, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")
			time.Sleep(swept)
			inMemory := s.InMemory()
			_ = conn.Close()
			return inMemory
		}},
		"answer": {func(*mux.Config) {}, func(t *testing.T, s *mux.Server, l *pipeListener) func() int {
			conn := l.dial()
			send(t, conn, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
			time.Sleep(swept) // Nobody reads it.
			inMemory := s.InMemory()
			_ = conn.Close()
			return inMemory
		}},
	} {
		t.Run(name, func(t *testing.T) {
			configured := func() *mux.Server {
				return mux.New(mux.WithLogger(discard), mux.WithHandler(routes()), mux.Configure(noDelay), mux.Configure(test.edit))
			}
			serve := func(s *mux.Server, l net.Listener) error {
				return s.Serve(&wakeable{l.(*pipeListener), make(chan struct{}, 1)})
			}
			timed(t, configured, serve, func(t *testing.T, s *mux.Server, l *pipeListener) {
				inMemory := test.use(t, s, l)
				time.Sleep(closed)
				synctest.Wait()
				if n := inMemory(); n != 0 {
					t.Errorf("%d connections are kept in memory behind their end", n)
				}
			})
		})
	}
}

// TestProbesTakeTheirTime: the sweep cuts a probe whose answer is not taken, and gives its
// place back.
func TestProbesTakeTheirTime(t *testing.T) {
	m := mux.New(mux.WithLogger(discard), mux.WithHandler(routes()), mux.Configure(noDelay), mux.Configure(func(c *mux.Config) {
		c.Limits.MaxConnections, c.HTTP1.Progress.ProgressTimeout = 1, 0
		c.HTTP1.MaxAgeGrace = 80 * time.Millisecond // A sweep every 10 ms.
	}))
	m.SetProbeTime(50 * time.Millisecond)
	l := newPipeListener() // It holds no byte of an answer.
	serveToEnd(t, m, func() error { return m.Serve(l) })
	pipeBusy(t, l)
	const rounds, all = 3, 64
	for i := range rounds {
		for range all {
			send(t, l.dial(), "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
		}
		eventually(t, "they are cut", func() bool {
			return m.Stats().Closed["http1"]["probe"] == uint64((i+1)*all) && len(m.Connections()) == 1
		})
	}
}

// wakeable is a listener that a reload can serve in another way.
type wakeable struct {
	*pipeListener
	woken chan struct{}
}

// Accept implements [net.Listener].
func (l *wakeable) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-l.woken:
		return nil, os.ErrDeadlineExceeded
	}
}

// SetDeadline wakes Accept.
func (l *wakeable) SetDeadline(at time.Time) error {
	select {
	case <-l.woken:
	default:
	}
	if !at.IsZero() {
		l.woken <- struct{}{}
	}
	return nil
}

// pipeIdle opens an HTTP/1.1 connection that has had a request.
func pipeIdle(t *testing.T, l *pipeListener) net.Conn {
	t.Helper()
	return pipeAsk(t, l, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
}

// pipeBusy opens one with a request in flight, and closes it at the end of the test.
func pipeBusy(t *testing.T, l *pipeListener) {
	t.Helper()
	conn := pipeAsk(t, l, "GET /busy HTTP/1.1\r\nHost: x\r\n\r\n")
	t.Cleanup(func() { _ = conn.Close() })
}

func pipeAsk(t *testing.T, l *pipeListener, request string) net.Conn {
	t.Helper()
	conn := l.dial()
	send(t, conn, request)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", resp, err)
	}
	if resp.ContentLength > 0 {
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	return conn
}
