//go:build unix

package lifecycle

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// listenNotify opens a service manager's socket, puts it into the environment,
// and returns a function that receives one datagram.
func listenNotify(t *testing.T, path string) func() string {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv(envNotifySocket, path)
	return func() string {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4096)
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

func TestNotify(t *testing.T) {
	paths := map[string]string{"path": filepath.Join(t.TempDir(), "notify")}
	if runtime.GOOS == "linux" {
		paths["abstract"] = fmt.Sprintf("@muxserve-lifecycle-%d", os.Getpid())
	}
	sends := []struct {
		send func() (bool, error)
		want string
	}{
		{Ready, "READY=1"},
		{Stopping, "STOPPING=1"},
		{Alive, "WATCHDOG=1"},
		{func() (bool, error) { return Notify("MAINPID=7", "STATUS=two at once") }, "MAINPID=7\nSTATUS=two at once"},
	}
	for name, path := range paths {
		t.Run(name, func(t *testing.T) {
			receive := listenNotify(t, path)
			for _, s := range sends {
				if sent, err := s.send(); !sent || err != nil {
					t.Fatalf("%s: sent is %v, error %v", s.want, sent, err)
				}
				if diff := cmp.Diff(s.want, receive()); diff != "" {
					t.Errorf("datagram (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestReloadingIsOneDatagram(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the monotonic clock is read on Linux only")
	}
	receive := listenNotify(t, filepath.Join(t.TempDir(), "notify"))
	before, err := monotonicClock()
	if err != nil {
		t.Fatal(err)
	}
	if sent, err := Reloading(); !sent || err != nil {
		t.Fatalf("sent is %v, error %v", sent, err)
	}
	after, err := monotonicClock()
	if err != nil {
		t.Fatal(err)
	}
	usec, ok := strings.CutPrefix(receive(), "RELOADING=1\nMONOTONIC_USEC=")
	if !ok {
		t.Fatalf("not both assignments in one datagram: %q", usec)
	}
	got, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || got < before.Microseconds() || got > after.Microseconds() {
		t.Errorf("time is %q, want %d to %d", usec, before.Microseconds(), after.Microseconds())
	}
}

func TestNotifyFaults(t *testing.T) {
	full := filepath.Join(t.TempDir(), "nobody")
	tests := map[string]struct {
		socket      string
		assignments []string
		wantErr     string // begins the error; none if empty
	}{
		"no service manager": {assignments: []string{"READY=1"}},
		"nothing to say":     {socket: full},
		"nobody listens":     {socket: full, assignments: []string{"READY=1"}, wantErr: "lifecycle: notify: dial unixgram"},
		"relative path":      {socket: "run/notify", assignments: []string{"READY=1"}, wantErr: "lifecycle: notify: NOTIFY_SOCKET: unsupported address"},
		"vsock":              {socket: "vsock:2:1234", assignments: []string{"READY=1"}, wantErr: "lifecycle: notify: NOTIFY_SOCKET: unsupported address"},
		"too long a path":    {socket: "/" + strings.Repeat("x", 200), assignments: []string{"READY=1"}, wantErr: "lifecycle: notify: dial unixgram"},
		"two lines in one":   {socket: full, assignments: []string{"STATUS=a\nREADY=1"}, wantErr: "lifecycle: notify: \"STATUS=a"},
		"no assignment":      {socket: full, assignments: []string{"READY"}, wantErr: "lifecycle: notify: \"READY\""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv(envNotifySocket, tt.socket)
			sent, err := Notify(tt.assignments...)
			if sent {
				t.Error("sent is true")
			}
			if got := text(err); !strings.HasPrefix(got, tt.wantErr) || (got == "") != (tt.wantErr == "") {
				t.Errorf("error is %q, want %q", got, tt.wantErr)
			}
		})
	}
}

func TestWatchdogInterval(t *testing.T) {
	tests := map[string]struct {
		usec, pid string
		want      time.Duration
		wantErr   string
	}{
		"none":            {},
		"for anyone":      {usec: "20000000", want: 20 * time.Second},
		"for us":          {usec: "1500", pid: strconv.Itoa(os.Getpid()), want: 1500 * time.Microsecond},
		"for our parent":  {usec: "1500", pid: strconv.Itoa(os.Getppid())},
		"not a number":    {usec: "1s", wantErr: `lifecycle: watchdog: WATCHDOG_USEC is "1s", not a number of microseconds`},
		"zero":            {usec: "0", wantErr: `lifecycle: watchdog: WATCHDOG_USEC is "0", not a number of microseconds`},
		"beyond measure":  {usec: "9223372036854775807", wantErr: `lifecycle: watchdog: WATCHDOG_USEC is "9223372036854775807", not a number of microseconds`},
		"no such process": {usec: "1500", pid: "me", wantErr: `lifecycle: watchdog: WATCHDOG_PID is "me", not a process id`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv(envWatchdogUsec, tt.usec)
			t.Setenv(envWatchdogPID, tt.pid)
			got, err := WatchdogInterval()
			if got != tt.want {
				t.Errorf("interval is %v, want %v", got, tt.want)
			}
			if diff := cmp.Diff(tt.wantErr, text(err)); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}
