package mux_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/muxserve/muxserve/mux"
)

// keptConn keeps what is written to it, once it holds.
type keptConn struct {
	net.Conn
	holds bool
	held  bytes.Buffer
}

func (c *keptConn) Write(p []byte) (int, error) {
	if c.holds {
		return c.held.Write(p)
	}
	return c.Conn.Write(p)
}

// received returns how many bytes the server has read from conn.
func (s *server) received(conn net.Conn) uint64 {
	for _, info := range s.Connections() {
		if info.RemoteAddr == conn.LocalAddr().String() {
			return info.BytesReceived
		}
	}
	return 0
}

// TestDrainServesHalfRecord: a request that has come in part counts as begun when the drain begins, under TLS too, where a
// part of a record is nothing that could be read yet.
func TestDrainServesHalfRecord(t *testing.T) {
	s := start(t, true, mux.Configure(patient))
	raw, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(20 * time.Second))
	kept := &keptConn{Conn: raw}
	conn := tls.Client(kept, &tls.Config{RootCAs: s.roots, ServerName: "127.0.0.1"})
	request := "GET /echo HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("a", 1000) + "\r\n\r\n"
	r := bufio.NewReader(conn)
	_ = roundTrip(t, conn, r, request).Body.Close()
	var others []net.Conn
	for range 8 {
		other := s.dial(t)
		_ = roundTrip(t, other, bufio.NewReader(other), request).Body.Close()
		others = append(others, other)
	}
	eventually(t, "all connections to be idle", func() bool {
		for _, info := range s.Connections() {
			if info.State != "idle" {
				return false
			}
		}
		return true
	})

	before := s.received(raw)
	kept.holds = true
	send(t, conn, request)
	record := kept.held.Bytes()
	half := record[:len(record)/2]
	send(t, raw, string(half))
	eventually(t, "the half to be there", func() bool { return s.received(raw) == before+uint64(len(half)) })
	drained := make(chan error, 1)
	go func() { drained <- s.Shutdown(context.Background()) }()
	for _, other := range others { // All are told at about the same time.
		_, _ = io.Copy(io.Discard, other)
	}
	send(t, raw, string(record[len(half):]))
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("the request is lost: %v", err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK || !resp.Close {
		t.Errorf("%s, last of its connection %v; want 200 and the last", resp.Status, resp.Close)
	}
	_ = raw.Close()
	if err := within(t, "Shutdown", drained); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// TestReloadMeetsClose: servers that a reload has just made when Close comes are closed as well: Serve returns, and nobody
// is left.
func TestReloadMeetsClose(t *testing.T) {
	before := goleak.IgnoreCurrent()
	for round := range 60 {
		s := serveOn(t, mux.New(mux.Configure(noDelay), mux.WithHandler(routes()), mux.WithLogger(discard)), listen(t))
		reload := func(headerBytes int) error {
			c := s.Config()
			c.HTTP1.MaxHeaderBytes = headerBytes
			_, err := s.Reload(c, "test")
			return err
		}
		eventually(t, "the server to be ready", func() bool { return reload(5000) == nil })
		reloaded := make(chan error, 1)
		go func() { reloaded <- reload(6000) }()
		time.Sleep(time.Duration(round%20) * 100 * time.Microsecond) // Close comes at another moment each time.
		if err := s.Close(); err != nil {
			t.Errorf("round %d: Close: %v", round, err)
		}
		_ = within(t, "Reload", reloaded) // It may have been late.
		if err := within(t, "Serve", s.served); err == nil {
			t.Errorf("round %d: Serve returned nil", round)
		}
	}
	goleak.VerifyNone(t, before)
}

// manySilent is how many silent connections the tests open.
const manySilent = 400

// TestManySilentConnections: silent connections wait before they reach a server, and delay
// no other; when they speak they are served.
func TestManySilentConnections(t *testing.T) {
	const silent = manySilent
	s := start(t, false, mux.WithLogger(discard), mux.Configure(patient))
	conns := make([]net.Conn, silent)
	for i := range conns {
		conns[i] = s.dial(t)
	}
	eventually(t, "all connections to be there", func() bool { return s.Stats().Pools["sniffing"].Active == silent })
	for _, conn := range []net.Conn{s.dial(t), conns[0], conns[silent/2], conns[silent-1]} {
		resp := roundTrip(t, conn, bufio.NewReader(conn), "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
		_ = resp.Body.Close()
		if got := resp.Header.Get("X-Protocol"); got != "http1" {
			t.Errorf("served as %q", got)
		}
	}
}

// TestManySilentConnectionsEnd: all that are silent for too long are closed.
func TestManySilentConnectionsEnd(t *testing.T) {
	s := start(t, false, mux.WithLogger(discard), mux.Configure(func(c *mux.Config) { c.Sniff.Timeout = 100 * time.Millisecond }))
	var conns []net.Conn
	for range manySilent {
		conns = append(conns, s.dial(t))
	}
	for _, conn := range conns {
		if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Errorf("read %d bytes, %v; want the end", n, err)
		}
	}
	eventually(t, "nobody to be left", func() bool { return s.Stats().Health["total"].Active == 0 })
}
