package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// A worker performs one operation each time it is called, or as many as it
// says. It is called by one goroutine at a time.
type worker func() (operations int, err error)

// session is what an operation needs to be performed on one form.
type session struct {
	workers []worker
	closers []func()
}

func (s *session) onClose(f func()) { s.closers = append(s.closers, f) }

func (s *session) close() {
	for _, c := range s.closers {
		c()
	}
}

// sizes say how much there is of everything.
type sizes struct {
	workers   int   // that ask at the same time
	streams   int   // of one HTTP/2 connection
	idle      int   // connections
	broadcast int   // WebSockets
	bytes     int64 // of a download and of an upload
	transfer  int64 // the same over a link, in bytes
}

// ioTimeout bounds whatever is done with a connection at a time. It is there for a server that fails, and long
// enough for the machine to be busy with other things.
const ioTimeout = 60 * time.Second

// dial connects to a port of a form by the way that the operation's connections take.
func dial(ctx context.Context, p *process, port string) (net.Conn, error) {
	if !p.way.secure {
		return dialTCP(ctx, p, port)
	}
	config, err := trusting(p.dir, port)
	if err != nil {
		return nil, err
	}
	conn, err := dialTCP(ctx, p, overTLS(port))
	if err != nil {
		return nil, err
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secure, nil
}

// trusting returns the TLS configuration of clients of a port that trust the servers' certificate.
func trusting(dir, port string) (*tls.Config, error) {
	file, _ := certificateFiles(dir)
	cert, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	protocol := "http/1.1"
	if port == portHTTP2 || port == portGRPC {
		protocol = "h2"
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: "localhost", NextProtos: []string{protocol}}, nil
}

// dialTCP connects to a port as it is, by the link if there is one.
func dialTCP(ctx context.Context, p *process, port string) (net.Conn, error) {
	address, ok := p.addresses[port]
	if !ok {
		return nil, fmt.Errorf("bench: form %s has no port %s", p.form, port)
	}
	address, err := p.link.through(ctx, address)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: ioTimeout, KeepAlive: -1}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(ioTimeout)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if p.way.client != nil {
		conn = p.way.client(conn)
	}
	return conn, nil
}

// opener makes a worker, and says what ends it.
type opener func(context.Context, *process, sizes) (w worker, end func(), err error)

// manyWorkers opens as many workers as there are to be, each with a connection of its own or without.
func manyWorkers(open opener) func(context.Context, *process, sizes) (*session, error) {
	return func(ctx context.Context, p *process, s sizes) (*session, error) {
		made := new(session)
		for range s.workers {
			w, end, err := open(ctx, p, s)
			if err != nil {
				made.close()
				return nil, err
			}
			made.workers = append(made.workers, w)
			made.onClose(end)
		}
		return made, nil
	}
}

// oneWorker opens a single one.
func oneWorker(open opener) func(context.Context, *process, sizes) (*session, error) {
	many := manyWorkers(open)
	return func(ctx context.Context, p *process, s sizes) (*session, error) {
		s.workers = 1
		return many(ctx, p, s)
	}
}

// errAnswer is in the error of an answer that is not the one which was to come.
var errAnswer = errors.New("bench: wrong answer")
