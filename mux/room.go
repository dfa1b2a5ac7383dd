package mux

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
	"weak"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols/moments"
)

// room makes room for newcomers where a limit is reached: a connection that has had no
// request for a second leaves, and gives up its place at once, or the one that has been idle,
// or within the head of a request, for longest. So no client keeps others out by connections
// that cost it nothing. All methods may be called concurrently.
type room struct {
	departures *departures
	queues     func() bool // newcomers are not refused, and wait for a place
	maxLeaving int
	// patience is how long a client that was told may go on with a request when maxLeaving
	// are on their way out.
	patience time.Duration
	// mute and slow are mutePatience and slowPatience.
	mute, slow time.Duration

	// mu guards what follows.
	mu    sync.Mutex
	found map[place]*findings
}

// place is where there is no room: in a pool, or in all of them together where the tag is
// empty, or among the connections of one client.
type place struct {
	tag    pool.Tag
	client netip.Addr // not valid for a pool
	most   int        // how many undecided connections may stay; 0 elsewhere
}

// findings are the connections that a search has found, in the order in which they are to
// leave. A search looks at all connections, so one is made for many newcomers.
type findings struct {
	next   []finding
	again  time.Time   // when the next search may be made
	forget *time.Timer // lets go of them; nil before the first search
}

// finding is a spare whose connection may end before it is asked to leave.
type finding struct {
	spare // without its connection

	ref connRef
}

func findingsOf(spares []spare) []finding {
	found := make([]finding, len(spares))
	for i, s := range spares {
		found[i] = finding{s, weak.Make(s.c)}
		found[i].c = nil
	}
	return found
}

const (
	// maxSpares is how many connections a search finds at most.
	maxSpares = maxLeaving
	// findingsKept is for how long what a search has found is kept. By then it is out of
	// date, and the places of clients come and go.
	findingsKept = time.Second
	// searchRest is how long the next search waits behind one, in times of what that has taken,
	// because searches are made where connections are accepted. searchPause bounds the wait, for
	// each connection that was looked at: on a busy machine a search may take long by itself.
	searchRest  = 10
	searchPause = 20 * time.Microsecond
	// undecidedShare is the part of all places that connections may take which are not
	// recognised yet, as a divisor.
	undecidedShare = 4
	// maxLeaving bounds how many connections are on their way out without a place. Where
	// there are so many, those are cut that have gone on with requests.
	maxLeaving = 256
	// mutePatience is how long a client may send nothing while the server waits for a
	// handshake or the head of a request. It is the round trip of a client that is far away.
	// Where newcomers wait for a place, it is slowPatience: there always is one.
	mutePatience = 250 * time.Millisecond
	// slowPatience is how long a client may take, however steadily it sends, for what
	// comes before its first request, and for the head of each request. In that time a
	// client that is far away makes a handshake of two round trips.
	slowPatience = time.Second
)

func newRoom(d *departures, queues func() bool) *room {
	return &room{
		departures: d, queues: queues, maxLeaving: maxLeaving, patience: moments.GoAwayPatience,
		mute: mutePatience, slow: slowPatience, found: make(map[place]*findings),
	}
}

// beforeAccept makes room for a connection of which nothing is known yet. total is the
// limit of all connections. Below that only undecided ones leave, whose clients can tell
// that from a failure, where there are too many of them.
func (m *room) beforeAccept(total int) {
	conns := &m.departures.books.conns
	switch {
	case total <= 0:
	case conns.IsFull(""):
		m.makeIn(place{})
	case conns.Len(pool.Sniffing) >= max(1, total/undecidedShare):
		m.makeIn(place{tag: pool.Sniffing, most: max(1, total/undecidedShare)})
	}
}

// beforeClient makes room for a connection from an address, among those of its client.
func (m *room) beforeClient(address net.Addr) {
	conns := &m.departures.books.conns
	if client, ok := pool.ClientOf(address); ok && conns.IsClientFull(client) {
		m.makeIn(place{client: client})
	}
}

// beforeMove makes room in a pool for a connection that was recognised.
func (m *room) beforeMove(tag pool.Tag) {
	if m.departures.books.conns.IsFull(tag) {
		m.makeIn(place{tag: tag})
	}
}

// beforeRefusal makes room for a connection that is going to be refused, among others of
// which nothing is known yet. It reports false where there is none.
func (m *room) beforeRefusal(c *conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.first(place{tag: unreadTag}, func() ([]spare, int) {
		return search(m.departures.books.conns.Conns(pool.Sniffing), func(other *conn) (spare, bool) {
			return spare{c: other, since: other.account.Opened()}, other != c && m.isUnread(other)
		})
	}, func(s spare) bool {
		if !m.isUnread(s.c) {
			return false
		}
		s.c.account.SetCloseReason(reasonRefused)
		return s.c.account.CloseBelow() == nil
	})
}

// isFull reports whether there is no room in a place.
func (m *room) isFull(p place) bool {
	if p.client.IsValid() {
		return m.departures.books.conns.IsClientFull(p.client)
	}
	return m.departures.books.conns.IsFull(p.tag)
}

// makeIn has one connection of a place leave. Where the limit was lowered below what is open,
// more leave.
func (m *room) makeIn(p place) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.makeOne(p) && m.isFull(p) {
	}
}

// makeOne has one connection leave, and reports whether there was one. The caller holds mu.
func (m *room) makeOne(p place) bool {
	if m.areTooManyLeaving() {
		m.first(place{tag: lastingTag}, m.lasting, m.cut)
	}
	if m.areTooManyLeaving() {
		return false
	}
	return m.first(p, func() (spares []spare, looked int) { return m.spares(p) }, func(s spare) bool {
		// It may have had another request since the search.
		now, ok := m.spare(s.c)
		return ok && now.halfway == s.halfway && now.undecided == s.undecided && now.requests == s.requests && m.leave(now)
	})
}

// areTooManyLeaving reports whether so many connections are on their way out that no more
// are told.
func (m *room) areTooManyLeaving() bool {
	return m.departures.books.conns.Yielded() >= m.mostLeaving()
}

// mostLeaving is maxLeaving, or what there are descriptors for.
func (m *room) mostLeaving() int {
	return max(1, min(m.maxLeaving, m.departures.books.conns.Spare()/3))
}

// first calls use for what a search of this place has found, in order, until it succeeds. It
// reports false where it has not.
// The search is made anew where nothing is left but young ones, and it is time for that:
// others may have become older since, and go before them.
func (m *room) first(p place, search func() (spares []spare, looked int), use func(spare) bool) bool {
	f := m.found[p]
	if f == nil {
		f = new(findings)
		m.found[p] = f
	}
	for searched := false; ; {
		if now := time.Now(); !searched && (len(f.next) == 0 || f.next[0].turn == turnYoung) && !now.Before(f.again) {
			spares, looked := search()
			f.next = findingsOf(spares)
			took := time.Since(now)
			f.again = now.Add(took + min(searchRest*took, searchPause*time.Duration(looked)))
			m.forgetLater(p, f)
			searched = true
		}
		if len(f.next) == 0 {
			return false
		}
		s := f.next[0].spare
		s.c = f.next[0].ref.Value()
		f.next = f.next[1:]
		if s.c != nil && use(s) {
			return true
		}
	}
}

// forgetLater lets go of the findings after findingsKept. The caller holds mu.
func (m *room) forgetLater(p place, f *findings) {
	if f.forget != nil {
		f.forget.Reset(findingsKept)
		return
	}
	f.forget = time.AfterFunc(findingsKept, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.found, p)
	})
}

// spares returns connections that may leave, in the order of their turns. Of those that are
// not recognised yet it returns the undecided ones alone, as many as are too many, and none
// whose client may be within its round trips. It also returns how many it has looked at: for
// a pool all connections, since the set has no list for each pool.
func (m *room) spares(p place) (spares []spare, looked int) {
	conns := &m.departures.books.conns
	if p.tag != "" {
		defer func() { looked = conns.Len() }()
	}
	switch {
	case p.client.IsValid():
		return search(conns.ClientConns(p.client), m.spare)
	case p.tag == "":
		return search(conns.Conns(), m.spare)
	case p.tag == pool.Sniffing:
		undecided := 0
		spares, looked = search(conns.Conns(p.tag), func(c *conn) (spare, bool) {
			if c.stage() != stageOpen || !c.AwaitsFirstRequest() {
				return spare{}, false // Of the others the system would be asked.
			}
			undecided++
			s, ok := m.spare(c)
			return s, ok && s.undecided && s.turn == turnEarly
		})
		if undecided < p.most {
			return nil, looked
		}
		return spares[:min(len(spares), undecided-p.most+1)], looked
	default:
		return search(conns.Conns(p.tag), m.spare)
	}
}

// lastingTag and unreadTag are the names of the searches for [conn.lasting] and
// [room.isUnread], which no pool has.
const (
	lastingTag pool.Tag = "lasting"
	unreadTag  pool.Tag = "unread"
)

// lasting returns connections that were told to make room and are still there, the one that
// was told first before the others.
func (m *room) lasting() (spares []spare, looked int) {
	return search(m.departures.books.conns.Conns(), m.lasts)
}

// search returns what is says yes to, of all.
func search(all []*pool.Conn, is func(*conn) (spare, bool)) (spares []spare, looked int) {
	var found []spare
	for _, a := range all {
		if c, ok := a.Owner().(*conn); ok {
			if s, ok := is(c); ok {
				found = append(found, s)
			}
		}
	}
	slices.SortFunc(found, func(a, b spare) int {
		byAge := cmp.Or(a.since.Compare(b.since), cmp.Compare(a.c.account.ID(), b.c.account.ID()))
		if a.turn == turnYoung {
			byAge = -byAge
		}
		return cmp.Or(cmp.Compare(a.turn, b.turn), byAge)
	})
	return found[:min(len(found), maxSpares)], len(all)
}

// cut ends a connection that is still there although it was told to leave, because so many
// are that no other can make room. Where nothing is under way the client is told its last
// stream, and what waits for the goodbye of TLS alone ends without it. It reports false for one
// that has ended since the search, or has become a WebSocket.
func (m *room) cut(s spare) bool {
	c := s.c
	if _, ok := m.lasts(c); !ok {
		return false
	}
	switch isHTTP1 := !c.isHTTP2() && c.account.State() != pool.StateUpgraded; {
	case c.isClosing():
		_ = c.account.CloseBelow() // Its answers still go out.
	case !isHTTP1 && c.isAnswered():
		m.departures.end(c, "") // The reason for which it was told stands.
	case isHTTP1 && c.account.State() == pool.StateIdle:
		c.closeIdle(0)
	default:
		c.abort("")
	}
	return true
}

// leave tells a connection to leave, and takes its place. It reports false for one that
// has ended meanwhile.
func (m *room) leave(s spare) bool {
	c := s.c
	yield := func() bool { return m.departures.books.conns.Yield(&c.account) }
	if s.undecided { // It yields only if it will not be served.
		return c.GiveUp(func() bool {
			if !yield() {
				return false
			}
			c.account.SetCloseReason(reasonRoom)
			return true
		})
	}
	if !yield() {
		return false
	}
	if s.left {
		c.abort(reasonRoom)
		return true
	}
	if s.halfway || c.isClosing() {
		c.account.SetCloseReason(reasonRoom)
		_ = c.account.CloseBelow() // TLS would write first.
		return true
	}
	switch crowd := m.departures.books.conns.Yielded() > m.mostLeaving()/2; {
	case !crowd:
		m.departures.leave(c, reasonRoom, 0)
	case c.isHTTP2(): // More come than leave by themselves, and so below.
		m.departures.leaveIdle(c, reasonRoom)
	default:
		m.departures.leave(c, reasonRoom, 0)
		c.closeIdle(0) // However fresh.
	}
	return true
}
