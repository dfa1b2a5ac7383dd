package main

import (
	"context"
	"crypto/sha256"
	"maps"
	"slices"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
)

// watchInterval is the time between two looks at the files. Their contents are compared,
// because the symbolic links of a Kubernetes secret change under unchanged names.
const watchInterval = time.Second

// settleTime is how long files must stay the same before they are read. A program that
// rewrites a file in place writes more than once.
const settleTime = 100 * time.Millisecond

// maxDigested bounds the part of a file that is compared. It is above the limit of any
// file.
const maxDigested = 2 << 20

// setWatch begins to watch the files, or stops it.
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
	tick := time.Tick(watchInterval)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
			r.look(ctx)
		}
	}
}

// look reloads the configuration if its files have changed. It does nothing while another
// change or an upgrade is under way.
func (r *reloads) look(ctx context.Context) {
	if r.tryLock() != nil {
		return
	}
	if !r.haveChanged(ctx) {
		r.changing.Unlock()
		return
	}
	_, _ = r.ended(r.reload(originWatch))
}

// haveChanged reports whether the files have changed, as soon as nobody writes them any
// more, and false if ctx ends before. The caller holds changing.
func (r *reloads) haveChanged(ctx context.Context) bool {
	names := slices.Collect(maps.Keys(r.looked))
	now := digestsOf(names)
	if maps.Equal(now, r.looked) {
		return false
	}
	for {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(settleTime):
		}
		before := now
		if now = digestsOf(names); maps.Equal(now, before) {
			return true
		}
	}
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
