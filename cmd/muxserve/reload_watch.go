package main

import (
	"context"
	"crypto/sha256"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
)

// watchInterval is the time between two looks at the files. Their contents are compared,
// because the symbolic links of a Kubernetes secret change under unchanged names.
const watchInterval = time.Second

// How long files must stay the same before they are read.
const (
	// settleTime is for a file that was written in place. Its writer may pause in the middle,
	// and the first part may be a valid file that leaves out what protects a port.
	settleTime = 2 * watchInterval
	// replaceTime is for a file that another one has replaced, by rename: that was written
	// before. A key follows its certificate.
	replaceTime = 100 * time.Millisecond
)

// maxDigested bounds the part of a file that is compared. It is above the limit of any
// file.
const maxDigested = 2 << 20

// setWatch begins to watch the files, or stops it. The watch is never stopped by its own
// reload, but by a later look that finds the same files.
func (r *reloads) setWatch(on bool) {
	r.watching.Lock()
	defer r.watching.Unlock()
	switch {
	case on && r.stopWatch == nil:
		ctx, stop := context.WithCancel(r.process.running)
		r.stopWatch = stop
		go r.watch(ctx)
	case !on && r.stopWatch != nil:
		r.stopWatch()
		r.stopWatch = nil
	}
}

// watch reloads the configuration whenever its files differ from those of the last
// attempt, by whatever caller, until ctx ends. So a faulty file is reported once.
func (r *reloads) watch(ctx context.Context) {
	var w watcher
	for wait := watchInterval; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
			wait = r.look(&w, time.Now())
		}
	}
}

// look reloads the configuration if its files have changed and are whole, and returns the
// time until the next look. It does nothing while another change or an upgrade is under
// way.
func (r *reloads) look(w *watcher, now time.Time) time.Duration {
	if r.tryLock() != nil {
		return watchInterval
	}
	w.look(slices.Collect(maps.Keys(r.looked)), now)
	switch {
	case now.Before(w.whole):
		r.changing.Unlock()
		return min(watchInterval, w.whole.Sub(now))
	case maps.Equal(w.seen, r.looked):
		r.setWatch(r.process.settings().Watch)
		r.changing.Unlock()
	default:
		_, _ = r.ended(r.reload(originWatch))
		if !r.process.settings().Watch {
			// What says so may be the first part of a file that says more.
			w.whole = now.Add(settleTime)
		}
	}
	return watchInterval
}

// watcher is what the watch has seen of the files. It belongs to one goroutine.
type watcher struct {
	seen  digests
	infos map[string]os.FileInfo // nil for what cannot be read
	whole time.Time              // when the files are whole, if they stay as they are
}

// look looks at the files at the time now.
func (w *watcher) look(names []string, now time.Time) {
	infos := make(map[string]os.FileInfo, len(names))
	for _, name := range names {
		infos[name], _ = os.Stat(name)
	}
	seen := digestsOf(names)
	for name, digest := range seen {
		if digest == w.seen[name] {
			continue
		}
		settle := settleTime
		if was, is := w.infos[name], infos[name]; was != nil && is != nil && !os.SameFile(was, is) {
			settle = replaceTime
		}
		if whole := now.Add(settle); whole.After(w.whole) {
			w.whole = whole
		}
	}
	w.seen, w.infos = seen, infos
}

// filesOf returns the files of settings: configuration, token, certificates, keys,
// passphrases and ticket keys.
func filesOf(s *settings.Settings) []string {
	var names []string
	if file := s.ConfigFile(); file != "" {
		names = append(names, file)
	}
	if s.Admin.TokenFile != "" {
		names = append(names, s.Admin.TokenFile)
	}
	for _, l := range s.Mux.Listeners {
		names = append(names, l.TLS.Files()...)
	}
	return names
}

// digests has the digest of each file by its name.
type digests map[string][sha256.Size]byte

func digestsOf(names []string) digests {
	d := make(digests, len(names))
	for _, name := range names {
		d[name] = digestOf(name)
	}
	return d
}

// digestsRead returns the digests of what settings have read of their files. At the start
// the files may have changed since.
func digestsRead(s *settings.Settings) digests {
	d := make(digests)
	for name, data := range s.Read() {
		d[name] = sha256.Sum256(data)
	}
	return d
}

// with adds d to others and returns them. The digests of d win.
func (d digests) with(others digests) digests {
	maps.Copy(others, d)
	return others
}

// digestOf returns the digest of a file's content, or of the error of reading it.
func digestOf(name string) [sha256.Size]byte {
	data, err := settings.ReadFile(name, maxDigested)
	if err != nil {
		data = []byte(err.Error())
	}
	return sha256.Sum256(data)
}
