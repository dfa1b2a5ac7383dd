package main

import (
	"errors"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/admin"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/humanlog"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
)

// TestOneChangeAtATime: during a change, others are refused and do not appear in the
// history.
func TestOneChangeAtATime(t *testing.T) {
	t.Parallel()
	s := settings.Default()
	h, err := inherit(func(string) string { return "" }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	env := environment{stderr: io.Discard, getenv: func(string) string { return "" }}
	p := newProcess(env, s, newLogs(env, s.Log), h)
	defer p.close()
	r := p.reloads
	r.changing.Lock()
	defer r.changing.Unlock()
	if _, err := r.Reload("test"); !errors.Is(err, admin.ErrBusy) {
		t.Errorf("reload: %v", err)
	}
	if _, err := r.Rollback(1, "test"); !errors.Is(err, admin.ErrBusy) {
		t.Errorf("rollback: %v", err)
	}
	if history := p.server.History(); history.Current != 1 || len(history.Versions) != 1 {
		t.Errorf("%+v", history)
	}
	if err := p.SetReady(false); err != nil {
		t.Errorf("ready: %v", err) // What a change waits for may be what makes the machine sick.
	}
	_, err = r.upgrade(func() (int, error) {
		t.Error("an upgrade begins")
		return 0, nil
	})
	if !errors.Is(err, errChanging) {
		t.Errorf("upgrade: %v", err)
	}
}

// TestLineComesBehindTheChange: a caller who has read how a change ended is not told that one is
// under way.
func TestLineComesBehindTheChange(t *testing.T) {
	t.Parallel()
	s := settings.Default()
	h, err := inherit(func(string) string { return "" }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	log := &lockSeen{}
	env := environment{stderr: io.Discard, getenv: func(string) string { return "" }}
	p := newProcess(env, s, newLogs(env, s.Log), h)
	p.logger = slog.New(slog.NewTextHandler(log, nil)) // Without a queue.
	defer p.close()
	log.of = &p.reloads.changing
	if _, err := p.reloads.Reload("test"); !errors.Is(err, admin.ErrBusy) { // It does not serve yet.
		t.Errorf("reload: %v", err)
	}
	if log.held || log.free != 1 {
		t.Errorf("a lock is held while a line is written: %v, %d lines", log.held, log.free)
	}
}

// lockSeen is a log that looks whether a lock is held while its lines are written.
type lockSeen struct {
	of   *sync.Mutex
	held bool
	free int // How many lines were written while it was not.
}

func (l *lockSeen) Write(p []byte) (int, error) {
	if l.of.TryLock() {
		l.free++
		l.of.Unlock()
	} else {
		l.held = true
	}
	return len(p), nil
}

func TestFilesOf(t *testing.T) {
	t.Parallel()
	s := settings.Default()
	s.Mux.Listeners = []listeners.Config{
		{TLS: listeners.TLSConfig{Cert: "c.pem", Key: "k.pem", ClientCA: "ca.pem", TicketKeys: "t"}},
		{TLS: listeners.TLSConfig{Cert: "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"}},
		{TLS: listeners.TLSConfig{Certificates: []listeners.CertificateConfig{{Cert: "d.pem", Key: "l.pem"}, {Cert: "e.pem", KeyPassphraseFile: "p"}}}},
	}
	if diff := cmp.Diff([]string{"c.pem", "k.pem", "ca.pem", "t", "d.pem", "l.pem", "e.pem", "p"}, filesOf(s)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestDigests: unreadable files have digests too, and an empty file differs from a
// missing one.
func TestDigests(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "a")
	names := []string{file, dir}
	missing := digestsOf(names)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	empty := digestsOf(names)
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	full := digestsOf(names)
	if missing[file] == empty[file] || empty[file] == full[file] || missing[dir] != full[dir] {
		t.Error("digests that differ where nothing has changed, or do not where something has")
	}
	full = full.with(digests{file: empty[file], "other": {1}})
	if diff := cmp.Diff([]string{dir, file, "other"}, slices.Sorted(maps.Keys(full))); diff != "" || full[file] == empty[file] {
		t.Errorf("what was known was replaced, or (-want +got):\n%s", diff)
	}
}

// TestOwnChanges changes every key that is not in mux.Config. The changes have the apply
// tags of the fields, and describe their effect.
func TestOwnChanges(t *testing.T) {
	t.Parallel()
	current, next := settings.Default(), settings.Default()
	next.Admin, next.Static, next.Watch = settings.Admin{
		Address: "off", Token: "s3cret", TokenFile: "token", Protect: settings.ProtectAll, Hosts: []string{"a.example"},
	}, "/", true
	next.StaticListings, next.StaticDotFiles = true, true
	next.Profile = "edge"
	next.Log = settings.Log{Level: 8, Format: humanlog.Text, Access: true}
	inMux := reflect.TypeFor[mux.Config]()
	want := make(map[string]string)
	for _, k := range settings.Keys() {
		section, _, _ := strings.Cut(strings.Replace(k.Path, "[]", "", 1), ".")
		if !slices.ContainsFunc(reflect.VisibleFields(inMux), func(f reflect.StructField) bool { return f.Tag.Get("yaml") == section }) {
			want[k.Path] = k.Apply
		}
	}
	got := make(map[string]string)
	for _, c := range append(ownChanges(current, next), tokenChange(current.Admin.Token, next.Admin.Token)...) {
		got[c.Path] = c.Apply
		if c.How == "" || c.Old == c.New || strings.Contains(c.New, "s3cret") {
			t.Errorf("change %+v", c)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if changes := append(ownChanges(next, next), tokenChange("s3cret", "s3cret")...); changes != nil {
		t.Errorf("changes of nothing: %v", changes)
	}
}
