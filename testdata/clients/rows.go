package main

import (
	"context"
	"time"

	"github.com/muxserve/muxserve/testdata/clients/record"
)

// load is how many connections a client opens, and how many requests it makes
// on each of them.
type load struct{ connections, each int }

func (l load) requests() int { return l.connections * l.each }

// target is what a client is sent to.
type target struct {
	addr string // host:port, on 127.0.0.1
	ca   string // The file of the certificate to trust; empty in plaintext.
	// transport is which of the gRPC servers must answer: native or shared.
	transport string
	pause     time.Duration // How long a connection is open before its first request.
	load      load
}

// url returns the URL of /echo.
func (t target) url() string {
	if t.ca != "" {
		return "https://" + t.addr + "/echo"
	}
	return "http://" + t.addr + "/echo"
}

// A client makes the requests of t.load and returns how many were answered as
// they should be. The error says why some were not.
type client func(ctx context.Context, t target) (answered int, err error)

// row is one line of the table.
type row struct {
	client, form string
	server       serverName
	pause        time.Duration
	ask          client
	load         load // What the client asks for, where it is not what all do.
	// connections is set where connections are counted in place of requests.
	connections bool
	// partial is set where the client's HTTP/2 is not meant to get anywhere.
	partial bool
}

// shortPause is how long clients wait that wait before their first request. Plain cmux
// loses them, since it answers SETTINGS late or twice.
const shortPause = time.Second

// rows returns the whole table; late is the pause of the eager clients.
func rows(late time.Duration) []row {
	var all []row
	for _, s := range []serverName{plaintext, overTLS} {
		all = append(all, httpRows(s)...)
		all = append(all, grpcRows(s)...)
		all = append(all, postRows(s)...)
	}
	all = append(all, grpcRows(sharedTransport)...)
	return append(all, openingRows(late)...)
}

func httpRows(s serverName) []row {
	h2 := "--http2"
	undici := "h2"
	if s == plaintext {
		h2, undici = "--http2-prior-knowledge", "h2c"
	}
	return []row{
		{client: "curl", form: "HTTP/1.1", server: s, ask: curl("--http1.1", "1.1")},
		{client: "curl", form: "HTTP/2", server: s, ask: curl(h2, "2")},
		{client: "nghttp", form: "HTTP/2", server: s, ask: nghttp},
		{client: "h2load", form: "HTTP/1.1", server: s, ask: h2load("--h1")},
		{client: "h2load", form: "HTTP/2", server: s, ask: h2load("-m", "1")},
		{client: "h2load", form: "HTTP/2, 10 at once", server: s, ask: h2load("-m", "10")},
		{client: "node http2", form: "HTTP/2", server: s, ask: node("http2.mjs", "")},
		{client: "node http2", form: "HTTP/2, a pause of 1 s", server: s, pause: shortPause, ask: node("http2.mjs", "")},
		{client: "undici", form: "HTTP/1.1", server: s, ask: node("undici.mjs", "http1")},
		{client: "undici", form: "HTTP/2", server: s, ask: node("undici.mjs", undici)},
	}
}

func grpcRows(s serverName) []row {
	return []row{
		{client: "grpc-go", form: "gRPC", server: s, ask: grpcGo},
		{client: "grpc-go", form: "gRPC, a pause of 1 s", server: s, pause: shortPause, ask: grpcGo},
		{client: "grpc-js", form: "gRPC", server: s, ask: node("grpc.mjs", "")},
		{client: "grpc-js", form: "gRPC, a pause of 1 s", server: s, pause: shortPause, ask: node("grpc.mjs", "")},
		{client: "C-core", form: "gRPC", server: s, ask: python("ccore.py")},
		{client: "C-core", form: "gRPC, a pause of 1 s", server: s, pause: shortPause, ask: python("ccore.py")},
	}
}

// openingRows are the odd ways to open a connection.
func openingRows(late time.Duration) []row {
	lateForm := "gRPC, first call " + late.String() + " after Connect"
	return []row{
		{client: "framer", form: "HTTP/2", server: plaintext, ask: framer{}.ask},
		{client: "framer", form: "HTTP/2, PINGs first", server: plaintext, ask: framer{pings: 5}.ask},
		{client: "framer", form: "HTTP/2, a pause of 1 s", server: plaintext, pause: shortPause, ask: framer{}.ask},
		{client: "framer", form: "HTTP/2, PINGs and a pause", server: plaintext, pause: shortPause, ask: framer{pings: 5}.ask},
		{client: "framer", form: "HTTP/2, all at once", server: plaintext, ask: framer{eager: true}.ask},
		{client: "framer", form: "HTTP/2, byte by byte", server: plaintext, ask: framer{piece: 1}.ask},
		{client: "framer", form: "half a preface: closed in 3 s", server: plaintext, ask: halfPreface, connections: true, partial: true},
		{client: "grpc-go", form: lateForm, server: plaintext, pause: late, ask: grpcGo},
		{client: "grpc-go", form: lateForm, server: overTLS, pause: late, ask: grpcGo},
	}
}

// rowTimeout bounds a row beyond its pause; the slowest need a fraction of it.
const rowTimeout = 3 * time.Minute

// run lets the client ask, through a recording proxy where there is something to see.
func (r row) run(ctx context.Context, s *servers, l load) result {
	ctx, cancel := context.WithTimeout(ctx, rowTimeout+r.pause)
	defer cancel()
	if r.load != (load{}) {
		l = r.load
	}
	result := result{row: r, sent: l.requests()}
	if r.connections {
		result.sent = l.connections
	}
	t := s.target(r.server)
	t.pause, t.load = r.pause, l
	var proxy *record.Proxy
	if t.ca == "" {
		if proxy, result.err = record.Listen(t.addr); result.err != nil {
			return result
		}
		t.addr = proxy.Addr()
	}
	started := time.Now()
	result.answered, result.err = r.ask(ctx, t)
	result.duration = time.Since(started)
	if proxy != nil {
		result.seen = proxy.Close()
	}
	return result
}
