package mux_test

import (
	"bufio"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/muxserve/muxserve/mux"
)

// TestProbesAboveTheLimits: a full server is alive and ready. A probe's connection serves
// nothing else, and is not counted as refused.
func TestProbesAboveTheLimits(t *testing.T) {
	for name, option := range map[string]mux.Option{
		"total":   limits(func(c *mux.Config) { c.Limits.MaxConnections = 1 }),
		"http1":   limits(func(c *mux.Config) { c.HTTP1.MaxConnections = 1 }),
		"address": limits(func(c *mux.Config) { c.Limits.PerAddress = 1 }),
	} {
		t.Run(name, func(t *testing.T) {
			bothForms(t, func(t *testing.T, s *server) {
				s.busy(t)
				for _, request := range []string{"GET /livez", "GET /readyz", "GET /livez?verbose=1"} {
					conn := s.dial(t)
					resp := roundTrip(t, conn, bufio.NewReader(conn), request+" HTTP/1.1\r\nHost: x\r\n\r\n")
					if resp.StatusCode != http.StatusOK || !resp.Close {
						t.Errorf("%q: %s, closed %v", request, resp.Status, resp.Close)
					}
				}
				// No more of them than are open at a time are bounded, so their places come back.
				for range 100 {
					if got := s.status(t, "/livez"); got != http.StatusOK {
						t.Fatalf("a probe after others: %d", got)
					}
				}
				for tag, reasons := range s.Stats().Rejected {
					t.Errorf("rejected in %s: %v", tag, reasons)
				}
				eventually(t, "the probes' connections are gone", func() bool { return s.active("http1") == 1 })
				for _, request := range []string{"GET /echo", "POST /livez", "GET /livez/more", "GET /"} {
					conn := s.dial(t)
					resp := roundTrip(t, conn, bufio.NewReader(conn), request+" HTTP/1.1\r\nHost: x\r\n\r\n")
					if resp.StatusCode != http.StatusServiceUnavailable {
						t.Errorf("%q: %s, want a refusal", request, resp.Status)
					}
				}
			}, option)
		})
	}
}

// TestProbesAboveTheLimitByHTTP2: the connection is refused, and a probe on it is answered.
func TestProbesAboveTheLimitByHTTP2(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		s.busy(t)
		for path, want := range map[string]int{"/livez": http.StatusOK, "/readyz": http.StatusOK, "/echo": http.StatusServiceUnavailable} {
			resp, err := s.client(t, 2).Get(s.scheme() + "://" + s.addr + path)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s: %s, want %d", path, resp.Status, want)
			}
		}
	}, limits(func(c *mux.Config) { c.Limits.MaxConnections = 1 }))
}

// TestProbesBesideRefusals: as many clients as are refused politely at a time do not keep a
// probe out. Their connections are open until their second is over.
func TestProbesBesideRefusals(t *testing.T) {
	s := start(t, false, limits(func(c *mux.Config) { c.Limits.MaxConnections = 1 }))
	s.busy(t)
	for range 300 {
		send(t, s.dial(t), "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	if got := s.status(t, "/livez"); got != http.StatusOK {
		t.Errorf("status %d", got)
	}
}

// TestProbesBesideSilence: clients above the limit that say nothing do not keep a probe out,
// however many they are. Others are answered beside as many as are kept.
func TestProbesBesideSilence(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		s.busy(t)
		silent := func(n int) {
			for range n {
				conn, err := net.Dial("tcp", s.addr)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
			}
		}
		silent(400)
		for range 10 {
			if got := s.status(t, "/echo"); got != http.StatusServiceUnavailable {
				t.Fatalf("status %d beside those that are kept until they are refused", got)
			}
		}
		silent(120)
		for range 10 {
			if got := s.status(t, "/livez"); got != http.StatusOK {
				t.Fatalf("status %d", got)
			}
			silent(10)
		}
	}, limits(func(c *mux.Config) {
		c.Limits.MaxConnections, c.Sniff.Timeout, c.Sniff.TLSTimeout = 1, time.Minute, time.Minute
	}))
}

// TestProbesBesideTrickles: the same beside connections that have sent the first byte, and no
// more, for longer than a client takes that sends its request at once.
func TestProbesBesideTrickles(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		s.busy(t)
		first := "G"
		if s.roots != nil {
			first = "\x16" // The first byte of a TLS handshake.
		}
		for range 520 {
			conn, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			send(t, conn, first)
		}
		time.Sleep(300 * time.Millisecond) // What is under test is time.
		for range 10 {
			if got := s.status(t, "/livez"); got != http.StatusOK {
				t.Fatalf("status %d", got)
			}
		}
	}, limits(func(c *mux.Config) {
		c.Limits.MaxConnections, c.Sniff.Timeout, c.Sniff.TLSTimeout = 1, time.Minute, time.Minute
	}))
}

// TestProbesBesideProbes: a client whose probes are not done, because it does not take the
// answers, keeps no other client's out.
func TestProbesBesideProbes(t *testing.T) {
	m := mux.New(mux.WithLogger(discard), mux.WithHandler(routes()), mux.Configure(noDelay), mux.Configure(func(c *mux.Config) {
		c.Limits.MaxConnections = 1
	}))
	m.SetProbeTime(time.Minute)
	l := newPipeListener() // It holds no byte of an answer.
	serveToEnd(t, m, func() error { return m.Serve(l) })
	pipeBusy(t, l)
	ask := func(address byte) net.Conn {
		client, server := net.Pipe()
		t.Cleanup(func() { _ = client.Close() })
		l.conns <- addressedConn{server, &net.TCPAddr{IP: net.IPv4(192, 0, 2, address), Port: 1}}
		send(t, client, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
		return client
	}
	for range 300 {
		ask(1)
	}
	for address := range byte(5) {
		resp, err := http.ReadResponse(bufio.NewReader(ask(2+address)), nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%v, %v", resp, err)
		}
	}
}

// addressedConn has an address of its own.
type addressedConn struct {
	net.Conn
	address net.Addr
}

func (c addressedConn) RemoteAddr() net.Addr { return c.address }

// TestPiecesOfProbes: requests that are not complete take no places of probes.
func TestPiecesOfProbes(t *testing.T) {
	for name, request := range map[string]string{
		"head":   "GET /livez HTTP/1.1\r\nHost: x\r\n",
		"body":   "GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
		"chunks": "GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, false, limits(func(c *mux.Config) { c.HTTP1.MaxConnections = 1 }))
			s.busy(t)
			for range 100 {
				send(t, s.dial(t), request)
				if got := s.status(t, "/livez"); got != http.StatusOK {
					t.Fatalf("a probe beside them: %d", got)
				}
			}
		})
	}
}

// TestProbesOfTheHandler: where the handler has these paths, the limits hold for them.
func TestProbesOfTheHandler(t *testing.T) {
	s := start(t, false, limits(func(c *mux.Config) { c.HTTP1.MaxConnections = 1 }), mux.WithoutHealthPaths())
	s.busy(t)
	conn := s.dial(t)
	resp := roundTrip(t, conn, bufio.NewReader(conn), "GET /livez HTTP/1.1\r\nHost: "+strings.Repeat("x", 9)+"\r\n\r\n")
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status %s", resp.Status)
	}
}
