package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// requests are clients that ask for /echo. Each has a transport of its own.
type requests struct {
	t          *tally
	transports []*http.Transport
	next       atomic.Uint64 // The number of requests that have been given to a transport.
}

var _ client = (*requests)(nil)

// requestForm is a way to speak HTTP.
type requestForm int

const (
	keepAlive requestForm = iota // HTTP/1.1, connections kept
	newEach                      // HTTP/1.1, a connection for each request
	h2c                          // HTTP/2 by prior knowledge
)

// newRequests returns n clients of a form.
func newRequests(t *tally, form requestForm, n int, address func() string) *requests {
	r := &requests{t: t}
	for range n {
		d := &dialer{t: t, address: address, http2: form == h2c}
		if form == h2c {
			d.onTold = func(*watchedConn) { t.goAway.Add(1) }
			d.onEnd = func(_ *watchedConn, told bool) {
				if !told {
					t.untold.Add(1)
					t.faultf("a connection ended without GOAWAY")
				}
			}
		}
		tr := &http.Transport{DialContext: d.dial, DisableKeepAlives: form == newEach, MaxIdleConnsPerHost: maxIdle}
		tr.Protocols = new(http.Protocols)
		tr.Protocols.SetHTTP1(form != h2c)
		tr.Protocols.SetUnencryptedHTTP2(form == h2c)
		r.transports = append(r.transports, tr)
	}
	return r
}

// maxIdle is how many idle connections a client keeps. It is more than it ever has,
// so that the server is the one who ends them.
const maxIdle = 100

// begin implements [client].
func (r *requests) begin(ctx context.Context, n uint64, done func()) {
	go func() {
		defer done()
		r.t.sent.Add(1)
		if err := r.ask(ctx, n); err != nil {
			r.t.failed.Add(1)
			r.t.faultf("request %d: %v", n, err)
			return
		}
		r.t.answered.Add(1)
	}()
}

// ask makes one request. That a transport makes a further attempt where the first was
// surely not processed is net/http's own rule: a GET on a connection that was
// used before and closed before it answered, or a stream above GOAWAY's last.
func (r *requests) ask(ctx context.Context, n uint64) error {
	ctx, cancel := context.WithTimeout(ctx, operationTime)
	defer cancel()
	var attempts atomic.Int64
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		if attempts.Add(1) > 1 {
			r.t.retried.Add(1)
		}
	}})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://muxserve.test/echo?sleep="+workTime(n).String(), nil)
	if err != nil {
		return err
	}
	resp, err := r.transports[r.next.Add(1)%uint64(len(r.transports))].RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var echo struct {
		Path string `json:"path"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&echo); err != nil {
		return fmt.Errorf("status %d: %w", resp.StatusCode, err)
	}
	if resp.StatusCode != http.StatusOK || echo.Path != "/echo" {
		return fmt.Errorf("status %d for path %q", resp.StatusCode, echo.Path)
	}
	return nil
}

// close implements [client].
func (r *requests) close() {
	for _, t := range r.transports {
		t.CloseIdleConnections()
	}
}

// workTime is how long the server works on operation n: mostly no time at all, so
// that the others find something under way at each moment of a drain.
func workTime(n uint64) time.Duration {
	const rarely, sometimes = 53, 11 // Primes, so that every kind of client gets its part.
	switch {
	case n%rarely == 0:
		return time.Second
	case n%sometimes == 0:
		return 100 * time.Millisecond
	default:
		return 0
	}
}
