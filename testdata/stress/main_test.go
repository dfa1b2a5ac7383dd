package stress

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/muxserve/muxserve/testdata/clients/process"
)

// long makes every test as large as the issue of the day asks; without it the
// whole suite takes about a minute.
var long = flag.Bool("long", false, "run the long forms, which take some minutes")

// patience bounds every wait for something that is meant to happen and of which
// the time does not matter.
const patience = 60 * time.Second

// The bounds of the server, which are muxserve's defaults.
const (
	sniffTime     = 3 * time.Second
	headTime      = 10 * time.Second
	handshakeTime = 10 * time.Second
	idleTime      = 120 * time.Second
	maxStreams    = 250
	// slack is what the end of a connection may take on top of its bound.
	slack = time.Second
)

// binary is muxserve, and embedding the program in the directory server.
var binary, embedding string

func TestMain(m *testing.M) {
	flag.Parse()
	if task := os.Getenv(slowEnv); task != "" {
		if err := slowMain(task); err != nil {
			fmt.Fprintln(os.Stderr, "stress:", err)
			os.Exit(1)
		}
		return
	}
	dir, err := os.MkdirTemp("", "muxserve-stress-")
	if err == nil {
		binary, err = process.Build(context.Background(), dir)
	}
	if err == nil {
		embedding, err = process.BuildLike(context.Background(), dir, "./server")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "stress:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// pick returns the size of the short form or that of the long one.
func pick[T any](short, longer T) T {
	if *long {
		return longer
	}
	return short
}

// start runs muxserve, or the binary that is named, until the end of the test, which fails if it does not live until then.
func start(t *testing.T, o process.Options) *process.Process {
	t.Helper()
	if o.Binary == "" {
		o.Binary = binary
	}
	p, err := process.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the log of muxserve:\n%s", p.Log())
		}
	})
	return p
}

// eventually asks until ok says yes, because what it asks for shows only from
// outside of the process.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	const interval = 20 * time.Millisecond
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("it never comes to this: %s", what)
		}
		<-tick.C
	}
}
