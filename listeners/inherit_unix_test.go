//go:build unix

package listeners

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAdoptRefuses(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	defer writer.Close()
	datagrams, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	conn := dial(t, listenLoopback(t).Addr())
	tests := []struct {
		name string
		file func() (*os.File, error)
		want string
	}{
		{"pipe", func() (*os.File, error) { return reader, nil }, "not a socket"},
		{"datagrams", datagrams.(*net.UDPConn).File, "not a stream socket"},
		{"connection", conn.(*net.TCPConn).File, "does not listen"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := tt.file()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			_, err = adopt(int(f.Fd()), tt.name)
			checkError(t, err, []string{tt.want, fmt.Sprint(f.Fd())})
			if _, err := f.Stat(); err != nil {
				t.Errorf("the file was touched: %v", err)
			}
		})
	}
	_, err = adopt(1<<20, "none")
	checkError(t, err, []string{"1048576"})
}

// passOn returns the sockets as the next process has them.
func passOn(t *testing.T, s *Sockets) *Sockets {
	t.Helper()
	files, env, err := s.Pass(nil)
	if err != nil {
		t.Fatal(err)
	}
	passed, err := passedSockets(func(name string) string {
		for _, v := range env {
			if value, ok := strings.CutPrefix(v, name+"="); ok {
				return value
			}
		}
		return ""
	}, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	next := new(Sockets)
	for i, f := range files {
		l, err := net.FileListener(f)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		next.inherited = append(next.inherited, &inheritedSocket{l, passed[i]})
	}
	return next
}

// TestListenAgainBehindUpgrade: the next process can have the service manager's socket again,
// whether the one before has left it out or had it by another name.
func TestListenAgainBehindUpgrade(t *testing.T) {
	for _, kept := range []bool{false, true} {
		inner, err := Listen(t.Context(), "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := inheriting(inner, "fd:web", true, false)
		l, err := s.Listen(t.Context(), inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if !kept {
			_ = l.Close()
		}
		next := passOn(t, s)
		_ = s.Close()
		if kept {
			if l, err = next.Listen(t.Context(), inner.Addr().String()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := next.CloseUnused(); err != nil {
			t.Error(err)
		}
		if kept {
			_ = l.Close()
		}
		dial(t, inner.Addr())
		if l, err = next.Listen(t.Context(), "fd:web"); err != nil {
			t.Fatalf("kept by the process before: %t: %v", kept, err)
		}
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		if err := next.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestPassLosesNothing closes a listener whose queue another one shares.
func TestPassLosesNothing(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "unix:" + filepath.Join(t.TempDir(), "x")} {
		var s Sockets
		old, err := s.Listen(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		const clients = 20
		for range clients {
			dial(t, old.Addr())
		}
		files, env, err := s.Pass([]string{"A=b", envInherit + "=x", envListenPID + "=1", envListenFDs + "=1"})
		if err != nil || len(files) != 1 {
			t.Fatal(files, err)
		}
		unlink := ""
		if old.Addr().Network() == "unix" {
			file := fileOf(old.Addr().String()).id
			unlink = fmt.Sprintf(`,"unlink":true,"file":{"device":%d,"inode":%d}`, file.Device, file.Inode)
		}
		if diff := cmp.Diff([]string{"A=b", envInherit + `=[{"address":"` + address + `"` + unlink + `}]`}, env); diff != "" {
			t.Errorf("environment (-want +got):\n%s", diff)
		}
		// os/exec asks for the descriptor, too; the socket must not become blocking by it.
		passed, err := syscall.Dup(int(files[0].Fd()))
		if err != nil {
			t.Fatal(err)
		}
		files[0].Close()
		next, err := adopt(passed, address)
		if err != nil {
			t.Fatal(err)
		}
		checkDeadline(t, old, clients)

		s.KeepFiles()
		dial(t, old.Addr())
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		dial(t, next.Addr())
		for range 2 {
			conn, err := next.Accept()
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
		}
		next.Close()
	}
}

// checkDeadline accepts all clients and then waits for a deadline, which a socket
// in blocking mode would not look at.
func checkDeadline(t *testing.T, l net.Listener, clients int) {
	t.Helper()
	for range clients {
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	ended := make(chan error, 1)
	l.(deadliner).SetDeadline(time.Now().Add(drainWait))
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Accept: %v, want the deadline", err)
		}
	case <-time.After(childPatience):
		t.Fatal("Accept does not look at its deadline: the socket is in blocking mode")
	}
}

func TestPassClosed(t *testing.T) {
	var s Sockets
	l, err := s.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.(*socket).innerSocket.Close()
	if _, _, err := s.Pass(nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v, want net.ErrClosed", err)
	}
}

// inheritorEnv makes TestInheritor the other process; it holds the addresses to listen
// on.
const inheritorEnv = "MUXSERVE_LISTENERS_INHERITOR"

// TestInheritor is no test but the process that the sockets are passed to. It says
// what each address is bound to, and accepts one connection on each.
func TestInheritor(t *testing.T) {
	addresses := os.Getenv(inheritorEnv)
	if addresses == "" {
		t.Skip("nothing was passed")
	}
	s, err := Inherited(os.Getenv)
	if err != nil {
		fmt.Println("inherited:", err)
		return
	}
	for address := range strings.SplitSeq(addresses, ",") {
		l, err := s.Listen(t.Context(), address)
		if err != nil {
			fmt.Println("listen:", err)
			continue
		}
		conn, err := l.Accept()
		if err != nil {
			fmt.Println("accept:", err)
			continue
		}
		fmt.Println("accepted on", l.Addr())
		conn.Close()
	}
	if _, err := s.CloseUnused(); err != nil {
		fmt.Println("unused:", err)
	}
}

// inherit runs TestInheritor by a shell, which knows its number before the program
// starts.
func inherit(t *testing.T, addresses string, files []*os.File, env ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" -test.run='^TestInheritor$'`, os.Args[0])
	// The race detector would have the process wait for a second at its end.
	cmd.Env = slices.Concat(env, []string{inheritorEnv + "=" + addresses, "GORACE=atexit_sleep_ms=0"})
	cmd.ExtraFiles = files
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said []string
	for lines := bufio.NewScanner(stdout); lines.Scan() && lines.Text() != "PASS"; {
		said = append(said, lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	return said
}

// TestOtherProcess passes sockets to a process, as an upgrade and as a service manager.
func TestOtherProcess(t *testing.T) {
	dir := t.TempDir()
	var s Sockets
	addresses := []string{"127.0.0.1:0", "unix:" + filepath.Join(dir, "x")}
	var bound, want []string
	for _, address := range addresses {
		l, err := s.Listen(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		bound = append(bound, l.Addr().String())
		want = append(want, "accepted on "+l.Addr().String())
	}
	connect := func() {
		dial(t, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: s.open[0].Addr().(*net.TCPAddr).Port})
		dial(t, s.open[1].Addr())
	}
	files, env, err := s.Pass(os.Environ())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		defer f.Close()
	}
	s.KeepFiles()
	manager := []string{envListenFDs + "=2", envListenNames + "=web:local"}
	tests := []struct {
		name, addresses string
		env, want       []string
	}{
		{"upgrade", strings.Join(addresses, ","), env, want},
		{"service manager, by name", "fd:web,fd:local", manager, want},
		{"service manager, by address", bound[0] + ",unix:" + bound[1], manager, want},
		{"service manager, one is not asked for", "fd:local", manager, []string{
			want[1], "unused: listeners: the service manager has passed sockets that no address asks for: fd:web (" + bound[0] + ")",
		}},
		{"service manager, one more than there are", "fd:web,fd:local", []string{envListenFDs + "=3"}, []string{
			"inherited: listeners: inherited socket fd:unknown: descriptor 5: not a socket",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			connect()
			got := inherit(t, tt.addresses, files, tt.env...)
			if len(got) == 1 { // The number may be unused, or be that of a file of the runtime's.
				got[0] = strings.Replace(got[0], "getsockopt: bad file descriptor", "not a socket", 1)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("it said (-want +got):\n%s", diff)
			}
		})
	}
}
