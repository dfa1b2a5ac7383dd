package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
)

// watchInterval is how often the files are looked at. Their content is compared,
// because the symbolic links of a Kubernetes secret change under unchanged names.
const watchInterval = time.Second

// settleTime is how long files have to be the same before they are read: who writes one in place writes more than once.
const settleTime = 100 * time.Millisecond

// maxDigested bounds how much of a file is looked at. It is more than any of them may have.
const maxDigested = 2 << 20

// watcher runs while the files are watched.
type watcher struct {
	mu   sync.Mutex // guards stop
	stop context.CancelFunc
}

// setWatch begins to watch the files, or ends it.
func (r *reloads) setWatch(on bool) {
	w := &r.watcher
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case on && w.stop == nil:
		ctx, stop := context.WithCancel(r.process.running)
		w.stop = stop
		go r.watch(ctx)
	case !on && w.stop != nil:
		w.stop()
		w.stop = nil
	}
}

// watch reloads the configuration whenever its files have changed since the last attempt, whoever made that, until ctx
// ends. So a faulty file is reported once.
func (r *reloads) watch(ctx context.Context) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.look(ctx)
		}
	}
}

// look reloads the configuration if its files have changed, and nobody else is at it.
func (r *reloads) look(ctx context.Context) {
	if !r.changing.TryLock() {
		return
	}
	defer r.changing.Unlock()
	names := slices.Collect(maps.Keys(r.looked))
	now := digestsOf(names)
	if maps.Equal(now, r.looked) {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(settleTime):
		}
		before := now
		if now = digestsOf(names); maps.Equal(now, before) {
			break
		}
	}
	_, _ = r.reload(originWatch)
}

// filesOf returns the files that settings are made of: the configuration, certificates, keys and ticket keys.
func filesOf(s *settings.Settings) []string {
	var names []string
	if file := s.ConfigFile(); file != "" {
		names = append(names, file)
	}
	for _, l := range s.Mux.Listeners {
		for _, name := range []string{l.TLS.Cert, l.TLS.Key, l.TLS.ClientCA, l.TLS.TicketKeys} {
			// A value of several lines is PEM text and names no file.
			if name != "" && !strings.ContainsAny(name, "\r\n") {
				names = append(names, name)
			}
		}
	}
	return names
}

// digests tells by the name of each file what is in it, or why that cannot be read.
type digests map[string][sha256.Size]byte

func digestsOf(names []string) digests {
	d := make(digests, len(names))
	for _, name := range names {
		d[name] = digestOf(name)
	}
	return d
}

// add adds the digests of other files.
func (d digests) add(others digests) {
	for name, digest := range others {
		if _, known := d[name]; !known {
			d[name] = digest
		}
	}
}

// digestOf returns the digest of a file, or of the reason why it cannot be read.
func digestOf(name string) (digest [sha256.Size]byte) {
	hash := sha256.New()
	if err := readRegular(hash, name); err != nil {
		fmt.Fprint(hash, err)
	}
	hash.Sum(digest[:0])
	return digest
}

// readRegular copies a file. It opens regular files alone, because to open a pipe may take for ever.
func readRegular(w io.Writer, name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyN(w, f, maxDigested)
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// isEmpty reports whether there is a file with nothing in it.
func isEmpty(name string) bool { return digestOf(name) == sha256.Sum256(nil) }
