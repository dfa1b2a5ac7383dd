package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptrace"
)

// requestForm is a way to speak HTTP.
type requestForm int

const (
	keepAlive requestForm = iota // HTTP/1.1, connections kept
	newEach                      // HTTP/1.1, a connection for each request
	h2c                          // HTTP/2 by prior knowledge
)

// requests is a client that asks for /echo.
type requests struct {
	dialer    *dialer
	transport *http.Transport
}

var _ client = (*requests)(nil)

func newRequests(d *dialer, form requestForm) *requests {
	r := &requests{dialer: d, transport: &http.Transport{DialContext: d.dial, DisableKeepAlives: form == newEach}}
	r.transport.Protocols = new(http.Protocols)
	r.transport.Protocols.SetHTTP1(form != h2c)
	r.transport.Protocols.SetUnencryptedHTTP2(form == h2c)
	return r
}

// someWork is what every tenth request asks the server to do, so that a change finds some under way.
const someWork = "50ms"

// operate implements [client]. That a transport makes a further attempt where the first was surely not processed is
// net/http's own rule: a GET on a connection that was used before and closed before it answered, or a stream above GOAWAY's last.
func (r *requests) operate(ctx context.Context, n int) error {
	const often = 10
	u := "http://muxserve.test/echo"
	if n%often == 0 {
		u += "?sleep=" + someWork
	}
	attempts := 0
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		if attempts++; attempts > 1 {
			r.dialer.t.retried.Add(1)
		}
	}})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return err
	}
	resp, err := r.transport.RoundTrip(req)
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
func (r *requests) close() { r.transport.CloseIdleConnections() }
