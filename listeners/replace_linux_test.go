package listeners

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
)

// TestReplacing listens on an address beside one that overlaps with it and is to go.
func TestReplacing(t *testing.T) {
	tests := []struct{ old, next string }{
		{"127.0.0.1", "0.0.0.0"},
		{"0.0.0.0", "127.0.0.1"},
		{"127.0.0.1", ""},
		{"::", "0.0.0.0"},
		{"0.0.0.0", "::"},
		{"127.0.0.1", "localhost"},
	}
	for _, tt := range tests {
		t.Run(tt.old+" by "+tt.next, func(t *testing.T) {
			s := new(Sockets)
			old := openAll(t, withAddress(DefaultConfig(), net.JoinHostPort(tt.old, freePort(t))), s.Listen)[0]
			c := withAddress(DefaultConfig(), net.JoinHostPort(tt.next, port(old.Addr())))
			_, err := c.Open(t.Context(), s.Listen)
			checkError(t, err, []string{"address already in use; this process itself listens on " + old.Addr().String()})
			unrelated := listenLoopback(t)
			next := openAll(t, c, func(ctx context.Context, address string) (net.Listener, error) {
				return s.Listen(Replacing(ctx, unrelated, old), address)
			})[0]
			for _, l := range []net.Listener{old, next, unrelated} {
				raw, err := layer{l}.SyscallConn()
				if err != nil || reusesPort(raw) {
					t.Errorf("%s shares its port with other processes: %v", l.Addr(), err)
				}
			}
			old.Close()
			dialed := make(chan error, 1)
			go func() {
				conn, err := next.Accept()
				if err == nil {
					conn.Close()
				}
				dialed <- err
			}()
			dial(t, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: next.Addr().(*net.TCPAddr).Port})
			if err := <-dialed; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestReplacingStrangers is an address that another one of the process has besides those
// that go.
func TestReplacingStrangers(t *testing.T) {
	s := new(Sockets)
	old, stays := listenLoopback(t), listenLoopback(t)
	_, err := s.Listen(Replacing(t.Context(), old), stays.Addr().String())
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("%v, want that the address is in use", err)
	}
}

// TestRelease has clients connect without a pause while a socket gives way to another one
// of its address. A process that has the old socket, too, goes on to get connections.
func TestRelease(t *testing.T) {
	s := new(Sockets)
	old := openAll(t, withAddress(DefaultConfig(), "127.0.0.1:"+freePort(t)), s.Listen)[0]
	address := old.Addr().String()
	queued := dial(t, old.Addr())
	next := openAll(t, withAddress(DefaultConfig(), "0.0.0.0:"+port(old.Addr())), func(ctx context.Context, address string) (net.Listener, error) {
		return s.Listen(Replacing(ctx, old), address)
	})[0]
	leaving, serving := New(old, nil), New(next, nil)
	leaving.Release()
	started := passOn(t, s).inherited
	for _, in := range started {
		_ = in.Close()
	}
	if len(started) != 1 || started[0].Addr().String() != next.Addr().String() {
		t.Errorf("a process that is started now gets %v", started)
	}
	after, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	for l, client := range map[*Listener]net.Conn{leaving: queued, serving: after} {
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if conn.RemoteAddr().String() != client.LocalAddr().String() {
			t.Errorf("%s has accepted %s, want %s", l.Addr(), conn.RemoteAddr(), client.LocalAddr())
		}
	}
	if _, err := leaving.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v, want net.ErrClosed", err)
	}

	files, _, err := s.Pass(nil)
	if err != nil {
		t.Fatal(err)
	}
	passed, err := net.FileListener(files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer passed.Close()
	files[0].Close()
	serving.Release()
	if _, err := serving.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v, want net.ErrClosed", err)
	}
	dial(t, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: next.Addr().(*net.TCPAddr).Port})
}
