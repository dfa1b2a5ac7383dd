//go:build unix

package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
)

// watched is a server in this process, whose files are looked at when the test says so.
type watched struct {
	*process

	file    string
	watcher watcher
	now     time.Time
	stopped bool
}

// startWatched serves with a configuration file, and looks at it once.
func startWatched(t *testing.T, text string) *watched {
	t.Helper()
	w := &watched{file: filepath.Join(t.TempDir(), "muxserve.yaml"), now: time.Now()}
	w.write(t, text)
	parsed, err := cli.Parse(settings.Flags(), []string{"--config", w.file})
	if err != nil {
		t.Fatal(err)
	}
	none := func(string) string { return "" }
	s, err := settings.Load(parsed, none)
	if err != nil {
		t.Fatal(err)
	}
	h, err := inherit(none, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	env := environment{stdout: io.Discard, stderr: io.Discard, getenv: none}
	w.process = newProcess(env, s, newLogs(env, s.Log), h)
	w.reloads.stopWatch = func() { w.stopped = true } // The test takes the place of the goroutine.
	if err := w.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.run(env)
	}()
	t.Cleanup(func() {
		ctx, cut := context.WithCancel(context.Background())
		cut()
		w.drain(ctx)
		<-ended
	})
	select {
	case <-w.serving:
	case <-time.After(patience):
		t.Fatal("it does not serve")
	}
	w.after(0)
	w.after(settleTime)
	return w
}

// write writes the file in place.
func (w *watched) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(w.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// after has the files looked at when this time has passed, and returns the time until the
// next look.
func (w *watched) after(d time.Duration) time.Duration {
	w.now = w.now.Add(d)
	return w.reloads.look(&w.watcher, w.now)
}

// expect checks which version is in force.
func (w *watched) expect(t *testing.T, what string, version int) {
	t.Helper()
	if got := w.server.History().Current; got != version {
		t.Errorf("%s: version %d is in force, want %d", what, got, version)
	}
}

const (
	firstPart  = "listeners: [{address: \"127.0.0.1:0\"}]\nadmin: {address: \"off\"}\n"
	secondPart = "limits: {max_connections: 77}\nwatch: true\n"
)

// TestWatchWaitsForWriter: a file that is written in place comes into force when it has stayed
// the same for a while. Each part of it begins that anew.
func TestWatchWaitsForWriter(t *testing.T) {
	t.Parallel()
	w := startWatched(t, firstPart+secondPart)
	w.write(t, firstPart)
	for d := time.Duration(0); d < settleTime; {
		wait := w.after(d)
		if wait <= 0 || wait > watchInterval {
			t.Fatalf("the next look is after %v", wait)
		}
		d += wait
	}
	w.expect(t, "the writer pauses", 1)
	w.write(t, firstPart+secondPart+"log: {access: true}\n")
	w.after(0)
	w.after(settleTime - 1)
	w.expect(t, "the writer has just ended", 1)
	w.after(1)
	w.expect(t, "the file is whole", 2)
	if w.stopped || !w.settings().Watch || !w.settings().Log.Access {
		t.Errorf("stopped %v, watch %v, log %+v", w.stopped, w.settings().Watch, w.settings().Log)
	}
}

// TestWatchTakesReplaced: a file that replaces another one by rename was whole before. If it
// goes on to change, it is written in place.
func TestWatchTakesReplaced(t *testing.T) {
	t.Parallel()
	w := startWatched(t, firstPart+secondPart)
	r := reloadable{file: w.file}
	r.write(t, firstPart+secondPart+"log: {access: true}\n")
	if wait := w.after(0); wait != replaceTime {
		t.Errorf("the next look is after %v", wait)
	}
	w.after(replaceTime)
	w.expect(t, "another file", 2)

	r.write(t, firstPart+secondPart+"log: {level: debug}\n")
	w.after(0)
	w.write(t, firstPart)
	w.after(replaceTime)
	w.after(settleTime - 1)
	w.expect(t, "it changes", 2)
	if err := os.Remove(w.file); err != nil {
		t.Fatal(err)
	}
	w.after(0)
	w.write(t, firstPart) // Its number may be that of the old one, or not.
	w.after(1)
	w.after(settleTime - 1)
	w.expect(t, "it was removed and comes anew", 2)
}

// TestWatchLooksOnceMore: a first part that was taken for the file, and does not say that the
// files are watched, ends the watch only if nothing follows.
func TestWatchLooksOnceMore(t *testing.T) {
	t.Parallel()
	w := startWatched(t, firstPart+secondPart)
	w.write(t, firstPart)
	w.after(0)
	w.after(settleTime)
	w.expect(t, "the first part", 2)
	w.after(settleTime - 1)
	if w.stopped || w.settings().Watch {
		t.Fatalf("the watch: stopped %v, in force %v", w.stopped, w.settings().Watch)
	}
	w.write(t, firstPart+secondPart)
	w.after(0)
	w.after(settleTime)
	w.expect(t, "the whole file", 3)
	if w.stopped || !w.settings().Watch {
		t.Fatalf("the watch: stopped %v, in force %v", w.stopped, w.settings().Watch)
	}

	w.write(t, firstPart)
	w.after(0)
	w.after(settleTime)
	w.after(settleTime)
	w.expect(t, "a file without the key", 4)
	if !w.stopped {
		t.Error("nothing follows, and the watch goes on")
	}
}

// TestWatchEndsAtOnce: a reload that an operator asks for ends the watch.
func TestWatchEndsAtOnce(t *testing.T) {
	t.Parallel()
	w := startWatched(t, firstPart+secondPart)
	w.write(t, firstPart)
	if _, err := w.reloads.Reload("test"); err != nil || !w.stopped {
		t.Errorf("the watch: stopped %v, error %v", w.stopped, err)
	}
}
