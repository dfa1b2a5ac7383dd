package upgrade

import (
	"os"
	"runtime"
	"testing"
)

// newChild returns a child without a process, and its end of the pipe.
func newChild(t *testing.T) (*child, *os.File) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("pipes have no deadlines")
	}
	pipe, said, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{pipe: pipe, ready: make(chan struct{}), silent: make(chan struct{}), exited: make(chan struct{})}
	t.Cleanup(func() {
		_ = said.Close()
		<-c.silent
	})
	return c, said
}

// TestIsReady calls isReady before the message of the process was read.
func TestIsReady(t *testing.T) {
	tests := []struct {
		name             string
		says, mute, ends bool
		want             bool
	}{
		{name: "ready", says: true, want: true},
		{name: "ready, and told the service manager", says: true, mute: true, want: true},
		{name: "not ready"},
		{name: "never to be ready", mute: true},
		{name: "ready, and gone", says: true, ends: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, said := newChild(t)
			if tt.says {
				if _, err := said.Write([]byte{1}); err != nil {
					t.Fatal(err)
				}
			}
			if tt.mute {
				_ = said.Close()
			}
			if tt.ends {
				close(c.exited)
			}
			asked := make(chan bool, 1)
			go func() { asked <- c.isReady() }()
			go c.listen()
			if got := <-asked; got != tt.want {
				t.Errorf("isReady is %t, want %t", got, tt.want)
			}
		})
	}
}

// TestDecideReady: Stop is called before the message that the new process is ready was
// read.
func TestDecideReady(t *testing.T) {
	c, said := newChild(t)
	s := new(fakeKeeper)
	u := &Upgrader{sockets: s, state: stopped, cancel: func(error) {}}
	if err := u.decide(c, nil); err != nil {
		t.Fatal(err)
	}
	if !u.Stop() || s.kept != 1 {
		t.Errorf("the sockets were handed over %d times", s.kept)
	}
	go c.listen()
	waited := make(chan struct{})
	go func() {
		u.WaitTold()
		close(waited)
	}()
	if _, err := said.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if !c.isReady() {
		t.Error("it is not ready")
	}
	select {
	case <-waited:
		t.Error("the service manager does not know yet")
	default:
	}
	_ = said.Close()
	<-waited
}

// fakeKeeper counts the calls of KeepFiles.
type fakeKeeper struct{ kept int }

func (k *fakeKeeper) Pass(environ []string) ([]*os.File, []string, error) { return nil, environ, nil }
func (k *fakeKeeper) KeepFiles()                                          { k.kept++ }
