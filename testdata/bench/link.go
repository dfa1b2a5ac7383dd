package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The link that operations over a network use, beside its round trip.
const (
	linkBytesPerSecond = 125_000_000 // in each direction: 1 Gbit/s
	// linkChunk is how much a link carries at a time. It takes 0.13 ms to send.
	linkChunk = 16 << 10
	// linkQueue is how many chunks wait in each direction beside those that are on their way, as in a router: 1 MiB.
	linkQueue = 64
	// linkSocketBuffer bounds what the kernel holds on each side of a link, in bytes.
	linkSocketBuffer = 256 << 10
)

// A link stands between the clients and the server of one form: a TCP proxy that lets bytes arrive as late as a network of its
// bandwidth and round trip does. All connections share the bandwidth. Nothing is ever lost, and a connection is there at once.
type link struct {
	delay    time.Duration // one way
	up, down direction

	mu        sync.Mutex           // guards what follows
	listeners map[string]io.Closer // by the address of the server
	addresses map[string]string    // the link's own; the same
	conns     map[net.Conn]struct{}
	closed    bool
	running   sync.WaitGroup
}

// newLink returns nil where there is no round trip.
func newLink(roundTrip time.Duration) *link {
	if roundTrip == 0 {
		return nil
	}
	return &link{
		delay: roundTrip / 2, listeners: make(map[string]io.Closer), addresses: make(map[string]string), conns: make(map[net.Conn]struct{}),
	}
}

// through returns the address by which the link leads to that of the server.
func (l *link) through(ctx context.Context, server string) (string, error) {
	if l == nil {
		return server, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if address, ok := l.addresses[server]; ok {
		return address, nil
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("bench: link: %w", err)
	}
	l.listeners[server], l.addresses[server] = listener, listener.Addr().String()
	l.running.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			l.running.Go(func() { l.join(client, server) })
		}
	})
	return l.addresses[server], nil
}

// close ends the link and every connection over it.
func (l *link) close() {
	if l == nil {
		return
	}
	l.mu.Lock()
	l.closed = true
	for _, listener := range l.listeners {
		_ = listener.Close()
	}
	for c := range l.conns {
		_ = c.Close()
	}
	l.mu.Unlock()
	l.running.Wait()
}

// keep has close end a connection. It reports false where that has happened.
func (l *link) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = c.Close()
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *link) drop(c net.Conn) {
	_ = c.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// join carries the bytes of one connection.
func (l *link) join(client net.Conn, address string) {
	if !l.keep(client) {
		return
	}
	defer l.drop(client)
	var dialer net.Dialer
	server, err := dialer.DialContext(context.Background(), "tcp", address)
	if err != nil || !l.keep(server) {
		return
	}
	defer l.drop(server)
	var both sync.WaitGroup
	for _, way := range []struct {
		to, from net.Conn
		d        *direction
	}{{server, client, &l.up}, {client, server, &l.down}} {
		both.Go(func() {
			if way.d.carry(way.to, way.from, l.delay) != nil {
				_ = client.Close() // Which ends the other direction as well.
				_ = server.Close()
			}
		})
	}
	both.Wait()
}

// direction is what all connections of a link share in one direction.
type direction struct {
	mu   sync.Mutex
	free time.Time // when everything before has been sent
}

// send returns when n bytes have been sent that came now.
func (d *direction) send(n int) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := time.Now(); d.free.Before(now) {
		d.free = now
	}
	d.free = d.free.Add(time.Duration(n) * time.Second / linkBytesPerSecond)
	return d.free
}

// chunk is bytes on their way. One without bytes is the end of the stream.
type chunk struct {
	bytes []byte
	due   time.Time
}

// carry copies a stream to its end, or until one side fails.
func (d *direction) carry(to, from net.Conn, delay time.Duration) error {
	limitBuffers(to, from)
	queued := linkQueue + int(delay*linkBytesPerSecond/time.Second/linkChunk)
	underWay, spare := make(chan chunk, queued), make(chan []byte, queued)
	var reading sync.WaitGroup
	var readErr error
	stop := make(chan struct{})
	reading.Go(func() {
		defer close(underWay)
		for made := 0; ; {
			var buffer []byte
			if made < queued && len(spare) == 0 {
				buffer = make([]byte, linkChunk)
				made++
			} else {
				select {
				case buffer = <-spare:
				case <-stop:
					return
				}
			}
			n, err := from.Read(buffer[:linkChunk])
			if n > 0 {
				underWay <- chunk{buffer[:n], d.send(n).Add(delay)} // There is room for as many as there are buffers.
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					readErr = err
				}
				return
			}
		}
	})
	err := deliver(to, underWay, spare, delay)
	close(stop)
	if err != nil {
		_ = from.Close() // So that the reading ends.
	}
	reading.Wait()
	return errors.Join(err, readErr)
}

// deliver writes each chunk when it is due, and then the end of the stream.
func deliver(to net.Conn, underWay <-chan chunk, spare chan<- []byte, delay time.Duration) error {
	clock, err := newAlarm()
	if err != nil {
		return err
	}
	defer clock.close()
	for c := range underWay {
		if err := clock.wait(time.Until(c.due)); err != nil {
			return err
		}
		if _, err := to.Write(c.bytes); err != nil {
			return err
		}
		spare <- c.bytes
	}
	if err := clock.wait(delay); err != nil {
		return err
	}
	if tcp, ok := to.(*net.TCPConn); ok {
		return tcp.CloseWrite()
	}
	return nil
}

func limitBuffers(to, from net.Conn) {
	if tcp, ok := to.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(linkSocketBuffer)
	}
	if tcp, ok := from.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(linkSocketBuffer)
	}
}

// alarm waits more exactly than the runtime's timers, which wake an idle process up to a millisecond late.
type alarm struct{ file *os.File }

func newAlarm() (alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return alarm{}, fmt.Errorf("bench: timerfd: %w", err)
	}
	return alarm{os.NewFile(uintptr(fd), "timerfd")}, nil // Which the runtime's poller waits for.
}

func (a alarm) close() { _ = a.file.Close() }

// shortestWait is less than it costs to wait.
const shortestWait = 20 * time.Microsecond

func (a alarm) wait(d time.Duration) error {
	if d < shortestWait {
		return nil
	}
	raw, err := a.file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		failed = unix.TimerfdSettime(int(fd), 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(d.Nanoseconds())}, nil)
	}); err != nil || failed != nil {
		return errors.Join(err, failed)
	}
	var expirations [8]byte
	_, err = a.file.Read(expirations[:])
	return err
}
