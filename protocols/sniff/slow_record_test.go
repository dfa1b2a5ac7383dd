package sniff

import (
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/internal/wiretest"
)

// countedConn counts what it has received.
type countedConn struct {
	net.Conn
	received atomic.Uint64
}

func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.received.Add(uint64(n))
	return n, err
}

func (c *countedConn) Received() uint64 { return c.received.Load() }

// slowConn sends a byte a second, from half a second on, and at most so many.
type slowConn struct {
	net.Conn
	slow bool
	most int
}

func (c *slowConn) Write(p []byte) (int, error) {
	if !c.slow {
		return c.Conn.Write(p)
	}
	time.Sleep(500 * time.Millisecond)
	for _, b := range p[:min(c.most, len(p))] {
		if _, err := c.Conn.Write([]byte{b}); err != nil {
			return 0, err
		}
		time.Sleep(time.Second)
	}
	return len(p), nil
}

// TestSlowRecord: the bytes of a TLS record keep a head alive before the record is whole.
func TestSlowRecord(t *testing.T) {
	line := []byte("GET /" + strings.Repeat("a", 64) + " HTTP/1.1\r\n")
	certificate := wiretest.Certificate(t)
	const never = 0
	for name, test := range map[string]struct {
		before, slow []byte
		most         int
		whole        time.Duration
		uncounted    bool
		want         Verdict
		took         time.Duration // of a failure
	}{
		"HTTP/1.1":          {nil, line, 1000, 10 * time.Minute, false, Verdict{Protocol: protocols.HTTP1, Reason: reasonRequestLine}, never},
		"rest of a line":    {line[:20], line[20:], 1000, 10 * time.Minute, false, Verdict{Protocol: protocols.HTTP1, Reason: reasonRequestLine}, never},
		"HTTP/2":            {nil, slices.Concat(opening(), firstRequest()), 1000, 10 * time.Minute, false, Verdict{Protocol: protocols.HTTP2, Reason: reasonSharedCall}, never},
		"SETTINGS":          {opening()[:24], slices.Concat(opening()[24:], firstRequest()), 1000, 10 * time.Minute, false, Verdict{Protocol: protocols.HTTP2, Reason: reasonSharedCall}, never},
		"rest of HEADERS":   {slices.Concat(opening(), firstRequest()[:20]), firstRequest()[20:], 1000, 10 * time.Minute, false, Verdict{Protocol: protocols.HTTP2, Reason: reasonSharedCall}, never},
		"silent":            {nil, line, 0, 10 * time.Minute, false, failed(FailureSilent, reasonNothing), defaultTimeout},
		"stops":             {nil, line, 20, 10 * time.Minute, false, failed(FailureSilent, reasonNothing), 24 * time.Second},
		"bounded":           {nil, line, 1000, 10 * time.Second, false, failed(FailureSilent, reasonNothing), 10 * time.Second},
		"HEADERS, stops":    {slices.Concat(opening(), firstRequest()[:20]), firstRequest()[20:], 20, 10 * time.Minute, false, failed(FailureTimeout, reasonSlowFrame), 24 * time.Second},
		"HEADERS, bounded":  {slices.Concat(opening(), firstRequest()[:20]), firstRequest()[20:], 1000, 10 * time.Second, false, failed(FailureTimeout, reasonSlowFrame), 10 * time.Second},
		"no count of bytes": {nil, line, 1000, 10 * time.Minute, true, failed(FailureSilent, reasonNothing), defaultTimeout},
	} {
		for _, silence := range []time.Duration{0, 2 * time.Minute} {
			if silence > 0 && test.uncounted {
				continue // The record is whole in time.
			}
			t.Run(fmt.Sprint(name, ", silence ", silence), func(t *testing.T) {
				switch {
				case silence > 0 && test.took == defaultTimeout:
					test.took = silence // Nothing was heard.
				case silence > 0 && test.took == test.whole && len(test.before) == 0:
					test.took += defaultTimeout // It was heard so much later.
				}
				synctest.Test(t, func(t *testing.T) {
					near, far := net.Pipe()
					var client sync.WaitGroup
					defer func() {
						near.Close()
						client.Wait()
					}()
					var below net.Conn = &countedConn{Conn: far}
					if test.uncounted {
						below = far
					}
					slow := &slowConn{Conn: near, most: test.most}
					socket := tls.Client(slow, &tls.Config{InsecureSkipVerify: true})
					server := tls.Server(below, &tls.Config{Certificates: []tls.Certificate{certificate}, SessionTicketsDisabled: true})
					shaken := make(chan error, 1)
					go func() { shaken <- socket.Handshake() }()
					if err := server.Handshake(); err != nil {
						t.Fatal(err)
					}
					if err := <-shaken; err != nil {
						t.Fatal(err)
					}
					client.Go(func() {
						for b := make([]byte, 1000); ; { // What the sniffer answers.
							if _, err := socket.Read(b); err != nil {
								return
							}
						}
					})
					client.Go(func() {
						_, _ = socket.Write(test.before)
						slow.slow = true
						_, _ = socket.Write(test.slow)
					})
					config := testConfig()
					config.HeadTimeout, config.SilentTimeout = test.whole, silence
					began := time.Now()
					v := newConn(server).Sniff(config)
					took := time.Since(began)
					if got := (Verdict{Protocol: v.Protocol, Reason: v.Reason, Failure: v.Failure}); got != test.want {
						t.Errorf("after %v: %+v, want %+v", v.Duration, got, test.want)
					}
					if test.took != never && took != test.took {
						t.Errorf("took %v, want %v", took, test.took)
					}
				})
			})
		}
	}
}
