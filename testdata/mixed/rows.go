package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/testdata/clients/record"
	"github.com/muxserve/muxserve/testdata/mixed/proxies"
)

// newClient opens a client of a server over TLS, or in plaintext where c is nil.
type newClient func(addr string, c *tls.Config) (*client, error)

// A way is how clients reach the backend's address.
type way struct {
	name string
	// open starts what stands between the clients and the backend's address.
	open func(ctx context.Context, addr, ca string, drains bool) (*front, error)
	// client opens one client at the front.
	client newClient
	// ops is how many of the ops its clients make.
	ops op
}

// front is what clients connect to.
type front struct {
	addr string
	ca   string        // The file of the certificate to trust; empty in plaintext.
	log  func() string // What the proxy has printed; nil where there is none.
	end  func()
}

// direct is a client without a proxy.
func direct(name string, c newClient, n op) way {
	return way{name: name, client: c, ops: n, open: func(_ context.Context, addr, ca string, _ bool) (*front, error) {
		return &front{addr: addr, ca: ca, end: func() {}}, nil
	}}
}

// through is a proxy of another program. The clients reach it in plaintext.
func through(k proxies.Kind) way {
	return way{name: k.String(), client: newPair, ops: ops, open: func(ctx context.Context, addr, ca string, _ bool) (*front, error) {
		p, err := proxies.Start(ctx, k, proxies.Backend{Addr: addr, CA: ca})
		if err != nil {
			return nil, err
		}
		return &front{addr: p.Addr, log: p.Log, end: p.Stop}, nil
	}}
}

// A replayer lets net/http send a request again that no server has taken up, also where
// some of its body is gone.
type replayer struct{ http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (r replayer) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body == nil {
		return r.RoundTripper.RoundTrip(req)
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	req.Body, _ = req.GetBody()
	return r.RoundTripper.RoundTrip(req)
}

// throughGo is net/http/httputil's proxy. Where servers leave, it keeps bodies to send them
// again.
var throughGo = way{name: "ReverseProxy", client: newPair, ops: ops, open: func(_ context.Context, addr, ca string, drains bool) (*front, error) {
	c, err := clientTLS(ca)
	if err != nil {
		return nil, err
	}
	target, err := url.Parse(baseURL(addr, c))
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	transport := newTransport(c)
	var replaying http.RoundTripper = transport
	if drains {
		replaying = replayer{transport}
	}
	server := &http.Server{Handler: reverseProxy(replaying, target), Protocols: new(http.Protocols)}
	server.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = server.Serve(l) }() // It ends with Close.
	return &front{addr: l.Addr().String(), end: func() {
		_ = server.Close()
		transport.CloseIdleConnections()
	}}, nil
}}

// row is one line of the table.
type row struct {
	way         way
	impl        implementation
	form        form
	connections int
	// drains is set where a second server takes over in the middle.
	drains bool
}

func rows() []row {
	var all []row
	add := func(w way, impl implementation, forms ...form) {
		for _, f := range forms {
			for _, n := range []int{1, 4} {
				for _, drains := range []bool{false, true} {
					all = append(all, row{way: w, impl: impl, form: f, connections: n, drains: drains})
				}
			}
		}
	}
	for _, w := range []way{
		direct("connect-go", newConnect, ops), through(proxies.HAProxy), through(proxies.HAProxyReuse), through(proxies.Nginx), throughGo,
	} {
		add(w, byConnect, plaintext, overTLS)
	}
	for _, impl := range []implementation{byConnect, byVanguard, byProxy} {
		add(direct("grpc-go", newGRPC, rpcs), impl, plaintext, overTLS, served)
	}
	return all
}

// String returns the row's beginning.
func (r row) String() string {
	drains := ""
	if r.drains {
		drains = ", a drain"
	}
	return fmt.Sprintf("%-26s %-13s %-10s %d%-9s", r.way.name, r.impl.name, r.form, r.connections, drains)
}

// setup is what all rows share.
type setup struct {
	dir       string // For files.
	cert, key string // Files.
	requests  int
	seed      uint64
}

const (
	// atOnce is how many requests a client has in flight.
	atOnce = 4
	// rowTimeout bounds a row; the slowest needs a fraction of it.
	rowTimeout = 3 * time.Minute
)

// run makes the row's requests and says what came of them.
func (r row) run(ctx context.Context, s setup) *result {
	ctx, cancel := context.WithTimeout(ctx, rowTimeout)
	defer cancel()
	res := &result{sent: s.requests}
	started := time.Now()
	defer func() { res.duration = time.Since(started) }()

	backends, err := r.start(s)
	if err != nil {
		res.fail(err)
		return res
	}
	balancer, err := record.Listen(backends[0].addr)
	if err != nil {
		res.fail(err)
		return res
	}
	ca := ""
	if r.form == overTLS {
		ca = s.cert
	}
	f, err := r.way.open(ctx, balancer.Addr(), ca, r.drains)
	if err != nil {
		res.fail(err)
	} else {
		r.ask(ctx, s, f, res, func() {
			balancer.MoveTo(backends[1].addr)
			if err := backends[0].drain(ctx); err != nil {
				res.fail(fmt.Errorf("the drain: %w", err))
			}
		})
		if f.log != nil {
			res.log = f.log()
		}
		f.end()
	}
	r.finish(ctx, backends, balancer, res)
	return res
}

// start starts the backend, and the second one where the first is to leave.
func (r row) start(s setup) ([]*backend, error) {
	n := 1
	if r.drains {
		n = 2
	}
	var backends []*backend
	for range n {
		b, err := startBackend(r.impl, r.form, s.cert, s.key)
		if err != nil {
			return nil, err
		}
		backends = append(backends, b)
	}
	return backends, nil
}

// finish ends the backends that still run and adds up what they have seen.
func (r row) finish(ctx context.Context, backends []*backend, balancer *record.Proxy, res *result) {
	for _, c := range balancer.Close() {
		res.connections++
		if c.GoAwayErrors > 0 {
			res.fail(errors.New("GOAWAY with an error"))
		}
	}
	if err := backends[len(backends)-1].drain(ctx); err != nil {
		res.fail(err)
	}
	for i, b := range backends {
		if b.logged.Load() == 0 {
			res.fail(fmt.Errorf("backend %d served nothing", i))
		}
		res.logged += int(b.logged.Load())
	}
}

// ask makes the requests in a random order, shared out among the clients. The first
// client begins with a call, the next ones with the other kinds. Where the row has a
// drain, that begins in the middle, and the last quarter waits for its end.
//
// grpc-go makes a call again that no server has taken up (RFC 9113, section 8.7), but
// once. A drain and then a refusal by the next server may take up two attempts.
func (r row) ask(ctx context.Context, s setup, f *front, res *result, drain func()) {
	clients, err := r.open(f)
	if err != nil {
		res.fail(err)
		return
	}
	todo := r.order(s)
	drained := make(chan struct{})
	var next atomic.Int64
	do := func(c *client) bool {
		i := int(next.Add(1)) - 1
		if i >= len(todo) || ctx.Err() != nil {
			return false
		}
		if r.drains && i == len(todo)/2 {
			go func() {
				defer close(drained)
				drain()
			}()
		}
		if r.drains && i >= len(todo)*3/4 {
			<-drained
		}
		by, err := c.do(ctx, todo[i], i)
		if r.drains && unprocessed(err) {
			res.again.Add(1)
			by, err = c.do(ctx, todo[i], i)
		}
		res.count(todo[i], by, err)
		return true
	}
	// Before there is a connection, net/http opens one for each request.
	for _, c := range clients {
		do(c)
	}
	var wg sync.WaitGroup
	for _, c := range clients {
		for range atOnce {
			wg.Go(func() {
				for do(c) {
				}
			})
		}
	}
	wg.Wait()
	for _, c := range clients {
		c.close()
	}
	if n := res.again.Load(); n > int64(atOnce*len(clients)) {
		res.fail(fmt.Errorf("%d calls had to be made again, more than are in flight at a time", n))
	}
}

// order returns what is to be done.
func (r row) order(s setup) []op {
	todo := make([]op, s.requests)
	for i := range todo {
		todo[i] = op(i) % r.way.ops
	}
	rest := todo[min(r.connections, len(todo)):]
	rand.New(rand.NewPCG(s.seed, 0)).Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	return todo
}

// open opens the row's clients.
func (r row) open(f *front) ([]*client, error) {
	c, err := clientTLS(f.ca)
	if err != nil {
		return nil, err
	}
	var clients []*client
	for range r.connections {
		one, err := r.way.client(f.addr, c)
		if err != nil {
			return nil, err
		}
		clients = append(clients, one)
	}
	return clients, nil
}
