package listeners

import (
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCollide(t *testing.T) {
	t.Chdir(t.TempDir())
	tests := []struct {
		a, b string
		want bool
	}{
		{"127.0.0.1:80", "127.0.0.1:80", true},
		{"127.0.0.1:80", "127.0.0.1:81", false},
		{"127.0.0.1:80", "127.0.0.2:80", false},
		{"127.0.0.1:0", "127.0.0.1:0", false},
		{"127.0.0.1:080", "127.0.0.1:80", true},
		{"localhost:80", "127.0.0.1:80", true},
		{"[::ffff:127.0.0.1]:80", "127.0.0.1:80", true},
		{"0.0.0.0:80", "127.0.0.1:80", true},
		{"0.0.0.0:80", "[::1]:80", false},
		{"0.0.0.0:80", "[::]:80", false},
		{"0.0.0.0:80", ":80", true},
		{"[::]:80", ":80", true},
		{"[::]:80", "127.0.0.1:80", true},
		{"[::]:80", "[::1]:80", true},
		{"[::1]:80", "127.0.0.1:80", false},
		{":80", "example.com:80", true},
		{"0.0.0.0:80", "example.com:80", false},
		{"Example.com:80", "example.com:80", true},
		{"unix:x", "unix:./x", true},
		{"unix:x", "unix:y", false},
		{"unix:x", ":80", false},
		{"fd:web", "fd:web", true},
		{"fd:web", "fd:api", false},
		{"fd:web", ":80", false},
		{"no address", "no address", false},
	}
	for _, tt := range tests {
		if got, back := Collide(tt.a, tt.b), Collide(tt.b, tt.a); got != tt.want || back != tt.want {
			t.Errorf("Collide(%q, %q) = %t, the other way %t, want %t", tt.a, tt.b, got, back, tt.want)
		}
	}
}

// freePort returns a port that is free at every address. One that is free at 127.0.0.1 may
// be that of a client at another address.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return port(l.Addr())
}

// reachable reports which of the loopback addresses have a listener at a port.
func reachable(t *testing.T, port string) (reached []string) {
	t.Helper()
	for _, host := range []string{"127.0.0.1", "::1"} {
		if conn, err := net.Dial("tcp", net.JoinHostPort(host, port)); err == nil {
			conn.Close()
			reached = append(reached, host)
		}
	}
	return reached
}

func TestFamilies(t *testing.T) {
	for address, want := range map[string][]string{
		"0.0.0.0:0": {"127.0.0.1"},
		"[::]:0":    {"127.0.0.1", "::1"},
		":0":        {"127.0.0.1", "::1"},
		"[::1]:0":   {"::1"},
	} {
		l, err := Listen(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, reachable(t, port(l.Addr()))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", address, diff)
		}
		l.Close()
	}
}

// TestArrange opens both families beside each other, in either order.
func TestArrange(t *testing.T) {
	for _, hosts := range [][]string{{"0.0.0.0", "::"}, {"::", "0.0.0.0"}} {
		var configs []Config
		for _, host := range hosts {
			configs = append(configs, withAddress(DefaultConfig(), net.JoinHostPort(host, "0")))
		}
		if diff := cmp.Diff(configs, Arrange(configs)); diff != "" {
			t.Errorf("port 0 (-want +got):\n%s", diff)
		}
		free := freePort(t)
		for i, host := range hosts {
			configs[i].Address = net.JoinHostPort(host, free)
		}
		var open []net.Listener
		for i, c := range Arrange(configs) {
			if got := c.Shown().Address; got != configs[i].Address {
				t.Errorf("shown: %s, want %s", got, configs[i].Address)
			}
			open = append(open, openAll(t, c, nil)...)
			if want := []string{map[string]string{"0.0.0.0": "127.0.0.1", "::": "::1"}[hosts[i]]}; i == 0 && !cmp.Equal(want, reachable(t, free)) {
				t.Errorf("%s alone is reached at %v", hosts[i], reachable(t, free))
			}
		}
		if len(open) != 2 || len(reachable(t, free)) != 2 {
			t.Errorf("%v: reached at %v", hosts, reachable(t, free))
		}
		for _, l := range open {
			l.Close()
		}
	}
}

// TestOpenAllOfAName opens every socket that the service manager has passed under a name.
func TestOpenAllOfAName(t *testing.T) {
	one, other, third := listenLoopback(t), listenLoopback(t), listenLoopback(t)
	s := new(Sockets)
	for name, l := range map[string]net.Listener{"fd:web": one, "fd:api": third} {
		s.inherited = append(s.inherited, &inheritedSocket{l, passedSocket{Address: name, Manager: name, activated: true}})
	}
	s.inherited = append(s.inherited, &inheritedSocket{other, passedSocket{Address: "fd:web", Manager: "fd:web", activated: true}})
	open := openAll(t, withAddress(DefaultConfig(), "fd:web"), s.Listen)
	var got []string
	for _, l := range open {
		got = append(got, l.Addr().String())
	}
	if diff := cmp.Diff([]string{one.Addr().String(), other.Addr().String()}, got); diff != "" {
		t.Fatalf("opened (-want +got):\n%s", diff)
	}
	if _, err := s.CloseUnused(); err == nil {
		t.Error("the socket of another name was taken")
	}
	var bare []net.Listener
	for _, l := range open {
		bare = append(bare, Unwrap(l))
	}
	c := withAddress(DefaultConfig(), "fd:web")
	c.Backlog = 10
	if again := reopen(t, c, withAddress(DefaultConfig(), "fd:web"), s.Listen, bare...); len(again) != len(open) {
		t.Errorf("%d sockets under another configuration, want %d", len(again), len(open))
	}
}

// TestInheritedFamilies asks for another address family than the process before had at the
// port. Serving that would leave out clients of one family, or let in some.
func TestInheritedFamilies(t *testing.T) {
	tests := []struct {
		bound, ask string // before the port
		taken      bool
	}{
		{"[::]:", "[::]:", true},
		{"[::]:", ":", true},
		{"[::]:", "0.0.0.0:", false},
		{"[::]:", ipv6OnlyPrefix + "[::]:", false},
		{ipv6OnlyPrefix + "[::]:", "[::]:", false},
		{ipv6OnlyPrefix + "[::]:", ipv6OnlyPrefix + "[::]:", true},
		{"0.0.0.0:", "[::]:", false},
	}
	for _, tt := range tests {
		inner, err := Listen(t.Context(), tt.bound+"0")
		if err != nil {
			t.Fatal(err)
		}
		defer inner.Close()
		known := tt.bound + port(inner.Addr())
		l, err := inheriting(inner, known, false, false).Listen(t.Context(), tt.ask+port(inner.Addr()))
		switch {
		case !tt.taken:
			checkError(t, err, []string{"address already in use; this process was started with the socket " + known})
		case err != nil:
			t.Errorf("%s for %s: %v", tt.bound, tt.ask, err)
		default:
			l.Close()
		}
	}
}
