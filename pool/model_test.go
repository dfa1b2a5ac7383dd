package pool_test

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/muxserve/muxserve/pool"
)

// ignoreRates compares statistics without what depends on how long the test takes.
var ignoreRates = cmpopts.IgnoreFields(pool.Stats{}, "AcceptedPerSecond", "AcceptedPerMinute", "Lifetimes", "Reasons")

// model keeps the books of a Set in the plainest way: each byte is booked when it is
// moved.
type model struct {
	stats map[string]*pool.Stats
	conns []*modelConn
}

type modelConn struct {
	*pool.Conn

	tag string
	// unbooked is what it moved before its pool was known.
	unbooked pool.Stats
}

func (m *model) of(tag string) *pool.Stats {
	if m.stats[tag] == nil {
		m.stats[tag] = new(pool.Stats)
	}
	return m.stats[tag]
}

// books returns where the traffic of c is booked now.
func (m *model) books(c *modelConn) *pool.Stats {
	if c.tag == string(pool.Sniffing) {
		return &c.unbooked
	}
	return m.of(c.tag)
}

func (m *model) settle(c *modelConn, tag string) {
	to := m.of(tag)
	to.BytesReceived += c.unbooked.BytesReceived
	to.BytesSent += c.unbooked.BytesSent
	to.MessagesReceived += c.unbooked.MessagesReceived
	to.MessagesSent += c.unbooked.MessagesSent
	c.unbooked = pool.Stats{}
}

func (m *model) add(set *pool.Set) {
	c := &modelConn{Conn: add(set, bench{}), tag: string(pool.Sniffing)}
	m.conns = append(m.conns, c)
	m.of(c.tag).Active++
	m.of(c.tag).Accepted++
}

func (m *model) move(set *pool.Set, c *modelConn, tag string) {
	set.Move(c.Conn, pool.Tag(tag))
	if c.tag == tag || tag == string(pool.Sniffing) {
		return
	}
	m.of(c.tag).Active--
	m.of(c.tag).Moved++
	m.of(tag).Active++
	m.of(tag).Accepted++
	m.settle(c, tag)
	c.tag = tag
}

func (m *model) close(i int) {
	c := m.conns[i]
	m.conns = append(m.conns[:i], m.conns[i+1:]...)
	_ = c.Close()
	m.settle(c, c.tag)
	m.of(c.tag).Active--
	m.of(c.tag).Closed++
}

func (m *model) traffic(c *modelConn, random *rand.Rand) {
	read, written := random.IntN(5000), random.IntN(5000)
	_, _ = c.Read(make([]byte, read))
	_, _ = c.Write(make([]byte, written))
	c.CountMessages(read%3, written%4)
	books := m.books(c)
	books.BytesReceived += uint64(read)
	books.BytesSent += uint64(written)
	books.MessagesReceived += uint64(read % 3)
	books.MessagesSent += uint64(written % 4)
}

func (m *model) check(t *testing.T, set *pool.Set) {
	t.Helper()
	want := make(map[string]pool.Stats)
	for tag, stats := range m.stats {
		want[tag] = *stats
	}
	if diff := cmp.Diff(want, set.Stats(), ignoreRates); diff != "" {
		t.Fatalf("stats (-want +got):\n%s", diff)
	}
	for tag, stats := range set.Stats() {
		if stats.Lifetimes.Count != want[tag].Closed || stats.Reasons["server_closed"] != want[tag].Closed {
			t.Fatalf("%s: %d lives and reasons %v for %d closed", tag, stats.Lifetimes.Count, stats.Reasons, want[tag].Closed)
		}
	}
}

// TestAgainstModel: whatever happens in whatever order, the Set's books are the model's.
func TestAgainstModel(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	tags := []string{"sniffing", "http1", "http2", "grpc", "websocket"}
	var set pool.Set
	m := model{stats: make(map[string]*pool.Stats)}
	for range 5000 {
		if len(m.conns) == 0 || random.IntN(10) == 0 && len(m.conns) < 50 {
			m.add(&set)
		}
		i := random.IntN(len(m.conns))
		switch random.IntN(12) {
		case 0:
			m.close(i)
		case 1, 2, 3:
			m.move(&set, m.conns[i], tags[random.IntN(len(tags))])
		default:
			m.traffic(m.conns[i], random)
		}
		m.check(t, &set)
	}
	for len(m.conns) > 0 {
		m.close(0)
	}
	m.check(t, &set)
	if set.Len() != 0 {
		t.Errorf("%d left", set.Len())
	}
}

// TestBooksConcurrent: while connections move bytes and are moved themselves, no total
// runs backwards, and at the end none is lost or counted twice.
func TestBooksConcurrent(t *testing.T) {
	var set pool.Set
	tags := []pool.Tag{"http1", "http2", "websocket"}
	const workers, rounds, writes, size = 6, 100, 20, 7
	stop := make(chan struct{})
	var watcher, wg sync.WaitGroup
	watcher.Go(func() { watchTotals(t, &set, stop) })
	for range workers {
		wg.Go(func() {
			for range rounds {
				c := add(&set, bench{})
				var both sync.WaitGroup
				both.Go(func() {
					for range writes {
						_, _ = c.Write(make([]byte, size))
						c.CountMessages(1, 2)
					}
				})
				both.Go(func() {
					for range 5 {
						set.Move(c, tags[rand.N(len(tags))])
					}
				})
				both.Wait()
				_ = c.Close()
			}
		})
	}
	wg.Wait()
	close(stop)
	watcher.Wait()
	var total pool.Stats
	for _, s := range set.Stats() {
		total.Active += s.Active
		total.BytesSent += s.BytesSent
		total.MessagesReceived += s.MessagesReceived
		total.MessagesSent += s.MessagesSent
	}
	const n = workers * rounds * writes
	if diff := cmp.Diff(pool.Stats{BytesSent: n * size, MessagesReceived: n, MessagesSent: 2 * n}, total); diff != "" {
		t.Errorf("total (-want +got):\n%s", diff)
	}
}

// watchTotals asks for the totals until stop is closed, and reports one that was greater
// before.
func watchTotals(t *testing.T, set *pool.Set, stop <-chan struct{}) {
	last := make(map[string]pool.Stats)
	for {
		select {
		case <-stop:
			return
		default:
		}
		for tag, s := range set.Stats() {
			if old := last[tag]; s.BytesSent < old.BytesSent || s.MessagesSent < old.MessagesSent || s.MessagesReceived < old.MessagesReceived {
				t.Errorf("%s: from %+v to %+v", tag, old, s)
			}
			last[tag] = s
		}
	}
}
