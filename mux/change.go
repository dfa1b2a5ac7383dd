package mux

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/pool"
)

// change is what a reload does to listeners and servers, once nothing can fail any more.
type change struct {
	backend   *backend
	wanted    []listeners.Config
	endpoints []*endpoint // of wanted; the new ones have no sockets until these are open
	fresh     []*endpoint // of those, the ones whose addresses are new
	opened    []*endpoint // of those, the new ones whose sockets were opened or kept
	handOver  []handOver  // the ones whose sockets are served another way, brought ones included
	end       []*endpoint // the ones that are no longer wanted, or have failed
}

// handOver is an endpoint whose sockets are served another way.
type handOver struct {
	*endpoint

	by *endpoint // the next one; nil where brought, which has a successor
}

// prepare finds what a change to c and b needs, and reads its certificates; ch.endpoints are
// the ones in force. It opens nothing. The caller holds changing.
func (t *topology) prepare(ch *change, c *Config, b *backend) error {
	left := ch.endpoints
	ch.backend, ch.wanted, ch.endpoints = b, t.wanted(c), nil // nil says that nothing is configured.
	if ch.wanted != nil {
		ch.endpoints = make([]*endpoint, len(ch.wanted))
	}
	rebuild := b != t.backend.Load()
	for i, want := range ch.wanted {
		at := slices.IndexFunc(left, func(e *endpoint) bool { return e.config.Address == want.Address && !e.hasFailed() })
		var old *endpoint
		if at >= 0 {
			old = left[at]
			left = slices.Delete(left, at, at+1)
			if !rebuild && canStay(old.config, want) {
				ch.endpoints[i] = old
				continue
			}
			if err := old.canHandOver(); err != nil {
				return err
			}
		}
		e, err := newEndpoint(want)
		if err != nil {
			return err
		}
		ch.endpoints[i] = e
		if old == nil {
			ch.fresh = append(ch.fresh, e)
		} else {
			ch.handOver = append(ch.handOver, handOver{old, e})
		}
	}
	ch.end = left
	if rebuild {
		for _, old := range t.brought() {
			if old.hasFailed() {
				ch.end = append(ch.end, old)
				continue
			}
			if err := old.canHandOver(); err != nil {
				return err
			}
			ch.handOver = append(ch.handOver, handOver{old, nil})
		}
	}
	return nil
}

// openAll opens the sockets of a change. It is the last step that can fail, so it changes
// what clients notice last: sockets that stay, then addresses that overlap with one that is
// served and is to go, and then further sockets of an address that is served. These get
// connections from now on, which are lost where the change fails. The caller undoes
// ch.opened after an error.
func (t *topology) openAll(ch *change) error {
	open := func(ctx context.Context, e *endpoint, was listeners.Config, keep ...net.Listener) error {
		err := t.open(ctx, e, was, keep...)
		if err == nil {
			ch.opened = append(ch.opened, e)
		}
		return err
	}
	replacing := listeners.Replacing(context.Background(), t.leaving(ch)...)
	openFresh := func(overlapping bool) error {
		for _, e := range ch.fresh {
			if ch.overlaps(e) != overlapping {
				continue
			}
			if err := open(replacing, e, listeners.Config{}); err != nil {
				return err
			}
		}
		return nil
	}
	openKept := func(growing bool) error {
		for _, old := range ch.handOver {
			if old.by == nil || growing != (old.by.config.ReusePort > max(1, len(old.sockets))) {
				continue
			}
			if err := open(context.Background(), old.by, old.config, old.bare()...); err != nil {
				return err
			}
		}
		return nil
	}
	for _, noticed := range []bool{false, true} {
		if err := openFresh(noticed); err != nil {
			return err
		}
		if err := openKept(noticed); err != nil {
			return err
		}
	}
	return nil
}

// overlaps reports whether the address of a new endpoint overlaps with that of one that the
// change ends.
func (ch *change) overlaps(e *endpoint) bool {
	address := e.config.Address
	return slices.ContainsFunc(ch.end, func(old *endpoint) bool {
		return listeners.Collide(address, old.Addr().String()) || listeners.Collide(address, old.config.Address)
	})
}

// leaving returns the sockets that are to go with a change, or have been told to by an
// earlier one.
func (t *topology) leaving(ch *change) []net.Listener {
	bare := func(endpoints []*endpoint) (all []net.Listener) {
		for _, e := range endpoints {
			all = append(all, e.bare()...)
		}
		return all
	}
	gone := slices.Clone(ch.end)
	t.mu.Lock()
	for _, r := range t.roots {
		if e := r.endpoint; !e.brought && !e.local && e.isReplaced() && !isDone(r.done) {
			gone = append(gone, e)
		}
	}
	t.mu.Unlock()
	stay := bare(ch.endpoints)
	for _, old := range ch.handOver {
		stay = append(stay, old.bare()...)
	}
	return slices.DeleteFunc(bare(gone), func(l net.Listener) bool { return slices.Contains(stay, l) })
}

// canStay reports whether a listener goes on as it is, but for what its TLS reads anew: its
// certificates, their keys and the ticket keys.
func canStay(a, b listeners.Config) bool {
	p := new(planner)
	p.compareListeners([]listeners.Config{a}, []listeners.Config{b})
	return !slices.ContainsFunc(p.changes, func(c Change) bool { return c.Apply == ApplyRestart })
}

// renew reads the certificates of the endpoints that stay, which the change may name anew. It
// returns what puts them in use, and how the certificates change.
func (ch *change) renew() (use []func(), changes []Change, err error) {
	add := func(more ...Change) {
		for _, c := range more {
			if !slices.Contains(changes, c) { // Listeners may share a certificate.
				changes = append(changes, c)
			}
		}
	}
	for i, e := range ch.endpoints {
		if e.tls == nil {
			continue
		}
		if e.sockets != nil { // The endpoint stays.
			config := e.config
			if ch.wanted != nil {
				config = ch.wanted[i]
			}
			next, swap, eerr := e.tls.Prepare(config.TLS)
			if eerr != nil {
				err = errors.Join(err, fmt.Errorf("mux: listener %s: %w", e.Addr(), eerr))
			}
			if swap == nil {
				continue
			}
			use = append(use, func() {
				swap()
				e.mu.Lock()
				e.config = config
				e.mu.Unlock()
			})
			if next == nil {
				continue
			}
			renewed := certificateChanges(e.tls.Certificates(), next)
			if len(renewed) == 0 { // A chain, the client CA or the ticket keys.
				renewed = []Change{certificateChange("the files as they were", "the files as they are")}
			}
			add(renewed...)
			continue
		}
		for _, old := range ch.handOver {
			if old.by == e && old.tls != nil {
				add(certificateChanges(old.tls.Certificates(), e.tls.Certificates())...)
			}
		}
	}
	return use, changes, err
}

// certificateChanges returns the changes from one list of certificates to another.
func certificateChanges(from, to []*x509.Certificate) (changes []Change) {
	without := func(all, others []*x509.Certificate) []*x509.Certificate {
		return slices.DeleteFunc(slices.Clone(all), func(c *x509.Certificate) bool { return slices.ContainsFunc(others, c.Equal) })
	}
	gone, come := without(from, to), without(to, from)
	for i := range max(len(gone), len(come)) {
		var was, is string
		if i < len(gone) {
			was = describeCertificate(gone[i])
		}
		if i < len(come) {
			is = describeCertificate(come[i])
		}
		changes = append(changes, certificateChange(was, is))
	}
	return changes
}

func certificateChange(was, is string) Change {
	return Change{Path: "certificates", Old: was, New: is, Apply: ApplyRuntime, How: howRenewed}
}

// describeCertificate names a certificate by its subject, or by its first name where that
// is empty, with the kind of its key and when it expires.
func describeCertificate(c *x509.Certificate) string {
	subject := c.Subject.String()
	if subject == "" && len(c.DNSNames) > 0 {
		subject = c.DNSNames[0]
	}
	return fmt.Sprintf("%s (%s), expires %s", subject, c.PublicKeyAlgorithm, c.NotAfter.UTC().Format(time.RFC3339))
}

// lockChange keeps endpoints from being opened, replaced or served by others, until
// unlockChange.
func (t *topology) lockChange() {
	t.opening.Lock()
	t.changing.Lock()
}

func (t *topology) unlockChange() {
	t.changing.Unlock()
	t.opening.Unlock()
}

// apply makes the change. Nothing of it can fail. The caller holds changing.
func (t *topology) apply(c *Config, ch *change) {
	if ch.backend != t.backend.Load() {
		t.use(ch.backend)
	}
	t.mu.Lock()
	roots := slices.Clone(t.roots)
	t.endpoints = ch.endpoints
	var begin []*endpoint
	if t.served || t.running.isStopping() { // Otherwise ListenAndServe will serve them.
		begin = slices.DeleteFunc(slices.Clone(ch.endpoints), func(e *endpoint) bool { return !slices.Contains(ch.opened, e) })
	}
	t.mu.Unlock()
	for _, e := range ch.opened {
		e.opening.Commit()
	}
	for _, r := range roots {
		r.configure(c)
	}
	var retired []*root
	for _, e := range ch.end {
		retired = append(retired, e.replace()...)
	}
	retired = append(retired, t.replaceLocal()...)
	// A socket that stays queues connections in the kernel meanwhile. Where the address
	// changes, the new one is served first.
	for _, e := range ch.handOver {
		retired = append(retired, e.replace()...)
		if e.brought {
			begin = append(begin, e.successor())
		}
		e.handOver()
	}
	t.begin(begin...)
	for _, e := range ch.end {
		e.stop()
	}
	t.announceChange()
	t.running.background.run(func() { t.retire(retired, c.Drain.Spread) })
}

// retire has the clients of roots that accept no more leave, each at a moment of the
// spread, and waits until they have. Then it closes the backends that are not used any
// more.
func (t *topology) retire(roots []*root, over time.Duration) {
	if len(roots) == 0 {
		return
	}
	serving := t.running.serving
	_ = waitRoots(serving, roots)
	leaving := refsOf(t.books.all(func(c *conn) bool { return slices.Contains(roots, c.root) }))
	spread(serving, leaving, over, func(c *conn) { t.departures.leave(c, reasonReload, 0) })
	isClosed := func(ref connRef) bool {
		c := ref.Value()
		return c == nil || c.account.State() == pool.StateClosing
	}
	tick := time.NewTicker(retireInterval)
	defer tick.Stop()
	for leaving = slices.DeleteFunc(leaving, isClosed); len(leaving) > 0; leaving = slices.DeleteFunc(leaving, isClosed) {
		select {
		case <-tick.C:
		case <-serving.Done():
			return // The end of the server closes the rest.
		}
	}
	t.forget(roots)
}

// retireInterval is how often retire looks whether the connections are gone.
const retireInterval = 100 * time.Millisecond
