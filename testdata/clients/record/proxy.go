// Package record is a TCP proxy between a client and a server, which counts the
// frames by which an HTTP/2 connection is opened or broken off.
package record

import (
	"fmt"
	"io"
	"net"
	"slices"
	"sync"

	"golang.org/x/net/http2"
)

// Counts is what was seen on one connection. All but HTTP2 is 0 where the
// client did not begin with the HTTP/2 preface.
type Counts struct {
	HTTP2          bool
	Eager          bool // The client's first HEADERS came with its preface.
	Requests       int  // HEADERS frames of the client; trailers count as well.
	ClientSettings int  // SETTINGS frames of the client, without acknowledgements.
	Settings       int  // SETTINGS frames of the server, without acknowledgements.
	Acks           int  // Acknowledgements of SETTINGS by the server.
	GoAwayErrors   int  // GOAWAY frames of the server with an error.
	// Opening is what the client sent up to the end of its first header block; nil
	// where that did not come.
	Opening []byte
}

// A Proxy passes connections on to a server. Close must be called.
type Proxy struct {
	listener net.Listener
	wg       sync.WaitGroup

	mu     sync.Mutex // guards all below
	target string
	closed bool
	open   map[net.Conn]struct{}
	counts []Counts
}

// Listen starts a proxy on a free port of 127.0.0.1 that passes on to target, a host:port.
func Listen(target string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	p := &Proxy{listener: l, target: target, open: make(map[net.Conn]struct{})}
	p.wg.Go(p.accept)
	return p, nil
}

// Addr returns the proxy's host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// MoveTo passes later connections on to another server, as a load balancer does
// when the first one leaves.
func (p *Proxy) MoveTo(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Close cuts what is still open, waits for the end of it, and returns what was
// seen on each connection. Later calls return the same.
func (p *Proxy) Close() []Counts {
	_ = p.listener.Close()
	p.mu.Lock()
	p.closed = true
	for c := range p.open {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.counts)
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(client) })
	}
}

// serve passes one connection on until both directions are over.
func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	if !p.enter(client, server) {
		return
	}
	var up upstream
	var down frames
	var wg sync.WaitGroup
	wg.Go(func() { pass(server, client, &up) })
	wg.Go(func() { pass(client, server, &down) })
	wg.Wait()

	counts := Counts{HTTP2: up.isHTTP2()}
	if counts.HTTP2 {
		counts.Eager = up.eager
		counts.Requests, counts.ClientSettings = up.frames.headers, up.frames.settings
		counts.Settings, counts.Acks, counts.GoAwayErrors = down.settings, down.acks, down.goAwayErrors
		if up.opening.whole {
			counts.Opening = up.opening.bytes
		}
	}
	p.leave(counts, client, server)
}

// enter notes the connections that Close has to cut. It reports false after Close.
func (p *Proxy) enter(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.open[c] = struct{}{}
	}
	return !p.closed
}

func (p *Proxy) leave(counts Counts, conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.open, c)
	}
	p.counts = append(p.counts, counts)
}

// pass copies one direction, and its end. A direction that breaks takes the
// other one with it, as it would without a proxy.
func pass(dst, src net.Conn, seen io.Writer) {
	if _, err := io.Copy(dst, io.TeeReader(src, seen)); err != nil {
		_ = src.Close()
		_ = dst.Close()
		return
	}
	if tc, ok := dst.(*net.TCPConn); ok {
		_ = tc.CloseWrite()
	}
}

// upstream is what a client sends: the preface and then frames, or something
// else altogether.
type upstream struct {
	preface []byte // What there is of the preface's bytes.
	frames  frames
	opening opening
	pieces  int  // How many pieces there were.
	eager   bool // HEADERS came in the first.
}

// Write implements [io.Writer]; it never fails.
func (u *upstream) Write(p []byte) (int, error) {
	n := len(p)
	_, _ = u.opening.Write(p)
	k := min(len(p), len(http2.ClientPreface)-len(u.preface))
	u.preface = append(u.preface, p[:k]...)
	if u.isHTTP2() {
		_, _ = u.frames.Write(p[k:])
	}
	if u.pieces++; u.pieces == 1 {
		u.eager = u.frames.headers > 0
	}
	return n, nil
}

func (u *upstream) isHTTP2() bool { return string(u.preface) == http2.ClientPreface }
