package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/soheilhy/cmux"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
)

// The names of the forms.
const (
	formDirect    = "direct"
	formAgain     = "direct-again"
	formOurs      = "ours"
	formCmux      = "plain-cmux"
	formServeHTTP = "serve-http"
	formHAProxy   = "haproxy"
)

// The ports of a form, each of which there is over TLS as well. Most forms serve several of them at one address.
const (
	portHTTP1     = "http1"
	portHTTP2     = "http2"
	portGRPC      = "grpc"
	portWebSocket = "websocket"
)

func allPorts() []string { return []string{portHTTP1, portHTTP2, portGRPC, portWebSocket} }

// overTLS returns the name of a port behind TLS.
func overTLS(port string) string { return port + "-tls" }

func allOverTLS() []string {
	ports := allPorts()
	for i := range ports {
		ports[i] = overTLS(ports[i])
	}
	return ports
}

// form is one way of serving the handlers.
type form struct {
	name  string
	start func(serverOptions) (*running, error)
}

// forms are all of them; the first is what the others are compared with.
func forms() []form {
	return []form{
		{formDirect, startDirect},
		{formAgain, startDirect},
		{formOurs, startOurs},
		{formCmux, startCmux},
		{formServeHTTP, startServeHTTP},
		{formHAProxy, startHAProxy},
	}
}

func findForm(name string) (form, bool) {
	for _, f := range forms() {
		if f.name == name {
			return f, true
		}
	}
	return form{}, false
}

// isInstalled reports whether the form can run here.
func (f form) isInstalled() bool {
	if f.name != formHAProxy {
		return true
	}
	_, err := exec.LookPath(formHAProxy)
	return err == nil
}

// The timeouts of every http.Server here are those of the mux, so that the
// deadlines which a server on the internet needs are in every form's figures.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 120 * time.Second
)

func httpServer(h http.Handler, set ...func(*http.Protocols, bool)) *http.Server {
	protocols := new(http.Protocols)
	for _, on := range set {
		on(protocols, true)
	}
	return &http.Server{Handler: h, Protocols: protocols, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout}
}

func grpcServer(options ...grpc.ServerOption) *grpc.Server {
	s := grpc.NewServer(options...)
	demov1.RegisterEchoServer(s, echoService{})
	return s
}

// newRunning returns a form without ports.
func newRunning(o serverOptions) *running {
	return &running{addresses: make(map[string]string), handlers: newHandlers(o.dir)}
}

// listen opens a socket for ports, and has it served and closed in the end.
func (r *running) listen(serve func(net.Listener) error, ports ...string) error {
	var config net.ListenConfig
	l, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	for _, port := range ports {
		r.addresses[port] = l.Addr().String()
	}
	r.closers = append(r.closers, func() { _ = l.Close() })
	go func() { _ = serve(l) }() // The end of a listener is the end of the process.
	return nil
}

// certificateFiles returns those that the generator has written.
func certificateFiles(dir string) (cert, key string) {
	return filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
}

// startDirect serves each protocol on a port of its own.
func startDirect(o serverOptions) (*running, error) {
	r := newRunning(o)
	routes := r.handlers.routes(acceptPlain)
	cert, key := certificateFiles(o.dir)
	creds, err := credentials.NewServerTLSFromFile(cert, key)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	http1 := func() *http.Server { return httpServer(routes, (*http.Protocols).SetHTTP1) }
	serveTLS := func(s *http.Server) func(net.Listener) error {
		return func(l net.Listener) error { return s.ServeTLS(l, cert, key) }
	}
	for _, port := range []struct {
		name  string
		serve func(net.Listener) error
	}{
		{portHTTP1, http1().Serve},
		{portHTTP2, httpServer(routes, (*http.Protocols).SetUnencryptedHTTP2).Serve},
		{portGRPC, grpcServer().Serve},
		{portWebSocket, http1().Serve},
		{overTLS(portHTTP1), serveTLS(http1())},
		{overTLS(portHTTP2), serveTLS(httpServer(routes, (*http.Protocols).SetHTTP2))},
		{overTLS(portGRPC), grpcServer(grpc.Creds(creds)).Serve},
		{overTLS(portWebSocket), serveTLS(http1())},
	} {
		if err := r.listen(port.serve, port.name); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// startServeHTTP serves everything by one http.Server, which gives gRPC to grpc.Server.ServeHTTP.
func startServeHTTP(o serverOptions) (*running, error) {
	r := newRunning(o)
	calls, routes := grpcServer(), r.handlers.routes(acceptPlain)
	handler := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.ProtoMajor == 2 && strings.HasPrefix(req.Header.Get("Content-Type"), "application/grpc") {
			calls.ServeHTTP(w, req)
			return
		}
		routes.ServeHTTP(w, req)
	})
	plain := httpServer(handler, (*http.Protocols).SetHTTP1, (*http.Protocols).SetUnencryptedHTTP2)
	if err := r.listen(plain.Serve, allPorts()...); err != nil {
		return nil, err
	}
	cert, key := certificateFiles(o.dir)
	secure := httpServer(handler, (*http.Protocols).SetHTTP1, (*http.Protocols).SetHTTP2)
	return r, r.listen(func(l net.Listener) error { return secure.ServeTLS(l, cert, key) }, allOverTLS()...)
}

// startCmux divides a port as the README of cmux does, with the matcher that it
// recommends for gRPC clients that wait for the server's SETTINGS.
func startCmux(o serverOptions) (*running, error) {
	r := newRunning(o)
	routes := r.handlers.routes(acceptPlain)
	divide := func(l net.Listener) error {
		m := cmux.New(l)
		calls := m.MatchWithWriters(cmux.HTTP2MatchHeaderFieldSendSettings("content-type", "application/grpc"))
		webSockets := m.Match(cmux.HTTP1HeaderField("Upgrade", "websocket"))
		http1, http2 := m.Match(cmux.HTTP1Fast()), m.Match(cmux.HTTP2())
		go func() { _ = grpcServer().Serve(calls) }()
		go func() { _ = httpServer(routes, (*http.Protocols).SetHTTP1).Serve(webSockets) }()
		go func() { _ = httpServer(routes, (*http.Protocols).SetHTTP1).Serve(http1) }()
		go func() { _ = httpServer(routes, (*http.Protocols).SetUnencryptedHTTP2).Serve(http2) }()
		return m.Serve()
	}
	if err := r.listen(divide, allPorts()...); err != nil {
		return nil, err
	}
	certFile, keyFile := certificateFiles(o.dir)
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}}
	return r, r.listen(func(l net.Listener) error { return divide(tls.NewListener(l, config)) }, allOverTLS()...)
}
