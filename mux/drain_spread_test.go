package mux_test

import (
	"bufio"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/mux"
)

const (
	// spreadTime is the spread of these drains, and spreadClients how many are told in it.
	spreadTime    = time.Second
	spreadClients = 60
	// stillTime is more than a connection must have been idle for to be closed at its moment of the spread.
	stillTime = 600 * time.Millisecond
)

// checkSpread wants moments, since the drain began, all over the spread: no tenth of it holds more
// than three times its share, wherever it begins, and they reach over more than half of it.
func checkSpread(t *testing.T, what string, moments []time.Duration) {
	t.Helper()
	slices.Sort(moments)
	const stretch, most = spreadTime / 10, 3 * spreadClients / 10
	busiest, first := 0, 0
	for last, at := range moments {
		for at-moments[first] >= stretch {
			first++
		}
		busiest = max(busiest, last-first+1)
	}
	if busiest > most {
		t.Errorf("%s: %d of %d within %v, want at most %d", what, busiest, len(moments), stretch, most)
	}
	last := moments[len(moments)-1]
	if reach := last - moments[0]; reach <= spreadTime/2 {
		t.Errorf("%s: all within %v of a spread of %v", what, reach, spreadTime)
	}
	if last > spreadTime {
		t.Errorf("%s: one only after %v, with a spread of %v", what, last, spreadTime)
	}
}

// spreadServer serves on pipes in a bubble, so that the moments are exact.
func spreadServer(t *testing.T, f func(*testing.T, *server, *pipeListener)) {
	t.Helper()
	timed(t, func() *mux.Server {
		return mux.New(mux.WithHandler(routes()), mux.WithLogger(discard), mux.Configure(patient),
			mux.Configure(func(c *mux.Config) { c.Drain.Spread = spreadTime }))
	}, (*mux.Server).Serve, func(t *testing.T, m *mux.Server, l *pipeListener) {
		f(t, &server{Server: m}, l)
	})
}

// TestIdleHTTP1Spread: idle HTTP/1.1 connections are closed without a word at moments all over the spread, so that their
// clients do not come back all at once.
func TestIdleHTTP1Spread(t *testing.T) {
	spreadServer(t, func(t *testing.T, s *server, l *pipeListener) {
		var began time.Time
		moments := make([]time.Duration, spreadClients)
		var wg sync.WaitGroup
		for i := range moments {
			conn := l.dial()
			defer conn.Close()
			r := bufio.NewReader(conn)
			resp := roundTrip(t, conn, r, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
			_, _ = io.Copy(io.Discard, resp.Body)
			wg.Go(func() {
				if n, err := io.Copy(io.Discard, r); n != 0 || err != nil {
					t.Errorf("client %d: %d bytes and %v for an end", i, n, err)
				}
				moments[i] = time.Since(began)
			})
		}
		time.Sleep(stillTime) // The bubble's clock alone; see freshTime.
		began = time.Now()
		if got := <-s.drain(t.Context()); got.err != nil || got.report.ForcedTotal() != 0 {
			t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
		}
		wg.Wait()
		checkSpread(t, "closed", moments)
	})
}

// TestFreshHTTP1AtEndOfSpread: an HTTP/1.1 connection that had a request a moment ago will have another one, which
// would be sent into the close. It stays until the end of the spread.
func TestFreshHTTP1AtEndOfSpread(t *testing.T) {
	spreadServer(t, func(t *testing.T, s *server, l *pipeListener) {
		conn := l.dial()
		defer conn.Close()
		r := bufio.NewReader(conn)
		const request = "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"
		_, _ = io.Copy(io.Discard, roundTrip(t, conn, r, request).Body)
		began := time.Now()
		done := s.drain(t.Context())
		// A client that asks all the time, far more often than freshTime, gets an answer each time.
		const pace = spreadTime / 20
		for {
			time.Sleep(pace)
			resp := roundTrip(t, conn, r, request)
			_, _ = io.Copy(io.Discard, resp.Body)
			if resp.Close {
				break
			}
			if time.Since(began) > spreadTime+pace {
				t.Fatal("not told to leave within the spread")
			}
		}
		if got := <-done; got.err != nil || got.report.ForcedTotal() != 0 {
			t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
		}
	})
}

// TestIdleHTTP2Spread: idle HTTP/2 connections hear that there will be an end at moments all over the spread, each
// in the words that refuse no stream, and then which one was the last.
func TestIdleHTTP2Spread(t *testing.T) {
	spreadServer(t, func(t *testing.T, s *server, l *pipeListener) {
		var began time.Time
		moments := make([]time.Duration, spreadClients)
		lasts := make([][]uint32, spreadClients)
		var wg sync.WaitGroup
		for i := range moments {
			conn := l.dial()
			defer conn.Close()
			c := pipeHTTP2(t, conn)
			c.get(1, "/echo")
			c.header(1)
			wg.Go(func() {
				lasts[i], _ = c.goAways(func(seen int) {
					if seen == 1 {
						moments[i] = time.Since(began)
					}
				})
			})
		}
		time.Sleep(stillTime)
		synctest.Wait()
		began = time.Now()
		if got := <-s.drain(t.Context()); got.err != nil || got.report.ForcedTotal() != 0 {
			t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
		}
		wg.Wait()
		for i, last := range lasts {
			if diff := cmp.Diff([]uint32{maxStream, 1}, last); diff != "" {
				t.Errorf("client %d: GOAWAY (-want +got):\n%s", i, diff)
			}
		}
		checkSpread(t, "told", moments)
	})
}

// pipeHTTP2 opens HTTP/2 on a pipe, which holds nothing: what either side writes waits for the other one to
// read, so that a pump has to read what the client is not asking for yet.
func pipeHTTP2(t *testing.T, conn net.Conn) *h2Client {
	t.Helper()
	return newH2Client(t, conn, pumped(conn))
}

// pumped returns a reader of all that comes from conn, which never keeps its peer waiting.
func pumped(conn net.Conn) io.Reader {
	q := &byteQueue{}
	q.more.L = &q.mu
	go func() {
		_, err := io.Copy(q, conn)
		q.end(err)
	}()
	return q
}

// byteQueue is a pipe without a bound.
type byteQueue struct {
	mu    sync.Mutex
	more  sync.Cond
	bytes []byte // guarded by mu
	err   error  // guarded by mu; what Read returns behind bytes
}

func (q *byteQueue) Write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes = append(q.bytes, p...)
	q.more.Broadcast()
	return len(p), nil
}

func (q *byteQueue) end(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err == nil {
		err = io.EOF
	}
	q.err = err
	q.more.Broadcast()
}

func (q *byteQueue) Read(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.bytes) == 0 && q.err == nil {
		q.more.Wait()
	}
	if len(q.bytes) == 0 {
		return 0, q.err
	}
	n := copy(p, q.bytes)
	q.bytes = q.bytes[n:]
	return n, nil
}
