package mux_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// crowd is a set of clients of every kind, good and bad. Each of them may die at any
// moment.
type crowd struct {
	seed           uint64
	plain, proxied string // the addresses of the listeners
	roots          *x509.CertPool
	call           string // the bytes of a gRPC connection with one call
}

// crowdClients is the number of addresses from which the crowd comes, directly and
// through the balancer.
const crowdClients = 6

// visitTime is how long the most patient client stays.
const visitTime = time.Second

// clients returns all these addresses.
func (*crowd) clients() (all []net.Addr) {
	for i := range crowdClients {
		all = append(all, directClient(i), proxiedClient(i))
	}
	return all
}

func directClient(i int) *net.TCPAddr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+i))} }

func proxiedClient(i int) *net.TCPAddr {
	return &net.TCPAddr{IP: net.IPv4(192, 0, 2, byte(1+i)), Port: 4711}
}

// visitor is one client.
type visitor struct {
	net.Conn

	tcp *net.TCPConn
	rng *rand.Rand
}

// chance is true with the probability p.
func (v *visitor) chance(p float64) bool { return v.rng.Float64() < p }

// say writes s, or a part of it, and reports whether the visitor is still alive.
func (v *visitor) say(s string) bool {
	if v.chance(0.1) {
		s = s[:v.rng.IntN(len(s)+1)]
		_, _ = io.WriteString(v, s)
		return false
	}
	_, err := io.WriteString(v, s)
	return err == nil && v.chance(0.95)
}

// leave closes the connection, in order or with a reset.
func (v *visitor) leave() {
	if v.chance(0.4) {
		_ = v.tcp.SetLinger(0)
		_ = v.tcp.Close()
		return
	}
	_ = v.Close()
}

// visit is what client i does.
func (c *crowd) visit(t *testing.T, i int) {
	t.Helper()
	v := &visitor{rng: rand.New(rand.NewPCG(c.seed, uint64(i)))}
	addr, header := c.plain, ""
	if v.chance(0.25) {
		addr, header = c.proxied, v.header(t)
	}
	dialer := net.Dialer{LocalAddr: directClient(v.rng.IntN(crowdClients)), Timeout: time.Second}
	conn, err := dialer.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		return // The server has stopped.
	}
	v.Conn, v.tcp = conn, conn.(*net.TCPConn)
	defer v.leave()
	_ = v.SetDeadline(time.Now().Add(visitTime))
	if header != "" && !v.say(header) {
		return
	}
	if v.chance(0.2) {
		secure := tls.Client(conn, &tls.Config{RootCAs: c.roots, ServerName: "127.0.0.1"})
		if secure.HandshakeContext(t.Context()) != nil || v.chance(0.1) {
			return
		}
		v.Conn = secure
	}
	kinds := []func(*crowd, *visitor){
		(*crowd).http1, (*crowd).http1, (*crowd).http2, (*crowd).grpc, (*crowd).webSocket, (*crowd).upgradeH2C, (*crowd).bad,
	}
	kinds[v.rng.IntN(len(kinds))](c, v)
}

// header returns a PROXY header, most often a good one.
func (v *visitor) header(t *testing.T) string {
	t.Helper()
	switch v.rng.IntN(6) {
	case 0:
		return "PROXY TCP4 me you 1 2\r\n"
	case 1:
		return "GET / HTTP/1.1\r\n\r\n"
	default:
		return proxyHeader(t, byte(1+v.rng.IntN(2)), proxiedClient(v.rng.IntN(crowdClients)).String())
	}
}

// http1 makes a few requests, and may stay idle after that.
func (*crowd) http1(v *visitor) {
	r := bufio.NewReader(v)
	for range 1 + v.rng.IntN(4) {
		path := []string{"/echo", "/echo", "/echo", "/slow"}[v.rng.IntN(4)]
		if !v.say("GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n") || v.chance(0.1) || !readResponse(r) {
			return
		}
	}
	if v.chance(0.3) {
		v.idle()
	}
}

// idle waits until the server closes the connection, or for a moment.
func (v *visitor) idle() {
	_ = v.SetReadDeadline(time.Now().Add(time.Duration(v.rng.IntN(200)) * time.Millisecond))
	_, _ = v.Read(make([]byte, 1))
}

// readResponse reads one response and reports whether there may be a next one.
func readResponse(r *bufio.Reader) bool {
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && !resp.Close
}

// http2 makes a few requests on a connection.
func (*crowd) http2(v *visitor) {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	conns := make(chan net.Conn, 1)
	conns <- v
	tr := &http.Transport{Protocols: p, DialContext: func(context.Context, string, string) (net.Conn, error) {
		select {
		case conn := <-conns:
			return conn, nil
		default:
			return nil, errors.New("there was only one connection")
		}
	}}
	defer tr.CloseIdleConnections()
	for range 1 + v.rng.IntN(4) {
		path := []string{"/echo", "/echo", "/echo", "/slow"}[v.rng.IntN(4)]
		if v.chance(0.1) {
			death := time.AfterFunc(time.Duration(v.rng.IntN(20))*time.Millisecond, func() { _ = v.Close() })
			defer death.Stop()
		}
		resp, err := (&http.Client{Transport: tr}).Get("http://x" + path)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
}

// grpc makes a call.
func (c *crowd) grpc(v *visitor) {
	if v.say(c.call) {
		_ = answered(v)
	}
}

// webSocket opens a WebSocket, often on a connection that has had a request before.
func (*crowd) webSocket(v *visitor) {
	r := bufio.NewReader(v)
	if v.chance(0.5) && (!v.say("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n") || !readResponse(r)) {
		return
	}
	if !v.say("GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n") {
		return
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		return
	}
	// A text of two bytes and a close frame, both masked with zeros (RFC 6455 section
	// 5.3).
	if v.say("\x81\x82\x00\x00\x00\x00hi") && v.chance(0.5) && v.say("\x88\x82\x00\x00\x00\x00\x03\xe8") {
		_, _ = io.Copy(io.Discard, r)
		return
	}
	v.idle()
}

// upgradeH2C asks for HTTP/2 on a connection that begins as HTTP/1.1.
func (*crowd) upgradeH2C(v *visitor) {
	if v.say("GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n\r\n") &&
		v.say(undecided) {
		v.idle()
	}
}

// bad says nothing, too little or nonsense.
func (*crowd) bad(v *visitor) {
	switch v.rng.IntN(4) {
	case 0: // A probe.
	case 1:
		v.say(http2.ClientPreface[:1+v.rng.IntN(len(http2.ClientPreface))])
	case 2:
		v.say("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03") // The beginning of a ClientHello.
	default:
		v.say(fmt.Sprintf("\x00\xff%d\r\n\r\n", v.rng.Uint64()))
	}
	if v.chance(0.5) {
		v.idle()
	}
}
