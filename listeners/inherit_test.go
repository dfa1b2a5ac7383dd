package listeners

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// inheriting returns Sockets that have inherited l under an address.
func inheriting(l net.Listener, address string, activated, unlink bool) *Sockets {
	p := passedSocket{Address: address, Unlink: unlink, activated: activated}
	if activated {
		p.Manager = "fd:web"
	}
	return &Sockets{inherited: []*inheritedSocket{{l, p}}}
}

func TestListenTakesInherited(t *testing.T) {
	t.Chdir(t.TempDir())
	tests := []struct {
		name  string
		bound string // what was inherited
		known string // as what; its bound address if empty
		ask   func(bound net.Addr) string
		taken bool
	}{
		{"the address it was configured with", "127.0.0.1:0", "127.0.0.1:0", func(net.Addr) string { return "127.0.0.1:0" }, true},
		{"the address it is bound to", "127.0.0.1:0", "fd:web", net.Addr.String, true},
		{"a host's name", "127.0.0.1:0", "fd:web", func(a net.Addr) string { return net.JoinHostPort("localhost", port(a)) }, true},
		{"every address", ":0", "fd:web", func(a net.Addr) string { return net.JoinHostPort("0.0.0.0", port(a)) }, true},
		{"every address, short", ":0", "fd:web", func(a net.Addr) string { return ":" + port(a) }, true},
		{"its name", "127.0.0.1:0", "fd:web", func(net.Addr) string { return "fd:web" }, true},
		{"a relative path", "unix:x.sock", "fd:web", func(net.Addr) string { return "unix:./x.sock" }, true},
		{"an absolute path", "unix:x.sock", "fd:web", func(net.Addr) string { return "unix:" + absolute(t, "x.sock") }, true},
		{"another port", "127.0.0.1:0", "fd:web", func(net.Addr) string { return "127.0.0.1:0" }, false},
		{"another path", "unix:x.sock", "fd:web", func(net.Addr) string { return "unix:y.sock" }, false},
		{"a network of another kind", "unix:x.sock", "fd:web", func(net.Addr) string { return "127.0.0.1:0" }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inner, err := Listen(t.Context(), tt.bound)
			if err != nil {
				t.Fatal(err)
			}
			defer inner.Close()
			s := inheriting(inner, tt.known, true, false)
			l, err := s.Listen(t.Context(), tt.ask(inner.Addr()))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if same := l.Addr().String() == inner.Addr().String(); same != tt.taken {
				t.Errorf("got %s for %s, taken is %t", l.Addr(), inner.Addr(), same)
			}
			if _, err := s.CloseUnused(); (err == nil) != tt.taken {
				t.Errorf("unused: %v", err)
			}
		})
	}
}

func port(a net.Addr) string {
	_, p, _ := net.SplitHostPort(a.String())
	return p
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	full, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return full
}

// TestListenAgain: the service manager's socket can be had again when it was closed, with the
// clients that have connected meanwhile, and not after Close.
func TestListenAgain(t *testing.T) {
	inner, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := inheriting(inner, "fd:web", true, false)
	for _, address := range []string{"fd:web", inner.Addr().String(), "fd:web"} {
		l, err := s.Listen(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		dial(t, inner.Addr())
	}
	l, err := s.Listen(t.Context(), "fd:web")
	if err != nil {
		t.Fatal(err)
	}
	New(l, nil).Release() // It closes the socket later, if at all.
	if l, err = s.Listen(t.Context(), "fd:web"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Listen(t.Context(), "fd:web"); err == nil {
		t.Error("it can be had after Close")
	}
}

func TestListenUnknownName(t *testing.T) {
	_, err := new(Sockets).Listen(t.Context(), "fd:web")
	checkError(t, err, []string{"listeners: listen on fd:web", "none"})
	inner := listenLoopback(t)
	_, err = inheriting(inner, "fd:other", true, false).Listen(t.Context(), "fd:web")
	checkError(t, err, []string{"listeners: listen on fd:web", "fd:other (" + inner.Addr().String() + ")"})
}

func TestListenFallsBack(t *testing.T) {
	var s Sockets
	l, err := s.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dial(t, l.Addr())
	conn, err := New(l, nil).Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a second Close: %v", err)
	}
	if _, err := s.Listen(t.Context(), "no port"); err == nil {
		t.Error("an address that is none was opened")
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if in := inheriting(listenLoopback(t), "fd:web", true, false).take(canceled, "name.invalid:http"); in != nil {
		t.Errorf("a name that nobody knows means %s", in)
	}
}

func TestCloseUnused(t *testing.T) {
	old, manager := listenLoopback(t), listenLoopback(t)
	s := &Sockets{inherited: []*inheritedSocket{
		{old, passedSocket{Address: "127.0.0.1:0"}},
		{manager, passedSocket{Address: "fd:web", Manager: "fd:web", activated: true}},
	}}
	dropped, err := s.CloseUnused()
	if diff := cmp.Diff([]string{"127.0.0.1:0 (" + old.Addr().String() + ")"}, dropped); diff != "" {
		t.Errorf("dropped (-want +got):\n%s", diff)
	}
	checkError(t, err, []string{"listeners: ", "fd:web (" + manager.Addr().String() + ")"})
	for _, l := range []net.Listener{old, manager} {
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v, want it closed", l.Addr(), err)
		}
	}
	if dropped, err := s.CloseUnused(); dropped != nil || err != nil {
		t.Errorf("once more: %v, %v", dropped, err)
	}
}

// TestSocketFile looks for the file of a Unix socket when its listener is closed.
func TestSocketFile(t *testing.T) {
	tests := []struct {
		name              string
		inherited, unlink bool
		owned, handedOver bool
		want              bool // that the file is there
	}{
		{name: "own", want: false},
		{name: "from the process before, which may serve on", inherited: true, unlink: true, want: true},
		{name: "from the process before, which leaves", inherited: true, unlink: true, owned: true, want: false},
		{name: "from the service manager", inherited: true, owned: true, want: true},
		{name: "handed over", handedOver: true, want: true},
		{name: "inherited and handed over", inherited: true, unlink: true, owned: true, handedOver: true, want: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x")
			s := new(Sockets)
			if tt.inherited {
				inner, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
				if err != nil {
					t.Fatal(err)
				}
				s = inheriting(inner, "unix:"+path, false, tt.unlink)
			}
			l, err := s.Listen(t.Context(), "unix:"+path)
			if err != nil {
				t.Fatal(err)
			}
			if tt.owned {
				s.OwnFiles()
			}
			if tt.handedOver {
				s.KeepFiles()
			}
			if err := errors.Join(s.Close(), s.Close()); err != nil {
				t.Error(err)
			}
			if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept: %v, want net.ErrClosed", err)
			}
			_, err = os.Lstat(path)
			if there := !errors.Is(err, fs.ErrNotExist); there != tt.want {
				t.Errorf("the file is there: %t, want %t", there, tt.want)
			}
		})
	}
}
