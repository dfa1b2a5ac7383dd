package mux_test

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/muxserve/muxserve/mux"
)

// pipeHTTP2 opens HTTP/2 on a pipe. A pipe holds nothing: a write waits for the other
// side to read, so a pump reads what the client does not ask for yet.
func pipeHTTP2(t *testing.T, conn net.Conn) *h2Client {
	t.Helper()
	return newH2Client(t, conn, pumped(conn))
}

// pumped returns a reader of all bytes from conn, which never keeps its peer waiting.
func pumped(conn net.Conn) io.Reader {
	q := &byteQueue{}
	q.more.L = &q.mu
	go func() {
		_, err := io.Copy(q, conn)
		q.end(err)
	}()
	return q
}

// byteQueue is a pipe without a bound.
type byteQueue struct {
	mu    sync.Mutex
	more  sync.Cond
	bytes []byte // guarded by mu
	err   error  // guarded by mu; what Read returns after the bytes
}

func (q *byteQueue) Write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes = append(q.bytes, p...)
	q.more.Broadcast()
	return len(p), nil
}

func (q *byteQueue) end(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err == nil {
		err = io.EOF
	}
	q.err = err
	q.more.Broadcast()
}

func (q *byteQueue) Read(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.bytes) == 0 && q.err == nil {
		q.more.Wait()
	}
	if len(q.bytes) == 0 {
		return 0, q.err
	}
	n := copy(p, q.bytes)
	q.bytes = q.bytes[n:]
	return n, nil
}

// pipeListener accepts pipes, for tests in a synctest bubble.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// dial returns the client's end of a connection.
func (l *pipeListener) dial() net.Conn {
	client, server := net.Pipe()
	l.conns <- server
	return client
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (*pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// timed runs a test on pipes in a synctest bubble, where waiting takes no time.
func timed(t *testing.T, m func() *mux.Server, serve func(*mux.Server, net.Listener) error, f func(*testing.T, *mux.Server, *pipeListener)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, l := m(), newPipeListener()
		served := make(chan error, 1)
		go func() { served <- serve(s, l) }()
		f(t, s, l)
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-served; !errors.Is(err, mux.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
}
