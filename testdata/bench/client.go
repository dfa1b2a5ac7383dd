package main

import (
	"context"
	"errors"
	"fmt"
	"net"
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
}

// ioTimeout bounds whatever is done with a connection at a time. It is there for a server that fails, and long
// enough for the machine to be busy with other things.
const ioTimeout = 60 * time.Second

// dial connects to a port of a form.
func dial(ctx context.Context, p *process, port string) (net.Conn, error) {
	address, ok := p.addresses[port]
	if !ok {
		return nil, fmt.Errorf("bench: form %s has no port %s", p.form, port)
	}
	dialer := net.Dialer{Timeout: ioTimeout, KeepAlive: -1}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(ioTimeout))
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
